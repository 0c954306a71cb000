"""VirtualTimeLoop: an event loop whose clock is a World's; it never waits, and says who waits for ever."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from types import CoroutineType
from typing import Any

from tests.benchmarks.simulation.world import DeadlockError, World


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time: where nothing is ready, the clock jumps to the next timer or event.

    `asyncio.sleep`, `asyncio.timeout`, `loop.call_later` and `loop.time` work unchanged. Calls handed to threads run
    at once, in the loop's own thread: a thread would finish at a virtual time that depends on the machine.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__(_WorldSelector(world, lambda: describe_waiting(self)))
        # A timer is due within the clock's resolution. The real clock's nanosecond is lost in the rounding of a float
        # that counts months of seconds, and a timer would never be due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Virtual seconds."""
        return self._world.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Call the function now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run_in_virtual_time(world: World, main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on the clock of `world`; gives what it returns.

    Raises:
        DeadlockError: All tasks wait for something that nothing will bring.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(world)) as runner:
        return runner.run(main)


def describe_waiting(loop: asyncio.AbstractEventLoop) -> str:
    """One line for each unfinished task: its name, and the place where it waits."""
    places = [f"  {task.get_name()} waits in {_place(task.get_coro())}" for task in asyncio.all_tasks(loop)]
    return "\n".join(sorted(places))


def _place(waiting: Any) -> str:
    """Follow what a coroutine awaits to the innermost one."""
    while isinstance(waiting, CoroutineType) and isinstance(waiting.cr_await, CoroutineType):
        waiting = waiting.cr_await
    if isinstance(waiting, CoroutineType) and waiting.cr_frame is not None:
        return f"{waiting.cr_code.co_qualname} ({waiting.cr_code.co_filename}:{waiting.cr_frame.f_lineno})"
    return repr(waiting)


class _WorldSelector(selectors.BaseSelector):
    """Stands where the loop would wait for the system, and moves the world's clock instead."""

    def __init__(self, world: World, describe: Callable[[], str]) -> None:
        self._world = world
        self._describe = describe
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return self._keys[number]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0.0:
            try:
                self._world.advance(None if timeout is None else self._world.now + timeout)
            except DeadlockError as error:
                raise DeadlockError(f"{error}; waiting are:\n{self._describe()}") from None
        return []
