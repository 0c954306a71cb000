"""Which engine gets which group next: by urgency, expected length and load. Pure, no tasks.

A group goes whole to one engine, so that its completions share the prompt's cache blocks and vision features. Engines
hold a little more than they can decode at once, so that a finished completion's load is taken without asking the
driver; what is beyond that waits here, where it can still go to whichever engine is free first.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from orchestration.workers.tickets import GroupSummary
from rollout.admission import Admission
from rollout.records import Sample

FULLNESS = 2
"""Completions that an engine may hold, in units of those that it decodes at once."""

MEMORY = 0.9
"""Weight that an estimate of length keeps with every further step."""


class LengthEstimates:
    """Mean completion length by source, from the steps so far; deterministic, because steps are told in order."""

    def __init__(self, *, first_guess: float) -> None:
        """Expect `first_guess` tokens of a source that no step has held."""
        self._first_guess = first_guess
        self._means: dict[str, float] = {}

    def expected_tokens(self, sample: Sample, group_size: int) -> float:
        """Give the tokens that an engine will have to hold for a group: its prompt once, its completions."""
        mean = self._means.get(sample.source, self._first_guess)
        return float(sample.prompt_tokens or 0) + group_size * mean

    def observe(self, summaries: Iterable[GroupSummary]) -> None:
        """Learn from the groups of one step."""
        totals: dict[str, tuple[int, int]] = {}
        for summary in summaries:
            tokens, completions = totals.get(summary.source, (0, 0))
            totals[summary.source] = tokens + summary.num_completion_tokens, completions + len(summary.reasons)
        for source, (tokens, completions) in totals.items():
            if completions:
                mean = tokens / completions
                known = self._means.get(source, mean)
                self._means[source] = MEMORY * known + (1.0 - MEMORY) * mean

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs to send groups to the same engines."""
        return dict(self._means)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from `state_dict`."""
        self._means = dict(state)


@dataclass(slots=True, eq=False)
class Work:
    """One group that wants an engine."""

    urgency: int
    """The lowest goes first; among equals the longest."""
    tokens: float
    """Expected."""
    payload: Any
    """The caller's own."""
    is_withdrawn: bool = False


@dataclass(slots=True, eq=False)
class _Load:
    tokens: float = 0.0
    num_groups: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A group's engine and its place in the batch that this engine takes at once."""

    engine: int
    admission: Admission


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A group and the engine that has it."""

    work: Work
    engine: int
    load: _Load
    """Of the engine as it was then; one that left and joined again has a new one."""


class Dispatcher:
    """Matches waiting groups with engines.

    The engine with the fewest expected tokens gets the next group; one that holds `capacity` groups gets none.
    """

    def __init__(self, *, capacity: int) -> None:
        """Let no engine hold more than `capacity` groups."""
        self._capacity = capacity
        self._waiting: list[tuple[int, float, int, Work]] = []
        self._loads: dict[int, _Load] = {}
        # Loads as they were when pushed; an entry that is no longer true is passed over.
        self._by_load: list[tuple[float, int]] = []
        self._arrivals = count()

    @property
    def engines(self) -> list[int]:
        """Engines that take groups."""
        return sorted(self._loads)

    def join(self, engine: int) -> None:
        """Let an engine take groups."""
        self._loads[engine] = _Load()
        self._offer(engine, self._loads[engine])

    def leave(self, engine: int) -> None:
        """Give an engine no more groups and forget those that it has."""
        self._loads.pop(engine, None)

    def submit(self, work: Work) -> None:
        """Put a group among the waiting ones."""
        heapq.heappush(self._waiting, (work.urgency, -work.tokens, next(self._arrivals), work))

    def withdraw(self, work: Work) -> None:
        """Take back a group that waits; it will go to no engine."""
        work.is_withdrawn = True

    def seats(self, batch: str, tokens: Mapping[int, float]) -> dict[int, Seat]:
        """Share a whole batch between the engines, longest groups first; depends on nothing but its arguments.

        Args:
            batch: Names it.
            tokens: Expected length of each group, by position.
        """
        loads = [(0.0, engine) for engine in self.engines]
        chosen: dict[int, list[int]] = {engine: [] for engine in self.engines}
        for position in sorted(tokens, key=lambda p: (-tokens[p], p)) if loads else ():
            load, engine = heapq.heappop(loads)
            chosen[engine].append(position)
            heapq.heappush(loads, (load + tokens[position], engine))
        return {
            position: Seat(engine=engine, admission=Admission(batch=batch, index=index, size=len(positions)))
            for engine, positions in chosen.items()
            for index, position in enumerate(sorted(positions))
        }

    def assign(self, work: Work, engine: int) -> Assignment | None:
        """Give a group to an engine whatever it holds; None if it takes no groups any more."""
        load = self._loads.get(engine)
        return self._assign(work, engine, load) if load is not None else None

    def match(self) -> Assignment | None:
        """Give the next group and the engine that takes it; None while none waits or none has room."""
        while self._waiting and self._waiting[0][-1].is_withdrawn:
            heapq.heappop(self._waiting)
        engine = self._least_busy() if self._waiting else None
        if engine is None:
            return None
        return self._assign(heapq.heappop(self._waiting)[-1], engine, self._loads[engine])

    def finish(self, done: Assignment) -> None:
        """Say that an engine is done with a group, whatever came of it."""
        load = done.load
        load.num_groups -= 1
        # Sums of floats leave a rest; an idle engine holds nothing.
        load.tokens = load.tokens - done.work.tokens if load.num_groups else 0.0
        if self._loads.get(done.engine) is load:
            self._offer(done.engine, load)

    def _assign(self, work: Work, engine: int, load: _Load) -> Assignment:
        load.tokens += work.tokens
        load.num_groups += 1
        self._offer(engine, load)
        return Assignment(work=work, engine=engine, load=load)

    def _offer(self, engine: int, load: _Load) -> None:
        if load.num_groups < self._capacity:
            heapq.heappush(self._by_load, (load.tokens, engine))

    def _least_busy(self) -> int | None:
        while self._by_load:
            tokens, engine = self._by_load[0]
            load = self._loads.get(engine)
            if load is not None and load.tokens == tokens and load.num_groups < self._capacity:
                return engine
            heapq.heappop(self._by_load)
        return None
