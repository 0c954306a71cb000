"""Where a run stands, and that one which stops and goes on uses up every position once."""

import asyncio
import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.settings.experiment import TrainingConfig
from orchestration.train.buffer import GroupBuffer, Progress
from tests.unit.train.buffer_driver import BEGINNING, fill, free_positions, new_buffer, positions_of
from tests.unit.train.run_records import ticket, ticket_without_signal, training
from tests.unit.train.virtual_time import run_in_virtual_time


def test_progress_names_what_no_step_has_used_up_and_travels_as_json() -> None:
    async def scenario() -> None:
        buffer = new_buffer(Progress(step=1, next_position=7, again=(5, 2)))
        assert free_positions(buffer) == [2, 5, 7, 8]
        fill(buffer, 2, 5, 8)
        await buffer.take_step()
        progress = buffer.progress()
        assert progress == Progress(step=2, next_position=9, again=(7, 8))
        assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress

    run_in_virtual_time(scenario())


async def play(config: TrainingConfig, stands: list[Progress], order: Random, num_steps: int, used: list[int]) -> None:
    """Take some steps, groups coming back in any order; tells the positions used up, and where the run then stands."""
    start = stands[-1]
    buffer = GroupBuffer(config, range_epsilon=1e-6, start=start)
    pending: set[int] = set()
    begun_at: dict[int, int] = {}
    for step in range(start.step, start.step + num_steps):
        taking = asyncio.ensure_future(buffer.take_step())
        while not taking.done():
            for position in free_positions(buffer):
                begun_at[position] = step
                pending.add(position)
            if pending and order.random() < 0.7:
                position = order.choice(sorted(pending))
                pending.remove(position)
                what = order.choice(["add", "add", "idle", "drop"])
                if what == "drop":
                    buffer.drop(position, "no reason")
                else:
                    buffer.add(ticket(position) if what == "add" else ticket_without_signal(position))
            await asyncio.sleep(order.choice([0.0, 1.0]))
        groups = taking.result()
        assert groups is not None
        assert groups.step == step
        mine = [*positions_of(groups), *(t.position for t in groups.replaced), *groups.dropped]
        assert all(step - begun_at[position] <= config.max_staleness for position in mine)
        assert len(mine) <= config.oversampling * config.groups_per_step
        used += mine
        buffer.advance(step + 1)
    stands.append(buffer.progress())


@given(
    groups_per_step=st.integers(1, 4),
    ahead=st.integers(0, 2),
    spare=st.integers(0, 2),
    oversampling=st.sampled_from([1.0, 1.5, 3.0]),
    sittings=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_however_often_a_run_is_resumed_its_steps_use_up_every_position_once(
    groups_per_step: int, ahead: int, spare: int, oversampling: float, sittings: list[int], seed: int
) -> None:
    config = training(
        num_steps=sum(sittings) + 3,
        groups_per_step=groups_per_step,
        max_staleness=ahead + spare,
        run_ahead=ahead,
        straggler_deadline_s=1.5 if spare else None,
        oversampling=oversampling,
        max_drop_frac=1.0,
    )
    used: list[int] = []
    stands = [BEGINNING]
    for num_steps in sittings:
        run_in_virtual_time(play(config, stands, Random(seed + len(used)), num_steps, used))
        assert sorted([*used, *stands[-1].again]) == list(range(stands[-1].next_position))
    assert stands[-1].step == sum(sittings)
