"""The buffer's one budget: who may start, what a step waits for, what happens to what is dropped."""

import asyncio

import pytest

from orchestration.settings.errors import DataError
from orchestration.train.buffer import Progress
from tests.benchmarks.simulation.world import DeadlockError
from tests.unit.train.buffer_driver import fill, free_positions, new_buffer, positions_of
from tests.unit.train.run_records import ticket, ticket_without_signal
from tests.unit.train.virtual_time import run_in_virtual_time, settle


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_staleness": 0}, [0, 1]),
        ({"max_staleness": 1}, [0, 1, 2, 3]),
        ({"max_staleness": 2}, [0, 1, 2, 3, 4, 5]),
        ({"max_staleness": 2, "run_ahead": 0}, [0, 1]),
        ({"max_staleness": 2, "run_ahead": 1}, [0, 1, 2, 3]),
    ],
)
def test_budget_is_one_step_more_than_rollout_runs_ahead(changes: dict[str, int], expected: list[int]) -> None:
    async def scenario() -> None:
        assert free_positions(new_buffer(**changes)) == expected

    run_in_virtual_time(scenario())


def test_slots_come_back_only_when_new_weights_are_live() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=0)
        assert free_positions(buffer) == [0, 1]
        slot = asyncio.ensure_future(buffer.wait_for_slots())
        fill(buffer, 1, 0)
        assert positions_of(await buffer.take_step()) == [0, 1]
        await settle()
        assert not slot.done()
        buffer.advance(1)
        assert await slot == [2, 3]

    run_in_virtual_time(scenario())


def test_stream_ends_with_the_last_step_and_starts_where_a_run_resumes() -> None:
    async def scenario() -> None:
        buffer = new_buffer(Progress(step=4, next_position=9, again=(6,)), max_staleness=3)
        assert free_positions(buffer) == [6, 9]
        slot = asyncio.ensure_future(buffer.wait_for_slots())
        await settle()
        fill(buffer, 6, 9)
        assert positions_of(await buffer.take_step()) == [6, 9]
        assert await slot == []
        assert await buffer.take_step() is None

    run_in_virtual_time(scenario())


def test_step_waits_for_its_own_last_group_although_later_ones_are_there() -> None:
    async def scenario() -> None:
        buffer = new_buffer()
        free_positions(buffer)
        fill(buffer, 0, 2, 3)
        waiting = asyncio.ensure_future(buffer.take_step())
        await asyncio.sleep(1e6)
        assert not waiting.done()
        fill(buffer, 1)
        assert positions_of(await waiting) == [0, 1]
        assert positions_of(await buffer.take_step()) == [2, 3]

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("waiter", ["wait_for_slots", "take_step"])
def test_close_wakes_whoever_waits_and_ends_both_streams(waiter: str) -> None:
    async def scenario() -> None:
        buffer = new_buffer()
        free_positions(buffer)
        waiting = asyncio.ensure_future(getattr(buffer, waiter)())
        await settle()
        assert not waiting.done()
        buffer.close()
        assert not await waiting
        fill(buffer, 0, 1)
        assert await buffer.take_step() is None
        assert await buffer.wait_for_slots() == []

    run_in_virtual_time(scenario())


def test_dropped_groups_are_counted_and_too_many_end_the_run_with_the_reason() -> None:
    async def scenario() -> None:
        buffer = new_buffer()
        free_positions(buffer)
        fill(buffer, 0)
        buffer.drop(1, "image does not decode")
        groups = await buffer.take_step()
        assert groups is not None
        assert (positions_of(groups), groups.dropped) == ([0], {1: "image does not decode"})
        buffer.drop(2, "image does not decode")
        buffer.drop(3, "prompt too long")
        with pytest.raises(DataError, match=r"step 1: 2 of 2 groups .*max_drop_frac=0.5; .*prompt too long"):
            await buffer.take_step()

    run_in_virtual_time(scenario())


