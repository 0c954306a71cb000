"""asyncio whose clock jumps to the next timer: hours of waiting pass in no time, and in the same order every time."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


def run_in_virtual_time(scenario: Coroutine[Any, Any, None]) -> float:
    """Give the seconds that the scenario would have taken."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(scenario)
        return runner.get_loop().time()
