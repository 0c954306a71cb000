"""Batches of groups that enter an engine together and in order, however late each group arrives.

What a kernel rounds can depend on which other tokens share its batch. An engine that takes requests as they arrive
batches them by timing; one that gets a whole batch while it is paused batches them by their order alone.
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
    """One group's slot in a batch that one engine takes at once.

    Example:
        >>> Admission(batch="12-0", index=3, size=32).index
        3
    """

    batch: str
    """Name of the batch, the same in all of its groups."""
    index: int
    """Place in the batch, from 0; the order in which the engine takes the groups."""
    size: int
    """Groups in the batch; the engine waits until it has been asked for all of them."""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.size:
            raise RolloutError(f"Admission.index is {self.index} in a batch of {self.size}; use 0 to {self.size - 1}")


@dataclass(slots=True)
class _Request(Generic[T]):
    submit: Callable[[], Awaitable[T]]
    result: asyncio.Future[T] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BatchAdmission:
    """Adds the requests of a batch in fixed order before the engine starts.

    Consumes: slots with the function that submits each. Produces: the result of each submission. Waits for: the last
    slot of a batch, then for the engine to pause. Woken by: the last `enter` or `give_up` of a batch.
    """

    def __init__(self, hold: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Submit inside `hold()`, which keeps the engine from starting on part of a batch."""
        self._hold = hold
        self._batches: dict[str, dict[int, _Request[Any] | None]] = {}
        """Requests that have arrived, by index; None for one that was given up."""
        self._entering: set[asyncio.Task[None]] = set()

    async def enter(self, admission: Admission, submit: Callable[[], Awaitable[T]]) -> T:
        """Wait for the rest of the batch, and return what `submit` returned or raise what it raised.

        A submission that fails does not affect the others. A caller that is cancelled while it waits frees its slot, so
        that the batch can be submitted again.

        Raises:
            RolloutError: the slot is taken.
        """
        slots = self._batches.setdefault(admission.batch, {})
        if admission.index in slots:
            raise RolloutError(f"batch {admission.batch} has two groups at index {admission.index}; number them apart")
        request = slots[admission.index] = _Request[T](submit)
        self._start_if_complete(admission, slots)
        try:
            return await request.result
        except asyncio.CancelledError:
            slots.pop(admission.index, None)
            raise

    def give_up(self, admission: Admission) -> None:
        """Start the batch without this slot's group, which will not arrive.

        A request that has arrived keeps its slot.
        """
        slots = self._batches.setdefault(admission.batch, {})
        slots.setdefault(admission.index, None)
        self._start_if_complete(admission, slots)

    def _start_if_complete(self, admission: Admission, slots: dict[int, _Request[Any] | None]) -> None:
        if len(slots) < admission.size:
            return
        del self._batches[admission.batch]
        arrived = [request for _, request in sorted(slots.items()) if request is not None]
        # A task of its own, so that no single caller's cancellation stops the others half-way.
        task = asyncio.ensure_future(self._submit_all(arrived))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _submit_all(self, requests: list[_Request[Any]]) -> None:
        try:
            async with self._hold():
                for request in requests:
                    await _submit(request)
        except Exception as error:  # of the engine itself; every caller that still waits raises it
            for request in requests:
                if not request.result.done():
                    request.result.set_exception(error)


async def _submit(request: _Request[Any]) -> None:
    if request.result.cancelled():
        return
    try:
        result = await request.submit()
    except Exception as error:  # of this request alone; its caller raises it
        if not request.result.cancelled():
            request.result.set_exception(error)
    else:
        if not request.result.cancelled():
            request.result.set_result(result)
