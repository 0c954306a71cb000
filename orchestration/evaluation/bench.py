"""Bench: a dataset as one evaluation asks it, which rows and in which order."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestration.errors import DataError
from orchestration.evaluation.records import EvaluatedSample
from orchestration.seeds import derive_seed
from rollout.dataset import SampleTable
from rollout.records import ImageBytes, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A dataset as one evaluation asks it."""

    table: SampleTable
    rows: tuple[int, ...]
    """Which rows, in their order."""
    ids: dict[str, int]
    """Row of each sample id asked for."""
    digest: str
    """Of questions, references and images; equal digests may be compared."""

    def samples(self, done: Mapping[str, EvaluatedSample]) -> Iterator[Sample]:
        """Read those that are not answered yet."""
        for sample_id, row in self.ids.items():
            if sample_id not in done:
                yield self.table[row]

    def images_of(self, sample_id: str) -> Sequence[ImageBytes]:
        """Give the images of one row."""
        return self.table[self.ids[sample_id]].images


def open_bench(data: Path, *, seed: int, max_samples: int | None) -> Bench:
    """Open a dataset and choose its rows.

    Raises:
        DataError: Two rows share an id.
    """
    table = SampleTable(data)
    columns = table.columns("sample_id", "question", "answer")
    rows = range(len(columns))
    if max_samples is not None and max_samples < len(columns):
        drawn = sorted(rows, key=lambda row: derive_seed(seed, "evaluate", columns[row][0]))[:max_samples]
        chosen = tuple(sorted(drawn))
    else:
        chosen = tuple(rows)
    ids = {str(columns[row][0]): row for row in chosen}
    if len(ids) < len(chosen):
        raise DataError(f"{data} holds a sample_id twice; every row needs an id of its own: build the data again")
    images = table.image_digests()
    hasher = hashlib.sha256()
    for row in chosen:
        hasher.update(repr((columns[row], images[row])).encode(errors="replace"))
    return Bench(table=table, rows=chosen, ids=ids, digest=hasher.hexdigest())
