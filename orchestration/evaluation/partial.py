"""Answers as they come, so that an evaluation that is stopped asks no question twice."""

from pathlib import Path
from types import TracebackType
from typing import Self

from orchestration.errors import DataError
from orchestration.evaluation.records import EvaluatedSample

PARTIAL = "answers.partial.jsonl"


class PartialAnswers:
    """A file of evaluated samples in the order in which they came; its first line is the key of what was asked."""

    def __init__(self, folder: Path, key: str) -> None:
        """Take up what an earlier evaluation of the same key left in `folder`, or begin anew."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / PARTIAL
        self.found: dict[str, EvaluatedSample] = {}
        """By sample id."""
        if self._path.is_file():
            self._take_up(key)
        with self._path.open("w", encoding="ascii") as file:
            file.write(key + "\n")
            file.writelines(sample.to_json() + "\n" for sample in self.found.values())
        self._file = self._path.open("a", encoding="ascii")

    def _take_up(self, key: str) -> None:
        first, *lines = self._path.read_text(encoding="ascii", errors="replace").splitlines() or [""]
        if first != key:
            return
        for line in lines:
            try:
                sample = EvaluatedSample.from_json(line)
            except DataError:
                return  # cut short by a kill
            self.found[sample.sample_id] = sample

    def add(self, sample: EvaluatedSample) -> None:
        """Keep one more."""
        self.found[sample.sample_id] = sample
        self._file.write(sample.to_json() + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Delete the file, once everything is written elsewhere."""
        self._file.close()
        self._path.unlink()

    def __enter__(self) -> Self:
        """Use as a block that closes the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self._file.close()
