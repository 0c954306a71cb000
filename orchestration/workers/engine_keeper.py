"""EngineKeeper: engines that stand, or are being built again.

Health is asked for, never hoped for: every engine answers a heartbeat through its own process, or is given up.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from orchestration.cluster.ray_errors import in_our_words
from orchestration.settings.cluster import FaultsConfig
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.gate import BuildGate

logger = logging.getLogger(__name__)

Start = Callable[[int], Any]
Stop = Callable[[Any], None]


class Engine:
    """One engine's place in the pool; its actor changes when one is lost."""

    def __init__(self, index: int, handle: Any, told: Callable[["Engine"], None], *, is_elastic: bool = False) -> None:
        """Tell `told` at once when the actor is lost.

        Args:
            index: Of the place.
            handle: Its first actor.
            told: Is told of a loss.
            is_elastic: Nobody waits for it: it comes when there is room and goes with its machine.
        """
        self.index = index
        self.is_elastic = is_elastic
        self._told = told
        self.renew(handle)

    def renew(self, handle: Any) -> None:
        """Begin with a new actor, which neither stands nor takes groups yet."""
        self.handle = handle
        self.is_standing = False
        self.has_stood = False
        self.is_live = False
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def lose(self, handle: Any, cause: str) -> None:
        """Give up an actor; later news of it change nothing."""
        if self.handle is handle and not self.lost.done():
            self.is_standing = self.is_live = False
            self.lost.set_result(cause)
            self._told(self)


class Owner(Protocol):
    """Who uses the engines."""

    def engine_lost(self, engine: Engine) -> None:
        """Give it nothing more."""

    async def engine_stands(self, engine: Engine) -> None:
        """A new engine answers; it has the weights that it loaded."""

    def engines_failed(self, error: Exception) -> None:
        """Nobody looks after the engines any more, because too many were lost, or by a bug of ours."""


