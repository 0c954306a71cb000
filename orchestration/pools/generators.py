"""GeneratorPool: all engines behind one call, whatever happens to the engines in between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from orchestration.actors import GeneratorActor
from orchestration.cluster import Placement
from orchestration.config import FaultsConfig
from orchestration.dispatch import FULLNESS, Assignment, Dispatcher, LengthEstimates, Work
from orchestration.errors import EngineLostError, InfrastructureError
from orchestration.faults import FaultLog, Role
from orchestration.pools.lost import death_of
from rollout.config import RolloutConfig
from rollout.records import Sample, SamplingSpec

logger = logging.getLogger(__name__)

MAX_PROBED = 8
"""Engines compared with the learner after one publication."""

Start = Callable[[int], Any]
Stop = Callable[[Any], None]
Admit = Callable[["Engine"], Awaitable[None]]


class Engine:
    """One engine's place in the pool; its actor changes when one is lost."""

    def __init__(self, index: int, handle: Any) -> None:
        self.index = index
        self.renew(handle)

    def renew(self, handle: Any) -> None:
        """Begin with a new actor, which neither stands nor takes groups yet."""
        self.handle = handle
        self.is_standing = False
        self.is_live = False
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def lose(self, handle: Any, cause: str) -> None:
        """Give up an actor; later news of it change nothing."""
        if self.handle is handle and not self.lost.done():
            self.is_standing = self.is_live = False
            self.lost.set_result(cause)


