"""The clock of the simulation: timers in order, no waiting, and a name for whoever waits for ever."""

import asyncio
import time

import pytest

from tests.benchmarks.simulation.virtual_time import run_in_virtual_time
from tests.benchmarks.simulation.world import DeadlockError, World


def test_timers_and_events_fire_in_order_of_their_times() -> None:
    world, seen = World(), []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append(("timer", asyncio.get_running_loop().time()))

    async def scenario() -> None:
        world.after(2.0, lambda: seen.append(("event", world.now)))
        async with asyncio.TaskGroup() as tasks:
            for seconds in (3.0, 1.0, 2.5):
                tasks.create_task(sleep(seconds))

    run_in_virtual_time(world, scenario())
    assert seen == [("timer", 1.0), ("event", 2.0), ("timer", 2.5), ("timer", 3.0)]


def test_an_event_wakes_its_waiter_at_its_own_time_although_a_timer_is_further_off() -> None:
    world = World()

    async def scenario() -> tuple[str, float]:
        asyncio.get_running_loop().call_later(1000.0, lambda: None)
        return await world.later(7.0, "answer"), world.now

    assert run_in_virtual_time(world, scenario()) == ("answer", 7.0)


def test_a_cancelled_event_does_not_happen() -> None:
    world, seen = World(), []

    async def scenario() -> None:
        world.after(1.0, lambda: seen.append("wrong")).cancel()
        await asyncio.sleep(2.0)

    run_in_virtual_time(world, scenario())
    assert seen == []


def test_a_timeout_ends_a_call_that_is_too_slow_and_spares_one_that_is_not() -> None:
    world = World()

    async def scenario() -> float:
        async with asyncio.timeout(5.0):
            await world.later(4.0, None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await world.later(1e9, None)
        return world.now

    assert run_in_virtual_time(world, scenario()) == 9.0


def test_ten_thousand_sleeps_take_no_time() -> None:
    world = World()

    async def scenario() -> None:
        await asyncio.gather(*(asyncio.sleep(600.0 * (i + 1) / 5000) for i in range(5_000)))
        for _ in range(5_000):
            await asyncio.sleep(3600.0)

    started = time.process_time()
    run_in_virtual_time(world, scenario())
    assert world.now == pytest.approx(600.0 + 3600.0 * 5_000)
    assert time.process_time() - started < 60.0


def test_a_deadlock_names_the_waiting_task_and_the_place() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        await asyncio.create_task(wait_for_nobody(), name="forgotten")

    with pytest.raises(DeadlockError, match=r"forgotten waits in Event\.wait"):
        run_in_virtual_time(World(), scenario())


def test_a_call_in_a_thread_happens_at_once_and_keeps_its_error() -> None:
    def fail() -> None:
        raise KeyError("spilled")

    async def scenario() -> int:
        with pytest.raises(KeyError, match="spilled"):
            await asyncio.to_thread(fail)
        return await asyncio.to_thread(lambda: 3)

    assert run_in_virtual_time(World(), scenario()) == 3


def test_processor_time_of_simulated_parts_is_booked_once() -> None:
    world = World()

    def spin() -> None:
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    async def scenario() -> None:
        world.after(1.0, lambda: world.simulate(spin))
        await asyncio.sleep(2.0)

    started = time.process_time()
    run_in_virtual_time(world, scenario())
    assert 0.02 <= world.simulated_cpu_s <= time.process_time() - started