BROKEN = {"rewards": (), "failures": ("chart: bad", "chart: bad"), "reasons": ("bad_gold",) * 2}
ONE_BROKEN = {"rewards": (0.1,), "failures": ("crash",), "reasons": ("ok", "grader_failed")}


def test_too_many_failed_graders_stop_the_run_with_their_most_common_causes() -> None:
    async def scenario() -> None:
        buffer = new_buffer()
        free_positions(buffer)
        fill(buffer, 0)
        buffer.add(ticket(1, **BROKEN))
        with pytest.raises(
            DataError, match=r"2 of 4 completions .*max_failed_frac=0.25: 2 x chart: bad.*allow_config_change=true"
        ):
            await buffer.take_step()

    run_in_virtual_time(scenario())


def test_a_few_failed_graders_are_let_through() -> None:
    async def scenario() -> None:
        buffer = new_buffer()
        free_positions(buffer)
        buffer.add(ticket(0, **ONE_BROKEN))
        fill(buffer, 1)
        assert positions_of(await buffer.take_step()) == [0, 1]

    run_in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("oversampling", "groups_per_step", "num_replaced"),
    [(1.0, 10, 0), (1.1, 10, 1), (1.2, 10, 2), (1.4, 10, 4), (1.15, 100, 15), (1.25, 2, 0), (1.5, 2, 1), (3.0, 2, 4)],
)
def test_step_uses_up_at_most_oversampling_times_its_groups(
    oversampling: float, groups_per_step: int, num_replaced: int
) -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=0, oversampling=oversampling, groups_per_step=groups_per_step)
        while fresh := free_positions(buffer):
            for position in fresh:
                buffer.add(ticket_without_signal(position))
        groups = await buffer.take_step()
        assert groups is not None
        assert [t.position for t in groups.replaced] == list(range(num_replaced))
        assert positions_of(groups) == list(range(num_replaced, num_replaced + groups_per_step))

    run_in_virtual_time(scenario())


def test_groups_without_signal_are_taken_as_they_come_unless_oversampling_replaces_them() -> None:
    async def scenario() -> None:
        for oversampling, expected in ((1.0, [0, 1]), (2.0, [1, 2])):
            buffer = new_buffer(max_staleness=0, oversampling=oversampling)
            free_positions(buffer)
            slot = asyncio.ensure_future(buffer.wait_for_slots())
            await settle()
            buffer.add(ticket_without_signal(0))
            fill(buffer, 1)
            await settle()
            assert slot.done() == (oversampling > 1.0)
            fill(buffer, *(slot.result() if slot.done() else []))
            assert positions_of(await buffer.take_step()) == expected
            slot.cancel()

    run_in_virtual_time(scenario())


def test_replacements_of_a_synchronous_step_begin_together_when_all_others_have_arrived() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=0, groups_per_step=3, oversampling=2.0)
        assert free_positions(buffer) == [0, 1, 2]
        slots = asyncio.ensure_future(buffer.wait_for_slots())
        buffer.add(ticket_without_signal(0))
        buffer.add(ticket_without_signal(2))
        await settle()
        assert not slots.done()
        fill(buffer, 1)
        assert await slots == [3, 4]

    run_in_virtual_time(scenario())


def test_dropped_groups_are_replaced_too_and_still_counted() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=0, oversampling=1.5)
        free_positions(buffer)
        buffer.drop(0, "image does not decode")
        buffer.add(ticket_without_signal(1))  # beyond the bound: it fills the step
        assert free_positions(buffer) == [2]
        fill(buffer, 2)
        groups = await buffer.take_step()
        assert groups is not None
        assert (positions_of(groups), groups.replaced) == ([1, 2], ())
        assert groups.dropped == {0: "image does not decode"}

    run_in_virtual_time(scenario())


def test_buffer_whose_groups_never_come_is_stuck_without_a_deadline() -> None:
    """The clock of these tests tells waiting for ever from waiting long."""

    async def scenario() -> None:
        buffer = new_buffer()
        free_positions(buffer)
        await buffer.take_step()

    with pytest.raises(DeadlockError):
        run_in_virtual_time(scenario())
