"""What one chunk adds to the manifest, and the rows that the page shows; chunks are counted in workers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.data.report.tally import DatasetTally
from orchestration.data.rows.chunks import Chunk
from orchestration.data.rows.records import Candidate
from orchestration.data.rows.tables import candidate_from_json, rejected_from_json
from orchestration.settings.recipe import Role
from orchestration.settings.seeds import derive_seed
from rewards.config import RewardConfig

CARDS_PER_FUNCTION = 4
LAST_STAGE = {"guard": "deduplicate", "held_out": "measure", "train": "select"}
"""Where the rows of a role leave the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask:
    """What one chunk adds to the manifest."""

    chunk: Path
    reward: RewardConfig
    seed: int
    stages: tuple[str, ...]
    """Of this build, in order."""
    is_result: bool
    """Whether its rows leave the engine; else only its rejected rows count."""
    is_tried: bool
    """Whether its rows carry the difficulty that selection saw."""


@dataclass(slots=True)
class Count:
    """Counts of some chunks, and the rows that the page shows: the lowest lots of each reward function."""

    tally: DatasetTally = field(default_factory=DatasetTally)
    cards: dict[str, list[tuple[int, Candidate]]] = field(default_factory=dict)

    def merge(self, other: "Count") -> None:
        """Add another count."""
        self.tally.merge(other.tally)
        for function, cards in other.cards.items():
            merged = sorted([*self.cards.get(function, []), *cards], key=lambda card: card[0])
            self.cards[function] = merged[:CARDS_PER_FUNCTION]


def count_chunk(task: CountTask) -> Count:
    """Count one chunk."""
    chunk = Chunk.open(task.chunk)
    assert chunk is not None, task.chunk
    count = Count()
    for values in chunk.rejected():
        row = rejected_from_json(values)
        count.tally.reject(row)
        _enter(count.tally, row.role, row.source, task.stages, row.stage)
    if task.is_result or task.is_tried:
        for values in chunk.rows():
            _count_row(count, candidate_from_json(values), task)
    return count


def _count_row(count: Count, row: Candidate, task: CountTask) -> None:
    if task.is_result:
        _enter(count.tally, row.role, row.source, task.stages, LAST_STAGE[row.role])
    if row.role == "guard":  # nothing grades it, so its task may be one that no reward reads
        return
    function = task.reward.route(row.task, row.source).function
    if task.is_tried:
        count.tally.measure(row, function)
    if task.is_result:
        count.tally.select(row, function)
        lot = derive_seed(task.seed, "page", row.role, row.sample_id)
        count.cards[function] = sorted([*count.cards.get(function, []), (lot, row)], key=lambda card: card[0])
        del count.cards[function][CARDS_PER_FUNCTION:]


def _enter(tally: DatasetTally, role: Role, source: str, stages: Sequence[str], last: str) -> None:
    """Count a row into every stage up to the one where it stayed or left."""
    for stage in stages:
        tally.enter(stage, role, source)
        if stage == last:
            return
