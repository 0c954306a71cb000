"""An event loop whose clock jumps to the next timer, so that a test of time limits waits for nothing."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """Nothing is ready and no timer runs: whoever waits would wait for ever."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Timers fire in their order, at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:
            due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
            if not due:
                raise StuckError("all tasks wait and no timer runs")
            self._now = max(self._now, min(due))
        super()._run_once()


def run_virtual(test: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, on virtual time; raises StuckError instead of hanging."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(test)


async def settle(ticks: int = 40) -> None:
    """Let everything that is ready run, without letting time pass."""
    for _ in range(ticks):
        await asyncio.sleep(0)
