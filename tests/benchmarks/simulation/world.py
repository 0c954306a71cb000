"""World: the virtual clock, what happens in the simulation by itself, and the processor time that simulating costs."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

Action = Callable[[], None]


class DeadlockError(RuntimeError):
    """Every task waits and nothing will ever happen again; the message names what they wait for."""


class Event:
    """Something that will happen at its time, unless it is cancelled first."""

    __slots__ = ("action", "is_cancelled", "when")

    def __init__(self, when: float, action: Action) -> None:
        self.when = when
        self.action = action
        self.is_cancelled = False

    def cancel(self) -> None:
        """Let it not happen."""
        self.is_cancelled = True


class World:
    """The virtual clock and the events of the simulated parts.

    The events have a queue of their own, beside the timers of the event loop, for two reasons: an event that wakes
    nobody costs the loop nothing, and all processor time spent on them can be told from that of the product.
    """

    def __init__(self) -> None:
        self.now = 0.0
        """Virtual seconds."""
        self.simulated_cpu_s = 0.0
        """Processor seconds of this process that went into simulated parts."""
        self._events: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._is_simulating = False
        self._has_woken = False

    def at(self, when: float, action: Action) -> Event:
        """Let something happen; events of one instant happen in the order in which they were asked for."""
        event = Event(max(when, self.now), action)
        heapq.heappush(self._events, (event.when, next(self._order), event))
        return event

    def after(self, seconds: float, action: Action) -> Event:
        """Let something happen in so many seconds."""
        return self.at(self.now + seconds, action)

    def answer(self, future: "asyncio.Future[Any]", value: Any) -> None:
        """Give a call its result, if somebody still waits for it."""
        if not future.done():
            future.set_result(value)
            self._has_woken = True

    def fail(self, future: "asyncio.Future[Any]", error: Exception) -> None:
        """Give a call its error, if somebody still waits for it."""
        if not future.done():
            future.set_exception(error)
            # A caller that was cancelled meanwhile never looks; that is no error of its own.
            future.exception()
            self._has_woken = True

    def later(self, seconds: float, value: Any) -> "asyncio.Future[Any]":
        """A call that gives `value` after some seconds."""
        future = asyncio.get_running_loop().create_future()
        self.after(seconds, lambda: self.answer(future, value))
        return future

    def advance(self, timer: float | None) -> None:
        """Go on to the next event that wakes somebody, or to the event loop's next timer.

        Args:
            timer: When the loop's next timer is due; None if it has none.

        Raises:
            DeadlockError: There is neither event nor timer.
        """
        if timer is None and not self._next_event():
            raise DeadlockError("nothing is ready, no timer runs and no event is due")
        self.simulate(self._advance, timer)

    def simulate(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a simulated part and book its processor time."""
        if self._is_simulating:
            return function(*arguments)
        self._is_simulating = True
        started = time.process_time()
        try:
            return function(*arguments)
        finally:
            self.simulated_cpu_s += time.process_time() - started
            self._is_simulating = False

    def _advance(self, timer: float | None) -> None:
        self._has_woken = False
        while not self._has_woken and (event := self._next_event()) and (timer is None or event.when <= timer):
            heapq.heappop(self._events)
            self.now = event.when
            event.action()
        if not self._has_woken and timer is not None:
            self.now = max(self.now, timer)

    def _next_event(self) -> Event | None:
        while self._events and self._events[0][2].is_cancelled:
            heapq.heappop(self._events)
        return self._events[0][2] if self._events else None
