"""SupervisedActor: one Ray actor of a pool, its heartbeats, and its replacement when it is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from orchestration.cluster.ray_errors import translating
from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.errors import InfrastructureError
from orchestration.storage.faults import Role

Start = Callable[[int], Any]
"""Make the actor of an index; called again after each loss."""
Stop = Callable[[Any], None]
"""End an actor at once."""


class SupervisedActor:
    """The actor of one index; `handle` changes each time it is replaced.

    Consumes: heartbeats. Produces: the cause of a loss. Waits for: the next heartbeat, or a call that finds it lost.
    """

    def __init__(self, role: Role, index: int, start: Start, stop: Stop, faults: FaultsConfig) -> None:
        """Start the first actor; `Start` may return before there is room for it."""
        self.role = role
        self.index = index
        self._start = start
        self._stop = stop
        self._faults = faults
        self.begin()

    def begin(self) -> None:
        """Start an actor and forget the state of the one before."""
        self.handle = self._start(self.index)
        self.is_ready = False
        """Whether it has answered and is not lost."""
        self._lost = asyncio.Event()
        self._cause = ""

    def end(self) -> None:
        self._stop(self.handle)

    async def ready(self) -> int:
        """Wait until the actor answers; returns its process id.

        Raises:
            InfrastructureError: The error of its role; it died before it answered.
        """
        pid = int(await self.call("ready"))
        self.is_ready = True
        return pid

    async def call(self, method: str, *arguments: Any) -> Any:
        return await self.answer(getattr(self.handle, method).remote(*arguments))

    async def answer(self, call: Awaitable[Any]) -> Any:
        """Wait for a call of this actor.

        Raises:
            InfrastructureError: The error of its role where the process is gone, PayloadLostError where an object is.
        """
        with translating(self.role, self.index):
            return await call

    def lose(self, handle: Any, cause: str) -> bool:
        """Record that an actor is lost; returns False where that is known, or the actor was replaced."""
        if handle is not self.handle or self._lost.is_set():
            return False
        self.is_ready = False
        self._cause = cause
        self._lost.set()
        return True

    async def watch(self) -> str:
        """Ask for heartbeats until the actor is lost; returns the cause."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(self._faults.heartbeat_s):
                    await self._lost.wait()
            except TimeoutError:
                watched = self.handle
                if (cause := await self.heartbeat()) is not None:
                    self.lose(watched, cause)
        return self._cause

    async def replace_when_lost(self, lost: type[InfrastructureError]) -> None:
        """Watch the actor until it is lost, start another and wait for its answer; `lost` is the error of its role.

        There is no time limit: there may be no room for it for long. One that dies before it answers is lost again.
        """
        await self.watch()
        self.end()
        self.begin()
        try:
            await self.ready()
        except lost as error:
            self.lose(self.handle, str(error))

    async def heartbeat(self) -> str | None:
        """Return why the actor counts as lost: no answer in time, an error, or one step that lasts too long."""
        try:
            async with asyncio.timeout(self._faults.heartbeat_timeout_s):
                busy_s = await self.call("beat")
        except TimeoutError:
            return f"no heartbeat within cluster.faults.heartbeat_timeout_s={self._faults.heartbeat_timeout_s:g}"
        except Exception as error:
            return str(error) or type(error).__name__
        if busy_s is not None and busy_s > self._faults.step_timeout_s:
            limit_s = self._faults.step_timeout_s
            return f"at one step for {busy_s:.0f} s, longer than cluster.faults.step_timeout_s={limit_s:g}"
        return None
