"""asyncio whose clock jumps to the next timer: hours of waiting pass in no time, and in the same order every time."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any


class StuckError(Exception):
    """Nothing is ready and no timer runs: whoever waits would wait for ever."""


class _JumpingLoop(asyncio.SelectorEventLoop):
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


def run_in_virtual_time(scenario: Coroutine[Any, Any, None]) -> float:
    """Give the seconds that the scenario would have taken; raises StuckError instead of waiting for ever."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(scenario)
        return runner.get_loop().time()


async def settle(num_rounds: int = 40) -> None:
    """Let everything that is ready run, without letting time pass."""
    for _ in range(num_rounds):
        await asyncio.sleep(0)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest call an asynchronous test."""

    @wraps(test)
    def run(**arguments: Any) -> None:
        run_in_virtual_time(asyncio.wait_for(test(**arguments), 1e6))

    return run
