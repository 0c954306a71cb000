"""The buffer's one budget: who may start, what a step waits for, what happens to what is dropped."""

import asyncio
import dataclasses

import pytest

from orchestration.buffer import GroupBuffer
from orchestration.errors import DataError
from orchestration.tickets import GroupSummary, GroupTicket

SUMMARY = GroupSummary(
    family="chart",
    source="plots",
    rewards=(0.1, 1.0),
    task_rewards=(0.0, 1.0),
    format_rewards=(1.0, 1.0),
    num_prompt_tokens=20,
    num_completion_tokens=16,
    num_truncated=0,
    failures=(),
    reasons=("ok", "ok"),
    weight_version=0,
    rollout_s=0.1,
    score_s=0.01,
)


def ticket(position: int) -> GroupTicket:
    return GroupTicket(position=position, group_id=f"0-{position}", payload=None, summary=SUMMARY)


def new_buffer(*, max_staleness: int, first_step: int = 0, num_steps: int = 5) -> GroupBuffer:
    return GroupBuffer(
        groups_per_step=2,
        max_staleness=max_staleness,
        first_step=first_step,
        num_steps=num_steps,
        max_drop_frac=0.5,
        max_failed_frac=0.25,
    )


async def free_positions(buffer: GroupBuffer) -> list[int | None]:
    """Take positions until the buffer makes the caller wait or ends the stream."""
    taken: list[int | None] = []
    while True:
        task = asyncio.ensure_future(buffer.wait_for_slot())
        for _ in range(5):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            return taken
        taken.append(task.result())
        if taken[-1] is None:
            return taken


@pytest.mark.parametrize(("max_staleness", "expected"), [(0, [0, 1]), (1, [0, 1, 2, 3]), (2, [0, 1, 2, 3, 4, 5])])
def test_budget_is_one_step_more_than_the_staleness(max_staleness: int, expected: list[int]) -> None:
    assert asyncio.run(free_positions(new_buffer(max_staleness=max_staleness))) == expected


def test_slots_come_back_only_when_new_weights_are_live() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=0)
        assert await free_positions(buffer) == [0, 1]
        await buffer.add(ticket(1))
        await buffer.add(ticket(0))
        assert [t.position for t in await buffer.take_step(0)] == [0, 1]
        assert await free_positions(buffer) == []
        await buffer.advance(1)
        assert await free_positions(buffer) == [2, 3]

    asyncio.run(scenario())


def test_stream_ends_after_the_last_step_and_starts_where_a_run_resumes() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=3, first_step=4)
        assert await free_positions(buffer) == [8, 9, None]

    asyncio.run(scenario())


def test_step_waits_for_its_own_last_group_although_later_ones_are_there() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=1)
        for position in (0, 2, 3):
            await buffer.add(ticket(position))
        waiting = asyncio.ensure_future(buffer.take_step(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await buffer.add(ticket(1))
        assert [t.position for t in await waiting] == [0, 1]

    asyncio.run(scenario())


def test_dropped_groups_are_counted_and_too_many_end_the_run_with_the_reason() -> None:
    async def scenario() -> None:
        buffer = new_buffer(max_staleness=1)
        await buffer.add(ticket(0))
        await buffer.drop(1, "image does not decode")
        assert [t.position for t in await buffer.take_step(0)] == [0]
        assert buffer.num_dropped == 1
        await buffer.drop(2, "image does not decode")
        await buffer.drop(3, "prompt too long")
        with pytest.raises(DataError, match=r"2 of 2 groups.*prompt too long"):
            await buffer.take_step(1)

    asyncio.run(scenario())


def test_too_many_failed_graders_stop_the_run_with_their_most_common_causes() -> None:
    async def run() -> None:
        buffer = new_buffer(max_staleness=0)
        await free_positions(buffer)
        broken = dataclasses.replace(
            SUMMARY, rewards=(), failures=("chart: bad", "chart: bad"), reasons=("bad_gold",) * 2
        )
        await buffer.add(ticket(0))
        await buffer.add(dataclasses.replace(ticket(1), summary=broken))
        with pytest.raises(DataError, match=r"2 of 4 completions .*max_failed_frac=0.25: 2 x chart: bad"):
            await buffer.take_step(0)

    asyncio.run(run())


def test_a_few_failed_graders_are_let_through() -> None:
    async def run() -> None:
        buffer = new_buffer(max_staleness=0)
        await free_positions(buffer)
        one = dataclasses.replace(SUMMARY, rewards=(0.1,), failures=("crash",), reasons=("ok", "grader_failed"))
        await buffer.add(dataclasses.replace(ticket(0), summary=one))
        await buffer.add(ticket(1))
        assert len(await buffer.take_step(0)) == 2

    asyncio.run(run())
