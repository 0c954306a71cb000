"""Counts of the rows that pass through the data engine: funnel, rejections, content of the result, rows to show."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from orchestration.data.rows.chunks import Chunk
from orchestration.data.rows.records import Candidate, Rejected, candidate_from_json, rejected_from_json
from orchestration.settings.recipe import Role
from orchestration.settings.seeds import derive_seed
from rewards.boxes import Box, parse_boxes
from rewards.config import RewardConfig

Name = TypeVar("Name")

NUM_EXAMPLES = 3
CARDS_PER_FUNCTION = 4
LAST_STAGE = {"guard": "deduplicate", "held_out": "measure", "train": "select"}
"""Where the rows of a role leave the engine."""

# The ends have bins of their own: what is always wrong or always right is not trained on.
REWARD_EDGES = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
STD_EDGES = (0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
TOKEN_EDGES = (0, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
CAPTION_EDGES = (0, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400)
AREA_EDGES = (0.0, 0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 0.9)
SIDE_EDGES = (0, 56, 112, 224, 336, 448, 672, 896, 1344, 1792, 2688, 3584)


@dataclass(slots=True)
class Histogram:
    """Counts by bin; bin i holds edges[i] <= value < edges[i + 1], the last one everything from its edge on.

    Example:
        >>> histogram = Histogram((0, 10, 20))
        >>> histogram.add(10)
        >>> histogram.counts
        [0, 1, 0]
    """

    edges: tuple[float, ...]
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.edges)

    def add(self, value: float) -> None:
        """Count one value; one below the first edge counts in the first bin."""
        self.counts[max(0, bisect_right(self.edges, value) - 1)] += 1

    def merge(self, other: Self) -> None:
        """Add the counts of another histogram of the same edges."""
        assert self.edges == other.edges, f"histograms of edges {self.edges} and {other.edges}"
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]


@dataclass(slots=True)
class ContentTally:
    """Properties of the rows of one role in the result."""

    num_rows: int = 0
    by: dict[str, Counter[str]] = field(default_factory=dict)
    """Name of a property -> its value -> rows."""
    mix: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(task, source) -> rows."""
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def add(self, row: Candidate, function: str) -> None:
        """Count one row."""
        self.num_rows += 1
        self.mix[row.task, row.source] += 1
        self._count("task", row.task)
        self._count("source", row.source)
        self._count("function", function)
        self._count("license", row.license or "not stated")
        self._count("stratum", row.stratum or "not measured")
        self._count("answer_type", row.answer_type or "not stated")
        self._count("images_per_row", str(len(row.images)))
        for image in row.images:
            self._histogram("longer_side", SIDE_EDGES, max(image.size))
        if row.prompt_tokens is not None:
            self._histogram("prompt_tokens", TOKEN_EDGES, row.prompt_tokens)
        if row.task in ("match_mcq", "match_yesno"):
            self._count("letter" if row.task == "match_mcq" else "yes_no", row.answer)
        elif row.task == "chart":
            self._count("chart_year", "year" if row.answer_type == "year" else "other")
        elif row.task == "open":
            self._histogram("caption_words", CAPTION_EDGES, len(row.answer.split()))
        elif row.task == "iou":
            self._add_boxes(row)

    def merge(self, other: Self) -> None:
        """Add another tally."""
        self.num_rows += other.num_rows
        self.mix.update(other.mix)
        for name, counts in other.by.items():
            self.by.setdefault(name, Counter()).update(counts)
        _merge_histograms(self.histograms, other.histograms)

    def _add_boxes(self, row: Candidate) -> None:
        boxes = [entry.box for entry in parse_boxes(row.answer) or [] if entry.box]
        self._count("boxes_per_row", str(len(boxes)))
        if row.images:
            width, height = row.images[0].size
            for box in boxes:
                self._histogram("box_area_frac", AREA_EDGES, _area(box) / (width * height))

    def _count(self, name: str, value: str) -> None:
        self.by.setdefault(name, Counter())[value] += 1

    def _histogram(self, name: str, edges: tuple[float, ...], value: float) -> None:
        self.histograms.setdefault(name, Histogram(edges)).add(value)


Key = tuple[str, str, str, str]
"""(role, source, stage, reason)."""


