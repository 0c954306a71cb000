"""Groups that enter an engine together and in order, however late each of them arrives.

What a kernel rounds can depend on which other tokens share its batch. An engine that takes requests as they come
batches them by chance; one that is given a whole batch while it stands still batches them by their order alone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rollout.errors import RolloutError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """One group's seat in a batch that one engine takes at once.

    Example:
        >>> Admission(batch="12-0", index=3, size=32).index
        3
    """

    batch: str
    """Names the batch; every group of it says the same."""
    index: int
    """Place in the batch, from 0; the order in which the engine takes the groups."""
    size: int
    """Groups in the batch; the engine waits until it has been asked for all of them."""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.size:
            raise RolloutError(f"Admission.index is {self.index} in a batch of {self.size}; use 0 to {self.size - 1}")


@dataclass(slots=True)
class _Seat(Generic[T]):
    submit: Callable[[], Awaitable[T]]
    taken: asyncio.Future[T] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class AdmissionDesk:
    """Lets batches in, one seat after the other, while the engine is held.

    Consumes: seats with what submits them. Produces: what each submission gave. Waits for: the last seat of a batch,
    then for the engine to stand still. Woken by: the last `enter` or `give_up` of a batch.
    """

    def __init__(self, hold: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Submit inside `hold()`, which keeps the engine from starting on half a batch."""
        self._hold = hold
        self._batches: dict[str, dict[int, _Seat[Any] | None]] = {}
        """Reservations that have come, by index; None for one that was given up."""
        self._entering: set[asyncio.Task[None]] = set()

    async def enter(self, admission: Admission, submit: Callable[[], Awaitable[T]]) -> T:
        """Wait for the rest of the batch and give what `submit` gave, or raise what it raised.

        A submission that fails leaves the others alone. A caller that is cancelled while it waits gives its seat up,
        so that the batch can be asked for again.

        Raises:
            RolloutError: the seat is taken.
        """
        seats = self._batches.setdefault(admission.batch, {})
        if admission.index in seats:
            raise RolloutError(f"batch {admission.batch} has two groups at index {admission.index}; number them apart")
        seat = seats[admission.index] = _Seat[T](submit)
        self._begin_if_whole(admission, seats)
        try:
            return await seat.taken
        except asyncio.CancelledError:
            seats.pop(admission.index, None)
            raise

    def give_up(self, admission: Admission) -> None:
        """Say that the group of a seat will not come: the others of its batch wait for it no longer.

        A seat that has come keeps its place.
        """
        seats = self._batches.setdefault(admission.batch, {})
        seats.setdefault(admission.index, None)
        self._begin_if_whole(admission, seats)

    def _begin_if_whole(self, admission: Admission, seats: dict[int, _Seat[Any] | None]) -> None:
        if len(seats) < admission.size:
            return
        del self._batches[admission.batch]
        come = [seat for _, seat in sorted(seats.items()) if seat is not None]
        # A task of its own, so that no single caller's cancellation stops the others half-way.
        task = asyncio.ensure_future(self._let_in(come))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _let_in(self, seats: list[_Seat[Any]]) -> None:
        try:
            async with self._hold():
                for seat in seats:
                    await _take(seat)
        except Exception as error:  # of the engine itself; every caller that still waits raises it
            for seat in seats:
                if not seat.taken.done():
                    seat.taken.set_exception(error)


async def _take(seat: _Seat[Any]) -> None:
    if seat.taken.cancelled():
        return
    try:
        result = await seat.submit()
    except Exception as error:  # of this seat alone; its caller raises it
        if not seat.taken.cancelled():
            seat.taken.set_exception(error)
    else:
        if not seat.taken.cancelled():
            seat.taken.set_result(result)
