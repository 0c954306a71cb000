"""Answers as they come, so that an evaluation that is stopped asks no question twice."""

from pathlib import Path
from types import TracebackType
from typing import Self

from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample

PARTIAL = "answers.partial.jsonl"


class PartialAnswers:
    """A file of evaluated samples in the order in which they came; its first line is the key of what was asked.

    The file is only appended to, so a kill at any moment costs at most the line that was being written. Whoever opens
    it holds the lock of the folder.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Take up what an earlier evaluation of the same key left in `folder`, or begin anew.

        Answers of another key are kept in a file of their own name, `answers.partial.jsonl.<key>`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / PARTIAL
        self.found: dict[str, EvaluatedSample] = {}
        """By sample id."""
        first, *lines = self._read()
        is_same = first == key
        if lines and not is_same:
            self._path.replace(folder / f"{PARTIAL}.{first[:16] if first.isalnum() else 'damaged'}")
        for line in lines if is_same else ():
            try:
                sample = EvaluatedSample.from_json(line)
            except DataError:
                continue  # cut short by a kill
            self.found[sample.sample_id] = sample
        self._file = self._path.open("a", encoding="ascii")
        if not is_same:
            self._file.write(key + "\n")
            self._file.flush()

    def _read(self) -> list[str]:
        """Return the lines of the file, the last one ended if a kill cut it; one empty line where there is no file."""
        if not self._path.is_file() or not self._path.stat().st_size:
            return [""]
        text = self._path.read_text(encoding="ascii", errors="replace")
        if not text.endswith("\n"):
            with self._path.open("a", encoding="ascii") as file:
                file.write("\n")
        return text.split("\n")

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
