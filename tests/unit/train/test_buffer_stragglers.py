"""Steps that do not wait for their slowest group."""

import asyncio

from tests.unit.train.buffer_driver import fill, free_positions, new_buffer, positions_of
from tests.unit.train.virtual_time import run_in_virtual_time

STRAGGLERS = {"max_staleness": 2, "run_ahead": 1, "straggler_deadline_s": 10.0}


def test_after_the_deadline_others_fill_the_step_and_the_straggler_goes_to_the_next() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        buffer = new_buffer(**STRAGGLERS)
        assert free_positions(buffer) == [0, 1, 2, 3]
        fill(buffer, 1, 2)
        groups = await buffer.take_step()
        assert clock() == 10.0
        assert groups is not None
        assert (positions_of(groups), groups.num_carried) == ([1, 2], 1)
        buffer.advance(1)
        assert free_positions(buffer) == [4, 5]
        fill(buffer, 3, 0)
        groups = await buffer.take_step()
        assert groups is not None
        assert (positions_of(groups), groups.num_carried) == ([0, 3], 0)
        assert clock() == 10.0

    run_in_virtual_time(scenario())


def test_after_the_deadline_the_first_groups_that_fill_the_step_end_the_wait() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        buffer = new_buffer(**STRAGGLERS)
        free_positions(buffer)
        waiting = asyncio.ensure_future(buffer.take_step())
        await asyncio.sleep(20.0)
        fill(buffer, 1)
        await asyncio.sleep(5.0)
        assert not waiting.done()
        fill(buffer, 3)
        assert positions_of(await waiting) == [1, 3]
        assert clock() == 25.0

    run_in_virtual_time(scenario())


def test_straggler_at_its_staleness_bound_is_waited_for() -> None:
    async def scenario() -> None:
        buffer = new_buffer(**STRAGGLERS)
        free_positions(buffer)
        for step in range(2):
            fill(buffer, *((1, 2), (3, 4))[step])
            groups = await buffer.take_step()
            assert groups is not None
            assert groups.num_carried == 1
            buffer.advance(step + 1)
            free_positions(buffer)
        fill(buffer, 5, 6, 7)
        waiting = asyncio.ensure_future(buffer.take_step())
        await asyncio.sleep(1000.0)
        assert not waiting.done()
        fill(buffer, 0)
        assert positions_of(await waiting) == [0, 5]

    run_in_virtual_time(scenario())


def test_the_deadline_counts_from_when_the_step_is_asked_for() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        buffer = new_buffer(**STRAGGLERS)
        free_positions(buffer)
        await asyncio.sleep(100.0)
        fill(buffer, 1, 2)
        await buffer.take_step()
        assert clock() == 110.0

    run_in_virtual_time(scenario())
