"""The folder of one evaluation: evaluation.json describes it, predictions.jsonl holds a line per row.

Two evaluations can be compared if the data digests in their manifests are equal. Until all rows are answered, the
answers are in answers.partial.jsonl.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestration.evaluate.statistics import Estimate
from orchestration.settings.errors import DataError
from orchestration.storage.files import whole_file
from orchestration.workers.answers import EvaluatedSample

SCHEMA_VERSION = "mixed-r1.evaluation.v1"
MANIFEST = "evaluation.json"
PREDICTIONS = "predictions.jsonl"
PARTIAL = "answers.partial.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Model, data and sampling settings of an evaluation."""

    model: str
    """Name or path of the checkpoint."""
    data: str
    """Name or path of the dataset."""
    data_digest: str
    """Digest of the selected rows; equal for evaluations that can be compared."""
    num_rows: int
    """Lines of predictions.jsonl, failed rows included."""
    sampling: dict[str, int | float | str] = field(default_factory=dict)
    """Settings that a score depends on: temperature, seed, limits, prompt."""
    schema: str = SCHEMA_VERSION


def write_evaluation(folder: Path, manifest: Manifest, samples: Iterable[EvaluatedSample]) -> None:
    """Write predictions and then the manifest, so that a folder with a manifest is complete.

    Raises:
        DataError: The number of rows is not the manifest's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    num_rows = 0
    with whole_file(folder / PREDICTIONS) as partial:
        with partial.open("w", encoding="ascii") as file:
            for sample in samples:
                file.write(sample.to_json() + "\n")
                num_rows += 1
        if num_rows != manifest.num_rows:
            raise DataError(f"{folder}: {num_rows} rows were written, the manifest says {manifest.num_rows}")
    write_whole(folder / MANIFEST, json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")


def read_evaluation(folder: Path) -> tuple[Manifest, list[EvaluatedSample]]:
    """Read the manifest and the rows of a folder.

    Raises:
        DataError: A file is missing, of another version, or incomplete.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text())
        lines = (folder / PREDICTIONS).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}); {folder} is not a complete evaluation"
        ) from error
    except ValueError as error:
        raise DataError(f"{folder} is no evaluation that can be read: {error}") from error
    found = values.get("schema") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION or values.keys() != {item.name for item in fields(Manifest)}:
        raise DataError(
            f"{folder / MANIFEST} has schema {found!r}; this version reads {SCHEMA_VERSION!r}: evaluate again"
        )
    manifest = Manifest(**values)
    samples = [_sample(line, folder, number) for number, line in enumerate(lines, start=1)]
    if len(samples) != manifest.num_rows:
        raise DataError(f"{folder / PREDICTIONS} holds {len(samples)} rows, its manifest says {manifest.num_rows}")
    return manifest, samples


def check_comparable(before: Manifest, after: Manifest) -> None:
    """Raise DataError if two evaluations are of different data."""
    if before.data_digest != after.data_digest:
        raise DataError(
            f"before was evaluated on {before.data} (digest {before.data_digest[:16]}, {before.num_rows} rows), after "
            f"on {after.data} (digest {after.data_digest[:16]}, {after.num_rows} rows); evaluate both on the same data"
        )


def write_json(path: Path, values: Any) -> None:
    """Write a summary or a comparison as JSON; records become objects, estimates objects with an interval."""
    write_whole(path, json.dumps(values, indent=2, allow_nan=False, default=_plain) + "\n")


def _plain(record: Any) -> dict[str, Any]:
    if isinstance(record, Estimate):
        return {"value": record.value, "interval": [record.low, record.high], "num_samples": record.num_samples}
    return {item.name: getattr(record, item.name) for item in fields(record)}


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically; lone surrogates become question marks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8", "replace"))


def _sample(line: str, folder: Path, number: int) -> EvaluatedSample:
    try:
        return EvaluatedSample.from_json(line)
    except (DataError, TypeError, ValueError) as error:
        raise DataError(f"{folder / PREDICTIONS}:{number}: {error}") from error


class PartialAnswers:
    """File of answers received so far, so that an interrupted evaluation can continue.

    Its first line is the key of the evaluation. The file is only appended to, so a kill loses at most the line being
    written. The caller holds the lock of the folder.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Read the answers of an earlier evaluation with the same key, or start a new file.

        A file with another key is renamed to `answers.partial.jsonl.<key>`.
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
                continue  # truncated by a kill
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
        """Append one answer."""
        self.found[sample.sample_id] = sample
        self._file.write(sample.to_json() + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Delete the file, once the evaluation is written."""
        self._file.close()
        self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