class EngineKeeper:
    """Starts engines, watches them, and builds lost ones again.

    Consumes: heartbeats. Produces: standing engines. Waits for: the next heartbeat, or news of a loss; of elastic
    engines also for room.
    """

    def __init__(
        self,
        start: Start,
        *,
        stop: Stop,
        num_engines: int,
        max_engines: int,
        faults: FaultsConfig,
        log: FaultLog,
        owner: Owner,
    ) -> None:
        """Remember how engines are made; `ready` starts them.

        Args:
            start: Makes the actor of an index, again after a loss; it may wait for room.
            stop: Ends an actor at once.
            num_engines: Engines that `ready` waits for.
            max_engines: With those that join whenever there is room.
            faults: Heartbeats and time limits.
            log: Counts engines lost.
            owner: Is told of engines that are lost and that stand again.
        """
        self._start = start
        self._stop = stop
        self._num_engines = num_engines
        self._max_engines = max_engines
        self._faults = faults
        self._log = log
        self._owner = owner
        self.gate = BuildGate()
        self._tending: list[asyncio.Task[None]] = []
        self._introducing: set[asyncio.Task[None]] = set()
        self._stood = asyncio.Event()
        self._failure: Exception | None = None
        self.engines: list[Engine] = []

    async def ready(self) -> list[int]:
        """Start all engines and wait until they stand; gives their process ids."""
        self.engines = [
            Engine(index, self._start(index), self._owner.engine_lost) for index in range(self._num_engines)
        ]
        pids = await asyncio.gather(*(_answer(engine.index, engine.handle.ready.remote()) for engine in self.engines))
        for engine in self.engines:
            self._stands(engine)
        return list(pids)

    def begin(self) -> None:
        """Look after the engines from now on, and ask for elastic ones."""
        self._tending = [asyncio.create_task(self._tend(engine)) for engine in self.engines]
        for index in range(self._num_engines, self._max_engines):
            engine = Engine(index, self._start(index), self._owner.engine_lost, is_elastic=True)
            self.engines.append(engine)
            self._tending.append(asyncio.create_task(self._tend(engine)))

    def standing(self) -> list[Engine]:
        """Engines that answer, live or still without the current weights."""
        return [engine for engine in self.engines if engine.is_standing]

    async def some_standing(self) -> list[Engine]:
        """Wait for at least one engine that answers.

        Raises:
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        while not (found := self.standing()):
            self.check()
            self._stood.clear()
            await self._stood.wait()
        self.check()
        return found

    async def find_lost(self, engines: Sequence[Engine]) -> int:
        """Ask engines for a heartbeat and give up those that do not answer; gives how many are lost in all."""
        asked = [(engine, engine.handle) for engine in engines if engine.is_standing]
        causes = await asyncio.gather(*(self._beat(engine) for engine, _ in asked))
        for (engine, handle), cause in zip(asked, causes, strict=True):
            if cause is not None:
                engine.lose(handle, cause)
        # Not the state of the engines now: one that was lost may be on its way again.
        return len(engines) - len(asked) + sum(cause is not None for cause in causes)

    def check(self) -> None:
        """Raise what ended the keeping of engines, if it has ended."""
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """End the engines' processes, then the actors."""
        tasks = [*self._tending, *self._introducing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        standing = [engine.handle for engine in self.standing()]
        try:
            async with asyncio.timeout(self._faults.heartbeat_timeout_s):
                await asyncio.gather(*(handle.close.remote() for handle in standing), return_exceptions=True)
        except TimeoutError:
            logger.warning("an engine did not close within %g s and is killed", self._faults.heartbeat_timeout_s)
        for engine in self.engines:
            self._stop(engine.handle)

    async def _tend(self, engine: Engine) -> None:
        """Watch one engine and build it again when it is lost.

        Consumes: heartbeats. Produces: standing engines. Waits for: the next heartbeat, or news of a loss.
        """
        try:
            if engine.is_elastic and await self._rises(engine):
                self._introduce(engine)
            while True:
                cause = await self._watch(engine)
                logger.warning("engine %d is built again: %s", engine.index, cause)
                # An elastic engine may go at any time; one that does not even start will not do so the next time.
                self._log.record(
                    Role.ELASTIC if engine.is_elastic and engine.has_stood else Role.ENGINE, engine.index, cause
                )
                await self._rebuild(engine)
        except Exception as error:
            self._fail(error)

    def _introduce(self, engine: Engine) -> None:
        """Tell the owner that a new engine stands, and go on watching it.

        The owner may let it wait for a publication, which itself may wait for the successor of an engine that is lost.
        """
        task = asyncio.create_task(self._tell(engine))
        self._introducing.add(task)
        task.add_done_callback(self._introducing.discard)

    async def _tell(self, engine: Engine) -> None:
        try:
            await self._owner.engine_stands(engine)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._stood.set()
        self._owner.engines_failed(error)

    async def _watch(self, engine: Engine) -> str:
        """Give the cause when the engine is lost."""
        while True:
            await asyncio.wait([engine.lost], timeout=self._faults.heartbeat_s)
            if not engine.lost.done() and (cause := await self._beat(engine)) is not None:
                engine.lose(engine.handle, cause)
            if engine.lost.done():
                return engine.lost.result()

    async def _beat(self, engine: Engine) -> str | None:
        """Return the cause if an engine does not answer, or has been at one step for too long."""
        try:
            async with asyncio.timeout(self._faults.heartbeat_timeout_s):
                busy_s: float = await _answer(engine.index, engine.handle.beat.remote())
        except TimeoutError:
            return f"no heartbeat within cluster.faults.heartbeat_timeout_s={self._faults.heartbeat_timeout_s:g}"
        except Exception as error:
            return str(error) or type(error).__name__
        if busy_s > self._faults.step_timeout_s:
            limit_s = self._faults.step_timeout_s
            return f"at one step for {busy_s:.0f} s, longer than cluster.faults.step_timeout_s={limit_s:g}"
        return None

    async def _rebuild(self, engine: Engine) -> None:
        self._stop(engine.handle)
        async with self.gate.passed():
            engine.renew(self._start(engine.index))
            stands = await self._rises(engine)
        if stands:
            self._introduce(engine)

    async def _rises(self, engine: Engine) -> bool:
        """Wait until a new engine stands; one that does not is given up."""
        try:
            await self._until_ready(engine)
        except Exception as error:
            engine.lose(engine.handle, f"it did not start: {error}")
            self._stop(engine.handle)
            return False
        self._stands(engine)
        return True

    async def _until_ready(self, engine: Engine) -> None:
        """Wait until a new engine stands.

        Without limit while others work, because its place may be on no node yet; unless someone waits at the gate. Of
        an elastic one nobody ever needs that it stands.
        """
        ready = asyncio.ensure_future(_answer(engine.index, engine.handle.ready.remote()))
        try:
            while not ready.done():
                await asyncio.wait([ready], timeout=self._faults.start_timeout_s)
                is_needed = self.gate.is_closed or not (engine.is_elastic or self.standing())
                if not ready.done() and is_needed:
                    raise TimeoutError(f"cluster.faults.start_timeout_s={self._faults.start_timeout_s:g} is over")
            ready.result()
        finally:
            ready.cancel()  # else the death of an engine that is not waited for any more is nobody's error

    def _stands(self, engine: Engine) -> None:
        engine.is_standing = engine.has_stood = True
        self._stood.set()


async def _answer(index: int, call: Awaitable[Any]) -> Any:
    with in_our_words(Role.ENGINE, index):
        return await call
