"""EnginePool: all engines behind one call; lost ones are replaced, and their groups go to others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from orchestration.cluster.layout import colocated_devices, ranks_under
from orchestration.cluster.ray_errors import translating
from orchestration.cluster.reservations import Reservations
from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.errors import EngineLostError, PayloadLostError
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.dispatch import FULLNESS, Assignment, BatchSlot, BuildGate, LengthEstimates, Places
from orchestration.workers.engine_actor import EngineActor
from orchestration.workers.supervised import Start, Stop, SupervisedActor
from rollout.config import AdapterConfig, RolloutConfig
from rollout.records import Sample, SamplingSpec

if TYPE_CHECKING:
    from orchestration.workers.learner_group import LearnerGroup

logger = logging.getLogger(__name__)

MAX_PROBED = 8
"""Engines compared with the learner after one publication."""

Admit = Callable[["Engine"], Awaitable[None]]


class Engine(SupervisedActor):
    """One engine of the pool."""

    def __init__(
        self, index: int, start: Start, stop: Stop, faults: FaultsConfig, *, leave: Callable[[int], None],
        is_elastic: bool = False,
    ) -> None:  # fmt: skip
        """Start the first actor.

        `leave` is called with the index as soon as the engine is lost. An elastic engine is one beyond
        `rollout.engines`: it joins when there is room and may go with its machine.
        """
        self.is_elastic = is_elastic
        self._leave = leave
        super().__init__(Role.ENGINE, index, start, stop, faults)

    def begin(self) -> None:
        """Start an actor, which takes no groups yet."""
        self.was_ready = False
        self.is_live = False
        """Whether it takes groups."""
        super().begin()

    async def ready(self) -> int:
        pid = await super().ready()
        self.was_ready = True
        return pid

    def lose(self, handle: Any, cause: str) -> bool:
        """See `SupervisedActor`; no group goes to the engine from then on."""
        is_newly_lost = super().lose(handle, cause)
        if is_newly_lost:
            self.is_live = False
            self._leave(self.index)
        return is_newly_lost


class EnginePool:
    """All engines behind one call.

    Consumes: samples. Produces: references to groups. Waits for: an engine with room.
    Woken by: a group that ends, an engine that goes live. A lost engine's groups go to others, and a new one is built
    in its place, which takes groups once it has the current weights.
    """

    def __init__(self, start: Start, *, stop: Stop, config: RolloutConfig, faults: FaultsConfig, log: FaultLog) -> None:
        """Store how engines are made; `ready` starts them.

        `start` makes the actor of an index, again after a loss; that of an elastic engine may wait for room.
        """
        self._start = start
        self._stop = stop
        self._config = config
        self._faults = faults
        self._log = log
        self._admit: Admit | None = None
        self._engines: list[Engine] = []
        self._supervision: list[asyncio.Task[None]] = []
        self._admissions: set[asyncio.Task[None]] = set()
        self._became_ready = asyncio.Event()
        self._failure: Exception | None = None
        # By the smallest groups: larger ones fill the engine more, and what it cannot decode yet waits in it.
        held = FULLNESS * config.engine.max_num_seqs / config.sampling.smallest_group
        self._places = Places(capacity=max(1, ceil(held)))
        self._num_probes = 0
        self.gate = BuildGate()
        """Lost engines are built again only while it is open."""
        self.lengths = LengthEstimates(first_guess=config.sampling.max_completion_tokens / 2)
        self.num_repeated = 0
        """Groups begun again because their engine was lost."""
        self.num_by_elastic = 0
        """Groups sampled by engines beyond `rollout.engines`."""

    async def ready(self, admit: Admit | None = None) -> list[int]:
        """Start the engines, wait until all answer, and supervise them from then on; returns their process ids.

        Further engines, up to `rollout.max_engines`, join whenever there is room for them.

        Args:
            admit: Gives an engine the current weights and then calls `go_live`, also one that is built later. Without
                it engines keep the weights that they load and go live at once.
        """
        self._admit = admit
        self._engines = [self._engine(index) for index in range(self._config.engines)]
        pids = list(await asyncio.gather(*(engine.ready() for engine in self._engines)))
        self._became_ready.set()
        if admit is None:
            self.go_live(self._engines)
        elastic = range(self._config.engines, self._config.most_engines)
        self._engines += [self._engine(index, is_elastic=True) for index in elastic]
        self._supervision = [asyncio.create_task(self._supervise(engine)) for engine in self._engines]
        return pids

    def _engine(self, index: int, *, is_elastic: bool = False) -> Engine:
        return Engine(index, self._start, self._stop, self._faults, leave=self._places.leave, is_elastic=is_elastic)

    async def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, *, urgency: int = 0, slot: BatchSlot | None = None
    ) -> ray.ObjectRef:
        """Sample one group; the group itself stays where it was made.

        Among waiting groups the lowest `urgency` goes first. A slot of a batch is lost with its engine.

        Raises:
            RolloutError: the sample cannot be a prompt.
            PayloadLostError: the sample was lost on its way to the engine, or the group found no room behind it.
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        while True:
            self._check()
            tokens = self.lengths.expected_tokens(sample, spec.group_size)
            place = self._places.take_slot(slot, tokens) if slot is not None else None
            admission = slot.admission if slot is not None and place is not None else None
            slot = None
            if place is None:
                place = await self._places.take(tokens, urgency=urgency)
            engine = self._engines[place.engine]
            if not engine.is_live:  # lost since it was chosen
                self._places.give_back(place)
                continue
            handle = engine.handle
            try:
                with translating(Role.ENGINE, engine.index):
                    group, seconds = self._ask(place, handle, group_id, sample, spec, admission)
                    await self._places.hold(place, asyncio.ensure_future(seconds))
                self.num_by_elastic += engine.is_elastic
                return group
            except EngineLostError as error:
                engine.lose(handle, str(error))
                self.num_repeated += 1
            except PayloadLostError:
                if admission is not None:  # it may have been lost before it took its slot; the others wait for it
                    handle.give_up_slot.remote(admission)
                raise

    def _ask(self, place: Assignment, handle: Any, *arguments: Any) -> tuple[ray.ObjectRef, ray.ObjectRef]:
        """Send a group to an engine; Ray raises here already where its images find no room in the object store."""
        try:
            group, seconds = handle.generate_group.remote(*arguments)
        except RayError:
            self._places.give_back(place)
            raise
        return group, seconds

    def assign_batch(self, batch: str, samples: Mapping[int, Sample]) -> dict[int, BatchSlot]:
        """Share a batch of groups, by position, between the live engines."""
        expected, spec = self.lengths.expected_tokens, self._config.sampling.spec
        tokens = {position: expected(s, spec(s.task).group_size) for position, s in samples.items()}
        return self._places.assign_batch(batch, tokens)

    def ready_engines(self) -> list[Engine]:
        """Return the engines that answer, live or still without the current weights."""
        return [engine for engine in self._engines if engine.is_ready]

    @property
    def num_live(self) -> int:
        return len(self._places.engines)

    async def some_ready(self) -> list[Engine]:
        """Wait for at least one engine that answers.

        Raises:
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        while not (found := self.ready_engines()):
            self._check()
            self._became_ready.clear()
            await self._became_ready.wait()
        self._check()
        return found

    async def find_lost(self, handles: Mapping[Engine, Any]) -> int:
        """Ask engines for a heartbeat and give up those that do not answer.

        Args:
            handles: Engines, and the actors that they had when they were last called.

        Returns:
            How many of these actors are lost, replaced ones included.
        """
        asked = [engine for engine, handle in handles.items() if engine.handle is handle and engine.is_ready]
        causes = await asyncio.gather(*(engine.heartbeat() for engine in asked))
        for engine, cause in zip(asked, causes, strict=True):
            if cause is not None:
                engine.lose(handles[engine], cause)
        return len(handles) - len(asked) + sum(cause is not None for cause in causes)

    async def on_those_left(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every engine that answers; one that dies under the call is given up and has no answer."""
        return await self._answers_of_those_left(self.ready_engines(), method, *arguments)

    def go_live(self, engines: Sequence[Engine]) -> None:
        """Send groups to engines, which have the current weights."""
        new = [engine for engine in engines if engine.is_ready and not engine.is_live]
        for engine in new:
            engine.is_live = True
        self._places.join_all(engine.index for engine in new)

    async def on_each(self, engines: Sequence[Engine], method: str, *arguments: Any) -> list[Any]:
        """Call a method of several engines and return their answers in order.

        Raises:
            EngineLostError: one of them died under the call; it is given up.
        """
        calls = [self._call(engine, method, *arguments) for engine in engines]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _call(self, engine: Engine, method: str, *arguments: Any) -> Any:
        if not engine.is_ready:
            # Its new actor lacks earlier calls of this update; asked for weights, it would return its first ones.
            raise EngineLostError(f"engine {engine.index} was lost meanwhile")
        handle = engine.handle
        try:
            return await engine.call(method, *arguments)
        except EngineLostError as error:
            engine.lose(handle, str(error))
            raise

    async def completion_logprobs(self, payload: ray.ObjectRef, sample: Sample) -> list[NDArray[np.float32]]:
        """Return the logprobs [T] of the first completion of a scored group, as a few live engines compute them now.

        Each call asks other engines. One that is lost meanwhile has no answer.
        """
        everyone = [engine for engine in self._engines if engine.is_live]
        first = self._num_probes % max(1, len(everyone))
        live = (everyone[first:] + everyone[:first])[:MAX_PROBED]
        self._num_probes += MAX_PROBED
        return await self._answers_of_those_left(live, "score_completion", payload, sample, 0)

    async def _answers_of_those_left(self, engines: Sequence[Engine], method: str, *arguments: Any) -> list[Any]:
        calls = [self._call(engine, method, *arguments) for engine in engines]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, EngineLostError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def close(self) -> None:
        """End the engines' processes, then the actors."""
        tasks = [*self._supervision, *self._admissions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        handles = [engine.handle for engine in self.ready_engines()]
        try:
            async with asyncio.timeout(self._faults.heartbeat_timeout_s):
                await asyncio.gather(*(handle.close.remote() for handle in handles), return_exceptions=True)
        except TimeoutError:
            logger.warning("an engine did not close within %g s and is killed", self._faults.heartbeat_timeout_s)
        for engine in self._engines:
            engine.end()

    def fail_waiting(self, error: Exception) -> None:
        """Raise an error in every group that waits for an engine; later ones wait again."""
        self._places.fail(error)

    def _fail(self, error: Exception) -> None:
        """Raise an error in every call that waits for an engine, now and later: supervision has ended."""
        self._failure = error
        self._became_ready.set()
        self._places.fail(error)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _supervise(self, engine: Engine) -> None:
        """Watch one engine and build it again each time it is lost.

        Consumes: heartbeats. Produces: ready engines. Waits for: the next heartbeat, or news of a loss.
        """
        try:
            if engine.is_elastic and await self._is_up(engine):
                self._introduce(engine)
            while True:
                cause = await engine.watch()
                logger.warning("engine %d is built again: %s", engine.index, cause)
                # An elastic engine may go at any time; one that does not even start will not do so the next time.
                self._log.record(
                    Role.ELASTIC if engine.is_elastic and engine.was_ready else Role.ENGINE, engine.index, cause
                )
                engine.end()
                async with self.gate.passed():
                    engine.begin()
                    is_up = await self._is_up(engine)
                if is_up:
                    self._introduce(engine)
        except Exception as error:
            self._fail(error)

    async def _is_up(self, engine: Engine) -> bool:
        """Wait until a new engine answers; one that does not is lost.

        There is no time limit while other engines work, because no node may have room for it yet; unless a turn waits
        at the gate. No run waits for an elastic engine.
        """
        ready = asyncio.ensure_future(engine.ready())
        try:
            while not ready.done():
                await asyncio.wait([ready], timeout=self._faults.start_timeout_s)
                is_needed = self.gate.is_closed or not (engine.is_elastic or self.ready_engines())
                if not ready.done() and is_needed:
                    raise TimeoutError(f"cluster.faults.start_timeout_s={self._faults.start_timeout_s:g} is over")
            ready.result()
        except Exception as error:
            engine.lose(engine.handle, f"it did not start: {error}")
            engine.end()
            return False
        finally:
            ready.cancel()  # otherwise asyncio logs the death of an engine whose start is given up
        self._became_ready.set()
        return True

    def _introduce(self, engine: Engine) -> None:
        """Send the current weights to a new engine, in a task beside its supervision.

        It may wait for a publication, which itself may wait for the successor of an engine that is lost.
        """
        task = asyncio.create_task(self._give_weights(engine))
        self._admissions.add(task)
        task.add_done_callback(self._admissions.discard)

    async def _give_weights(self, engine: Engine) -> None:
        try:
            if self._admit is None:
                self.go_live([engine])
            else:
                await self._admit(engine)
        except Exception as error:
            self._fail(error)


def start_engines(
    config: RolloutConfig,
    model_path: Path,
    reservations: Reservations,
    log_dir: Path,
    *,
    faults: FaultsConfig,
    log: FaultLog,
    learner: "LearnerGroup | None" = None,
    loads_weights: bool = True,
    adapter: AdapterConfig | None = None,
) -> EnginePool:
    """Make a pool of the engines that have reservations, and of those that may come later.

    Where the layout is colocated, an engine uses the GPUs of ranks of `learner`, which are built before it.
    Without `loads_weights` engines begin with weights of which none is the model's. With `adapter` they keep those, and
    the learner sends an adapter alone.
    """

    def start(index: int) -> Any:
        placement = reservations.placements["engine"][index]
        devices = None
        if learner is not None and placement.borrows_gpus:
            devices = colocated_devices([learner.devices[rank] for rank in ranks_under(reservations.layout, index)])
        arguments = index, config, model_path, placement, log_dir, devices, loads_weights, adapter
        # A pause or a weight update must reach an engine that has every group of several steps in flight.
        return reservations.start(EngineActor, "engine", index, *arguments, max_concurrency=10_000)

    return EnginePool(start, stop=ray.kill, config=config, faults=faults, log=log)
