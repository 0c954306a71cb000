"""Tests on the simulation's clock: hours of waiting pass in no time, and in the same order every time."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from tests.benchmarks.simulation import virtual_time
from tests.benchmarks.simulation.world import World


def run_in_virtual_time(scenario: Coroutine[Any, Any, None]) -> float:
    """Give the seconds that the scenario would have taken; raises DeadlockError instead of waiting for ever."""
    world = World()
    virtual_time.run_in_virtual_time(world, scenario)
    return world.now


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
