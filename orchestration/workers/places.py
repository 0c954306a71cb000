"""Places: room on the engines, for which groups wait in line."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from orchestration.workers.dispatch import Assignment, Dispatcher, Seat, Work


class Places:
    """Room on the engines that take groups.

    Consumes: groups that want an engine. Produces: assignments. Waits for: an engine with room.
    Woken by: a call that ends, an engine that joins.
    """

    def __init__(self, *, capacity: int) -> None:
        """Let no engine hold more than `capacity` groups, those with a seat aside."""
        self._dispatcher = Dispatcher(capacity=capacity)
        self._waiting: set[Work] = set()

    @property
    def engines(self) -> list[int]:
        """Engines that take groups."""
        return self._dispatcher.engines

    def join(self, engines: Iterable[int]) -> None:
        """Let engines take groups."""
        for engine in engines:
            self._dispatcher.join(engine)
        self._match()

    def leave(self, engine: int) -> None:
        """Give an engine no more groups and forget those that it has."""
        self._dispatcher.leave(engine)

    def seats(self, batch: str, tokens: Mapping[int, float]) -> dict[int, Seat]:
        """See `Dispatcher.seats`."""
        return self._dispatcher.seats(batch, tokens)

    def sit(self, seat: Seat, tokens: float) -> Assignment | None:
        """Take a place that was kept; None if its engine is lost."""
        return self._dispatcher.assign(Work(urgency=0, tokens=tokens, payload=None), seat.engine)

    async def take(self, tokens: float, *, urgency: int) -> Assignment:
        """Wait for an engine with room.

        Args:
            tokens: Expected of the group.
            urgency: The lowest goes first.

        Raises:
            Exception: what `fail` was told meanwhile.
        """
        future: asyncio.Future[Assignment] = asyncio.get_running_loop().create_future()
        work = Work(urgency=urgency, tokens=tokens, payload=future)
        self._dispatcher.submit(work)
        self._match()
        self._waiting.add(work)
        try:
            return await future
        except asyncio.CancelledError:
            self._dispatcher.withdraw(work)
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise
        finally:
            self._waiting.discard(work)

    def give_back(self, place: Assignment) -> None:
        """Leave a place, whatever came of the group."""
        self._dispatcher.finish(place)
        self._match()

    async def hold(self, place: Assignment, call: "asyncio.Future[Any]") -> None:
        """Wait for a call; the engine's load counts until it ends, even if nobody waits for it any more."""

        def ended(done: "asyncio.Future[Any]") -> None:
            self.give_back(place)
            if not done.cancelled():
                done.exception()

        call.add_done_callback(ended)
        await asyncio.shield(call)

    def fail(self, error: Exception) -> None:
        """Tell everyone who waits that no engine will come."""
        for work in self._waiting:
            if not work.payload.done():
                work.payload.set_exception(error)

    def _match(self) -> None:
        while (assignment := self._dispatcher.match()) is not None:
            future: asyncio.Future[Assignment] = assignment.work.payload
            if future.done():
                self._dispatcher.finish(assignment)
            else:
                future.set_result(assignment)