class GeneratorPool:
    """All engines behind one call.

    Consumes: samples. Produces: references to groups. Waits for: an engine with room.
    Woken by: a group that ends, an engine that goes live. A lost engine's groups go to others, and a new one is built
    in its place, which takes groups once it has the current weights.
    """

    def __init__(
        self,
        start: Start,
        *,
        stop: Stop,
        num_engines: int,
        config: RolloutConfig,
        faults: FaultsConfig,
        log: FaultLog,
    ) -> None:
        """Remember how engines are made; `ready` starts them.

        Args:
            start: Makes the actor of an index, again after a loss.
            stop: Ends an actor at once.
            num_engines: Engines in all.
            config: How many completions an engine decodes at once, and how many a group has.
            faults: Heartbeats and time limits.
            log: Counts engines lost.
        """
        self._start = start
        self._stop = stop
        self._num_engines = num_engines
        self._faults = faults
        self._log = log
        self._admit: Admit | None = None
        self._engines: list[Engine] = []
        self._tending: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._stood = asyncio.Event()
        self.lengths = LengthEstimates(first_guess=config.sampling.max_completion_tokens / 2)
        self._dispatcher = Dispatcher(
            capacity=max(1, ceil(FULLNESS * config.engine.max_num_seqs / config.sampling.group_size))
        )
        self._waiting: set[Work] = set()
        self._num_probes = 0
        self.num_repeated = 0
        """Groups begun again because their engine was lost."""

    async def ready(self, admit: Admit | None = None) -> list[int]:
        """Start all engines, wait until they stand, and look after them from then on; gives their process ids.

        Args:
            admit: Gives an engine the current weights and then calls `go_live`, also one that is built later. Without
                it engines keep the weights that they load and go live at once.
        """
        self._admit = admit
        self._engines = [Engine(index, self._start(index)) for index in range(self._num_engines)]
        pids = await asyncio.gather(*(engine.handle.ready.remote() for engine in self._engines))
        for engine in self._engines:
            self._stands(engine)
        if admit is None:
            self.go_live(self._engines)
        self._tending = [asyncio.create_task(self._tend(engine)) for engine in self._engines]
        return list(pids)

    async def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, *, urgency: int = 0
    ) -> ray.ObjectRef:
        """Sample one group; the group itself stays where it was made.

        Args:
            group_id: Of the group.
            sample: Its prompt.
            spec: How its completions are sampled.
            urgency: Among waiting groups the lowest goes first.

        Raises:
            RolloutError: the sample cannot be a prompt.
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        while True:
            work = Work(
                urgency=urgency,
                tokens=self.lengths.expected_tokens(sample, spec.group_size),
                payload=asyncio.get_running_loop().create_future(),
            )
            assignment = await self._place(work)
            engine = self._engines[assignment.engine]
            if not engine.is_live:  # lost since it was chosen
                self._dispatcher.finish(assignment)
                continue
            handle = engine.handle
            group, seconds = handle.generate_group.remote(group_id, sample, spec)
            try:
                await self._watched(asyncio.ensure_future(seconds), assignment)
                return group
            except Exception as error:
                cause = death_of(error)
                if cause is None:
                    raise
                engine.lose(handle, cause)
                self.num_repeated += 1

    def standing(self) -> list[Engine]:
        """Engines that answer, live or still without the current weights."""
        return [engine for engine in self._engines if engine.is_standing]

    async def some_standing(self) -> list[Engine]:
        """Wait for at least one engine that answers.

        Raises:
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        while not (found := self.standing()):
            self._check()
            self._stood.clear()
            await self._stood.wait()
        self._check()
        return found

    def go_live(self, engines: Sequence[Engine]) -> None:
        """Let engines take groups; they have the current weights."""
        for engine in engines:
            if engine.is_standing and not engine.is_live:
                engine.is_live = True
                self._dispatcher.join(engine.index)
        self._match()

    async def on_each(self, engines: Sequence[Engine], method: str, *arguments: Any) -> list[Any]:
        """Call a method of several engines; gives their answers in order.

        Raises:
            EngineLostError: one of them died under the call; it is given up.
        """
        calls = [getattr(engine.handle, method).remote(*arguments) for engine in engines]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for engine, answer in zip(engines, answers, strict=True):
            if isinstance(answer, BaseException):
                cause = death_of(answer)
                if cause is None:
                    raise answer
                engine.lose(engine.handle, cause)
                raise EngineLostError(f"engine {engine.index}: {cause}") from answer
        return answers

    async def completion_logprobs(self, payload: ray.ObjectRef, sample: Sample) -> list[NDArray[np.float32]]:
        """Logprobs of the first completion of a scored group, as a few live engines compute them now, others each time.

        An engine that is lost meanwhile gives none.
        """
        everyone = [engine for engine in self._engines if engine.is_live]
        first = self._num_probes % max(1, len(everyone))
        live = (everyone[first:] + everyone[:first])[:MAX_PROBED]
        self._num_probes += MAX_PROBED
        calls = [engine.handle.score_completion.remote(payload, sample, 0) for engine in live]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and death_of(answer) is None:
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def find_lost(self, engines: Sequence[Engine]) -> int:
        """Ask engines for a heartbeat and give up those that do not answer; gives how many."""
        asked = [(engine, engine.handle) for engine in engines if engine.is_standing]
        causes = await asyncio.gather(*(self._beat(handle) for _, handle in asked))
        for (engine, handle), cause in zip(asked, causes, strict=True):
            if cause is not None:
                engine.lose(handle, cause)
        return sum(engine.lost.done() for engine in engines)

    async def close(self) -> None:
        """End the engines' processes, then the actors."""
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        standing = [engine.handle for engine in self.standing()]
        try:
            async with asyncio.timeout(self._faults.heartbeat_timeout_s):
                await asyncio.gather(*(handle.close.remote() for handle in standing), return_exceptions=True)
        except TimeoutError:
            logger.warning("an engine did not close within %g s and is killed", self._faults.heartbeat_timeout_s)
        for engine in self._engines:
            self._stop(engine.handle)

    async def _place(self, work: Work) -> Assignment:
        """Wait for an engine with room."""
        self._check()
        self._dispatcher.submit(work)
        self._match()
        future: asyncio.Future[Assignment] = work.payload
        self._waiting.add(work)
        try:
            return await future
        except asyncio.CancelledError:
            self._dispatcher.withdraw(work)
            if future.done() and not future.cancelled():
                self._dispatcher.finish(future.result())
            raise
        finally:
            self._waiting.discard(work)

    def _match(self) -> None:
        while (assignment := self._dispatcher.match()) is not None:
            future: asyncio.Future[Assignment] = assignment.work.payload
            if future.done():
                self._dispatcher.finish(assignment)
            else:
                future.set_result(assignment)

    async def _watched(self, call: "asyncio.Future[float]", assignment: Assignment) -> None:
        """Wait for a call; the engine's load counts until it ends, even if nobody waits for it any more."""

        def ended(done: "asyncio.Future[float]") -> None:
            self._dispatcher.finish(assignment)
            self._match()
            if not done.cancelled():
                done.exception()

        call.add_done_callback(ended)
        await asyncio.shield(call)

    async def _tend(self, engine: Engine) -> None:
        """Watch one engine and build it again when it is lost.

        Consumes: heartbeats. Produces: standing engines. Waits for: the next heartbeat, or news of a loss.
        """
        try:
            while True:
                cause = await self._watch(engine)
                self._dispatcher.leave(engine.index)
                logger.warning("engine %d is built again: %s", engine.index, cause)
                self._log.record(Role.ENGINE, engine.index, cause)
                await self._rebuild(engine)
        except InfrastructureError as error:
            self._fail(error)

    async def _watch(self, engine: Engine) -> str:
        """Give the cause when the engine is lost."""
        while True:
            await asyncio.wait([engine.lost], timeout=self._faults.heartbeat_s)
            if not engine.lost.done() and (cause := await self._beat(engine.handle)) is not None:
                engine.lose(engine.handle, cause)
            if engine.lost.done():
                return engine.lost.result()

    async def _beat(self, handle: Any) -> str | None:
        """Give the cause if an engine does not answer."""
        try:
            async with asyncio.timeout(self._faults.heartbeat_timeout_s):
                await handle.beat.remote()
        except TimeoutError:
            return f"no heartbeat within cluster.faults.heartbeat_timeout_s={self._faults.heartbeat_timeout_s:g}"
        except Exception as error:
            return death_of(error) or f"its heartbeat failed: {error}"
        return None

    async def _rebuild(self, engine: Engine) -> None:
        self._stop(engine.handle)
        engine.renew(self._start(engine.index))
        try:
            await self._until_ready(engine)
        except Exception as error:
            engine.lose(engine.handle, f"it did not start: {death_of(error) or error}")
            return
        self._stands(engine)
        if self._admit is None:
            self.go_live([engine])
        else:
            await self._admit(engine)

    async def _until_ready(self, engine: Engine) -> None:
        """Wait until a new engine stands; without limit while others work, because its place may be on no node yet."""
        ready = asyncio.ensure_future(engine.handle.ready.remote())
        while not ready.done():
            await asyncio.wait([ready], timeout=self._faults.start_timeout_s)
            if not ready.done() and not self.standing():
                raise TimeoutError(f"cluster.faults.start_timeout_s={self._faults.start_timeout_s:g} is over")
        ready.result()

    def _stands(self, engine: Engine) -> None:
        engine.is_standing = True
        self._stood.set()

    def _fail(self, error: BaseException) -> None:
        """Let everyone who waits know that there will be no engine."""
        self._failure = error
        self._stood.set()
        for work in self._waiting:
            if not work.payload.done():
                work.payload.set_exception(error)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


def start_generators(
    config: RolloutConfig,
    model_path: Path,
    placements: Sequence[Placement],
    log_dir: Path,
    *,
    faults: FaultsConfig,
    log: FaultLog,
) -> GeneratorPool:
    """Make a pool of one engine actor a placement."""

    def start(index: int) -> Any:
        # A pause or a weight update must reach an engine that has every group of several steps in flight.
        options = {**placements[index].actor_options(), "max_concurrency": 10_000}
        return GeneratorActor.options(**options).remote(index, config, model_path, placements[index], log_dir)

    return GeneratorPool(start, stop=ray.kill, num_engines=len(placements), config=config, faults=faults, log=log)
