"""BuildGate: when engines may be built, where they share GPUs with the learner."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BuildGate:
    """Lets engines be built while the GPUs are theirs, and nobody else onto the GPUs while one is being built.

    Open for ever where engines have GPUs of their own.
    """

    def __init__(self) -> None:
        """Begin open."""
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
        """Within the block one engine is built; waits for the gate."""
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
        """Let no further build begin; returns when none is under way."""
        self._opened.clear()
        await self._left.wait()

    def open(self) -> None:
        """Let builds begin."""
        self._opened.set()
