"""Which engine gets which group next: estimates, queue, capacity, and the gate for engines that are built again."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
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
    """Mean completion length by source, from the steps so far; deterministic, because steps are reported in order."""

    def __init__(self, *, first_guess: float) -> None:
        """Expect `first_guess` tokens of a source that no step has held."""
        self._first_guess = first_guess
        self._means: dict[str, float] = {}

    def expected_tokens(self, sample: Sample, group_size: int) -> float:
        """Return the tokens that an engine holds for a group: its prompt once, and its completions."""
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
        """Return what a resumed run needs to send groups to the same engines."""
        return dict(self._means)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
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
class BatchSlot:
    """A group's engine and its place in the batch that this engine takes at once."""

    engine: int
    admission: Admission


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A group and the engine that has it."""

    work: Work
    engine: int
    load: _Load
    """Load of the engine at that time; an engine that left and joined again has a new one."""


class Dispatcher:
    """Matches waiting groups with engines.

    The engine with the fewest expected tokens gets the next group; one that holds `capacity` groups gets none.
    """

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[tuple[int, float, int, Work]] = []
        self._loads: dict[int, _Load] = {}
        # Loads as they were when pushed; an outdated entry is skipped.
        self._by_load: list[tuple[float, int]] = []
        self._arrivals = count()

    @property
    def engines(self) -> list[int]:
        """Engines that take groups."""
        return sorted(self._loads)

    def join(self, engine: int) -> None:
        self._loads[engine] = _Load()
        self._offer(engine, self._loads[engine])

    def leave(self, engine: int) -> None:
        """Remove an engine, with the groups that it holds."""
        self._loads.pop(engine, None)

    def submit(self, work: Work) -> None:
        heapq.heappush(self._waiting, (work.urgency, -work.tokens, next(self._arrivals), work))

    def withdraw(self, work: Work) -> None:
        """Take back a group that waits; it will go to no engine."""
        work.is_withdrawn = True

    def assign_batch(self, batch: str, tokens: Mapping[int, float]) -> dict[int, BatchSlot]:
        """Share a batch between the engines, longest groups first; depends on its arguments and on the engines alone.

        `tokens` has the expected length of each group, by position.
        """
        loads = [(0.0, engine) for engine in self.engines]
        chosen: dict[int, list[int]] = {engine: [] for engine in self.engines}
        for position in sorted(tokens, key=lambda p: (-tokens[p], p)) if loads else ():
            load, engine = heapq.heappop(loads)
            chosen[engine].append(position)
            heapq.heappush(loads, (load + tokens[position], engine))
        return {
            position: BatchSlot(engine=engine, admission=Admission(batch=batch, index=index, size=len(positions)))
            for engine, positions in chosen.items()
            for index, position in enumerate(sorted(positions))
        }

    def assign(self, work: Work, engine: int) -> Assignment | None:
        """Assign a group to an engine beyond its capacity; returns None if the engine was removed."""
        load = self._loads.get(engine)
        return self._assign(work, engine, load) if load is not None else None

    def match(self) -> Assignment | None:
        """Return the next group and the engine that takes it; None while none waits or none has room."""
        while self._waiting and self._waiting[0][-1].is_withdrawn:
            heapq.heappop(self._waiting)
        engine = self._least_busy() if self._waiting else None
        if engine is None:
            return None
        return self._assign(heapq.heappop(self._waiting)[-1], engine, self._loads[engine])

    def finish(self, done: Assignment) -> None:
        """Free the place of a group, however it ended."""
        load = done.load
        load.num_groups -= 1
        # Sums of floats do not come back to 0 exactly; an idle engine holds nothing.
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


class Places(Dispatcher):
    """Room on the engines that take groups.

    Consumes: groups that want an engine. Produces: assignments. Waits for: an engine with room.
    Woken by: a call that ends, an engine that joins.
    """

    def __init__(self, *, capacity: int) -> None:
        """Hold at most `capacity` groups per engine, beside those with a slot."""
        super().__init__(capacity=capacity)
        self._callers: set[Work] = set()

    def join_all(self, engines: Iterable[int]) -> None:
        """Add engines that take groups; those that wait are shared between all of them."""
        for engine in engines:
            self.join(engine)
        self._assign_waiting()

    def take_slot(self, slot: BatchSlot, tokens: float) -> Assignment | None:
        """Take a place that was kept; None if its engine is lost."""
        return self.assign(Work(urgency=0, tokens=tokens, payload=None), slot.engine)

    async def take(self, tokens: float, *, urgency: int) -> Assignment:
        """Wait for an engine with room.

        Groups of the lowest `urgency` go first.

        Raises:
            Exception: the one that `fail` was called with meanwhile.
        """
        future: asyncio.Future[Assignment] = asyncio.get_running_loop().create_future()
        work = Work(urgency=urgency, tokens=tokens, payload=future)
        self.submit(work)
        self._assign_waiting()
        self._callers.add(work)
        try:
            return await future
        except asyncio.CancelledError:
            self.withdraw(work)
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise
        finally:
            self._callers.discard(work)

    def give_back(self, place: Assignment) -> None:
        """Free a place, however its group ended."""
        self.finish(place)
        self._assign_waiting()

    async def hold(self, place: Assignment, call: "asyncio.Future[Any]") -> None:
        """Wait for a call; the engine's load counts until it ends, even if its caller is cancelled."""

        def ended(done: "asyncio.Future[Any]") -> None:
            self.give_back(place)
            if not done.cancelled():
                done.exception()

        call.add_done_callback(ended)
        await asyncio.shield(call)

    def fail(self, error: Exception) -> None:
        """Raise an error in every call that waits: no engine will come."""
        for work in self._callers:
            if not work.payload.done():
                work.payload.set_exception(error)

    def _assign_waiting(self) -> None:
        while (assignment := self.match()) is not None:
            future: asyncio.Future[Assignment] = assignment.work.payload
            if future.done():
                self.finish(assignment)
            else:
                future.set_result(assignment)


class BuildGate:
    """Allows building engines in their turn on the GPUs, and keeps the learner off the GPUs until a build has ended.

    It stays open where engines have GPUs of their own.
    """

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        self._left = asyncio.Event()
        self._left.set()
        self._num_inside = 0

    @property
    def is_closed(self) -> bool:
        """Whether builds that have not begun must wait, and those that have should end."""
        return not self._opened.is_set()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Wait for the gate, and keep it from closing while one engine is built in the block."""
        await self._opened.wait()
        self._num_inside += 1
        self._left.clear()
        try:
            yield
        finally:
            self._num_inside -= 1
            if self._num_inside == 0:
                self._left.set()

    async def close(self) -> None:
        """Allow no further build; returns when none is running."""
        self._opened.clear()
        await self._left.wait()

    def open(self) -> None:
        self._opened.set()
