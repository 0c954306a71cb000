"""Bench: a dataset as one evaluation asks it, which rows and in which order."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestration.settings.errors import DataError
from orchestration.settings.seeds import derive_seed
from orchestration.workers.answers import EvaluatedSample
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


def draw_rows(table: SampleTable, rows: Sequence[int], *, seed: int, max_rows: int) -> list[int]:
    """Return at most `max_rows` of some rows, in their order, drawn by the seed over all tasks and sources.

    Each (task, source) gets its share, the first row of each before the second of any. A smaller draw is part of a
    larger one, and the rows of one task and source stand in the same order in every draw, so what a run scores of its
    held-out data is what an evaluation of the same seed asks first.
    """
    columns = table.columns("sample_id", "task", "source")
    strata: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        sample_id, task, source = columns[row]
        strata[task, source].append((derive_seed(seed, "evaluate", sample_id), row))
    order = sorted(
        (place / len(members), lot, row)
        for members in strata.values()
        for place, (lot, row) in enumerate(sorted(members))
    )
    return sorted(row for _, _, row in order[:max_rows])


def open_bench(data: Path, *, seed: int, max_samples: int | None) -> Bench:
    """Open a dataset and choose its rows.

    Raises:
        DataError: Two rows share an id.
    """
    table = SampleTable(data)
    columns = table.columns("sample_id", "question", "answer")
    rows = range(len(columns))
    chosen = tuple(rows if max_samples is None else draw_rows(table, rows, seed=seed, max_rows=max_samples))
    ids = {str(columns[row][0]): row for row in chosen}
    if len(ids) < len(chosen):
        raise DataError(f"{data} holds a sample_id twice; every row needs an id of its own: build the data again")
    images = table.image_digests()
    hasher = hashlib.sha256()
    for row in chosen:
        hasher.update(repr((columns[row], images[row])).encode(errors="replace"))
    return Bench(table=table, rows=chosen, ids=ids, digest=hasher.hexdigest())
