"""Turns: who has the GPUs, where engines and learner ranks share them.

Disaggregated, both sides have their own and take no turns. Colocated, a step goes: engines generate all of
its groups - engines sleep - the learner's state comes onto the GPUs - training step - the learner gives back what its
allocator kept of the step - engines allocate memory for their weights - new weights are sent - the learner's
state moves to host memory - engines allocate their caches and continue.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from learner.checkpoint import StagedShare
from learner.store import FileEntry, FileStore
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.files import append_json_line
from orchestration.workers.engine_pool import Engine, EnginePool
from orchestration.workers.learner_group import LearnerGroup


class Turns:
    """Engines and learner on GPUs of their own: engines generate beside training and stop for the transfer alone."""

    is_shared = False
    """Whether engines and learner share their GPUs."""

    def __init__(self, pool: EnginePool, learner: LearnerGroup) -> None:
        self._pool = pool
        self._learner = learner

    @property
    def is_learners(self) -> bool:
        """Whether the learner has the GPUs until the next publication."""
        return False

    async def to_learner(self) -> None:
        """Move the learner to the GPUs until the next publication has ended; a second call does nothing."""

    async def make_room(self) -> None:
        """Free the GPUs for a learner that is about to be built."""

    async def settle_learner(self) -> None:
        """Allow engines to be built again after the learner was built."""

    async def some_ready(self) -> list[Engine]:
        """Wait for at least one engine that can receive weights."""
        return await self._pool.some_ready()

    async def pause_for_weights(self, engines: Sequence[Engine]) -> None:
        """Pause engines for a weight update."""
        await self._pool.on_each(engines, "pause")

    async def resume_with_weights(self, engines: Sequence[Engine]) -> None:
        """Resume generation with the new weights."""
        await self._pool.on_each(engines, "resume")

    def end(self) -> None:
        """End the learner's turn, after a publication."""

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[None]:
        """Block steps from taking a turn, for a publication outside of a step."""
        yield

    async def stage(self, step: int) -> StagedShare:
        """Write the state of every rank to its local disk, in the learner's turn.

        In a run's usual course it has the turn already: a checkpoint that is due is staged before the publication. Left
        are those that are tried again, or made before leaving, when no engine has anything to do.
        """
        await self.to_learner()
        return await self._learner.stage(step)

    async def upload(self, store: FileStore, step: int) -> Sequence[FileEntry]:
        """Copy what was staged into the store; that needs no turn."""
        return await self._learner.upload(store, step)


class SharedGpus(Turns):
    """Colocated: one side works; the other side's state is in host memory, or discarded.

    Consumes: requests of engines and learner for the GPUs. Produces: turns, one line each in the run's `turns.jsonl`.
    Waits for: engines that are being built, the other turn. An engine that is lost is built again in the engines' next
    turn, because building takes the memory that the learner has.
    """

    is_shared = True

    def __init__(self, pool: EnginePool, learner: LearnerGroup, *, moves_memory: bool, record: Path) -> None:
        """Start with the engines' turn.

        Without `moves_memory` (no GPUs) the sides only take turns at the cores. `record` gets one line a turn.
        """
        super().__init__(pool, learner)
        self._moves_memory = moves_memory
        self._record = record
        self._turn = asyncio.Lock()
        """Held by the step, or the repair, for which the learner has its turn."""
        self._is_steps = False
        """Whether a step holds it."""
        self._is_cleared = False
        """Whether engines sleep and none is being built."""
        self._is_on_gpu = True
        """Whether the learner's state is on the GPUs; after a build it is."""

    @property
    def is_learners(self) -> bool:
        return self._is_cleared

    async def to_learner(self) -> None:
        await self.make_room()
        await self._onload_learner()

    async def make_room(self) -> None:
        if not self._is_steps:
            await self._turn.acquire()
            self._is_steps = True
        await self._clear()

    async def settle_learner(self) -> None:
        await self._learner.locate()
        self._is_on_gpu = True
        if not self._is_cleared:
            await self._offload_learner()

    async def some_ready(self) -> list[Engine]:
        """Wait for an engine; with none left the engines get their turn back until one is built."""
        if not self._pool.ready_engines():
            await self._offload_learner()
            self._open()
            await self._pool.some_ready()
        await self._clear()
        await self._onload_learner()
        return self._pool.ready_engines()

    async def pause_for_weights(self, engines: Sequence[Engine]) -> None:
        if self._moves_memory:
            # Free for engines are only bytes that the ranks' allocators do not keep for later.
            await self._learner.on_each("release_cache")
        await self._pool.on_each(engines, "wake_weights")

    async def resume_with_weights(self, engines: Sequence[Engine]) -> None:
        """Resume generation; an engine that dies here has nothing to do with the others' weights."""
        await self._offload_learner()
        activity = await self._pool.on_those_left("wake_cache")
        self._note("engines", activity)
        self._open()
        await self._pool.on_those_left("resume")

    def end(self) -> None:
        if self._is_steps:
            self._is_steps = False
            self._turn.release()

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[None]:
        """Block steps from taking a turn; waits for the step that has it."""
        async with self._turn:
            yield

    async def _clear(self) -> None:
        """Put all engines to sleep and allow no builds."""
        if self._is_cleared:
            return
        await self._pool.gate.close()
        activity = await self._pool.on_those_left("sleep")
        self._is_cleared = True
        self._note("learner", activity)

    def _open(self) -> None:
        self._is_cleared = False
        self._pool.gate.open()

    async def _onload_learner(self) -> None:
        if not self._is_on_gpu:
            if self._moves_memory:
                await self._learner.on_each("onload")
            self._is_on_gpu = True

    async def _offload_learner(self) -> None:
        if self._is_on_gpu:
            if self._moves_memory:
                await self._learner.on_each("offload")
            self._is_on_gpu = False

    def _note(self, turn: str, activity: Sequence[Any]) -> None:
        """Write whose turn begins, and what each engine was asked for before it."""
        engines = [{"num_requests": one.num_requests, "num_unfinished": one.num_unfinished} for one in activity]
        append_json_line(self._record, {"turn": turn, "engines": engines})


def start_turns(config: ExperimentConfig, pool: EnginePool, learner: LearnerGroup, *, record: Path) -> Turns:
    """Return the turns of the run's layout."""
    if config.cluster.layout == "disaggregated":
        return Turns(pool, learner)
    return SharedGpus(pool, learner, moves_memory=config.learner.device == "cuda", record=record)
