"""What a simulated handle's methods look like from outside: `handle.method.remote(*arguments)`."""

from collections.abc import Callable
from typing import Any, Protocol

from tests.benchmarks.simulation.world import World


class Simulated(Protocol):
    """A handle of the simulation."""

    world: World


class Remote:
    """A method as the product calls it; the time inside is booked as simulated."""

    __slots__ = ("_function", "_handle")

    def __init__(self, function: Callable[..., Any], handle: Simulated) -> None:
        self._function = function
        self._handle = handle

    def remote(self, *arguments: Any) -> Any:
        """Start the call; gives what can be awaited."""
        return self._handle.world.simulate(self._function, self._handle, *arguments)


class remote_method:
    """Decorator: the method is called as `handle.method.remote(...)`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __get__(self, handle: Simulated, owner: type) -> Remote:
        return Remote(self._function, handle)