@dataclass(slots=True)
class DatasetTally:
    """Everything that a manifest counts; holds no row, and parts can be merged in any order."""

    entered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(role, source, stage) -> rows that came into the stage."""
    rejected: Counter[Key] = field(default_factory=Counter)
    examples: dict[Key, list[tuple[str, str, str]]] = field(default_factory=dict)
    """Up to NUM_EXAMPLES of (source_id, detail, question): the smallest, so that no order of work changes them."""
    content: dict[str, ContentTally] = field(default_factory=dict)
    """By role."""
    difficulty: dict[tuple[str, str, str], Histogram] = field(default_factory=dict)
    """(reward function, before | after selection, mean | std | pass_rate) -> train rows."""

    def enter(self, stage: str, role: Role, source: str, num_rows: int = 1) -> None:
        """Count rows that come into a stage; those that it rejects are counted by `reject` beside it."""
        self.entered[role, source, stage] += num_rows

    def reject(self, row: Rejected) -> None:
        """Count one row that a stage leaves out."""
        key = (row.role, row.source, row.stage, row.reason.value)
        self.rejected[key] += 1
        self._keep_examples(key, [(row.source_id, row.detail, row.question)])

    def measure(self, row: Candidate, function: str) -> None:
        """Count the difficulty of one row that came to selection; rows without one are left out."""
        self._add_difficulty(row, function, "before")

    def select(self, row: Candidate, function: str) -> None:
        """Count one row of the result.

        Args:
            row: As it is written.
            function: Reward function that its task is routed to.
        """
        self.content.setdefault(row.role, ContentTally()).add(row, function)
        self._add_difficulty(row, function, "after")

    def merge(self, other: Self) -> None:
        """Add the counts of another part of the same dataset."""
        self.entered.update(other.entered)
        self.rejected.update(other.rejected)
        for key, examples in other.examples.items():
            self._keep_examples(key, examples)
        for role, content in other.content.items():
            self.content.setdefault(role, ContentTally()).merge(content)
        _merge_histograms(self.difficulty, other.difficulty)

    def _keep_examples(self, key: Key, examples: Sequence[tuple[str, str, str]]) -> None:
        self.examples[key] = sorted([*self.examples.get(key, []), *examples])[:NUM_EXAMPLES]

    def _add_difficulty(self, row: Candidate, function: str, when: str) -> None:
        if row.difficulty is None or row.role != "train":
            return
        for name, edges in (("mean", REWARD_EDGES), ("pass_rate", REWARD_EDGES), ("std", STD_EDGES)):
            histogram = self.difficulty.setdefault((function, when, name), Histogram(edges))
            histogram.add(getattr(row.difficulty, name))


def _area(box: Box) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def _merge_histograms(into: dict[Name, Histogram], other: dict[Name, Histogram]) -> None:
    for name, histogram in other.items():
        into.setdefault(name, Histogram(histogram.edges)).merge(histogram)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask:
    """A chunk to count, in a worker."""

    chunk: Path
    reward: RewardConfig
    seed: int
    stages: tuple[str, ...]
    """Stages of this build, in order."""
    is_result: bool
    """Whether its rows leave the engine; else only its rejected rows count."""
    is_tried: bool
    """Whether its rows have the difficulty that selection used."""


@dataclass(slots=True)
class Count:
    """Counts of some chunks, and the rows that the page shows: a few drawn by hash of each reward function."""

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
    if row.role == "guard":  # it is never graded, so its task may be one that no reward knows
        return
    function = task.reward.route(row.task, row.source).function
    if task.is_tried:
        count.tally.measure(row, function)
    if task.is_result:
        count.tally.select(row, function)
        draw = derive_seed(task.seed, "page", row.role, row.sample_id)
        count.cards[function] = sorted([*count.cards.get(function, []), (draw, row)], key=lambda card: card[0])
        del count.cards[function][CARDS_PER_FUNCTION:]


def _enter(tally: DatasetTally, role: Role, source: str, stages: Sequence[str], last: str) -> None:
    """Count a row into every stage up to the one where it stayed or left."""
    for stage in stages:
        tally.enter(stage, role, source)
        if stage == last:
            return
