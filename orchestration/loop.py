"""The training run on one screen: prompts -> groups -> rewards -> one optimiser step -> new weights."""

import asyncio
import time
from typing import TYPE_CHECKING

from orchestration.buffer import GroupBuffer, GroupTicket
from orchestration.errors import ScoringError
from rollout.errors import RolloutError

if TYPE_CHECKING:
    from orchestration.run import Run


async def train(run: "Run") -> None:
    """Train from the run's current step to its last.

    Rollout of later steps goes on while the learner works on the current one, as far as `max_staleness` allows.
    """
    buffer = run.new_buffer()
    async with asyncio.TaskGroup() as tasks:
        rollout = tasks.create_task(roll_out(run, buffer))
        for step in range(run.step, run.num_steps):
            started = time.perf_counter()
            tickets = await buffer.take_step(step)
            taken = time.perf_counter()

            report = await run.learner.train_step(step, tickets)
            trained = time.perf_counter()

            sync = await run.weight_sync.publish(step + 1, probe=run.probe(tickets))
            run.observe(step, tickets)
            await buffer.advance(step + 1)
            synced = time.perf_counter()

            run.step = step + 1
            seconds = {"wait_rollout": taken - started, "train": trained - taken, "sync": synced - trained}
            run.tracker.log_step(step, tickets, report, sync, seconds, counts=run.counts(buffer))
            if run.is_checkpoint_due():
                await run.save_checkpoint()
        await rollout


async def roll_out(run: "Run", buffer: GroupBuffer) -> None:
    """Fill every free slot of the buffer with a scored group.

    Consumes: positions of the prompt stream. Produces: tickets, or drops with a reason.
    Waits for: a slot within the staleness budget. Woken by: `buffer.advance`.
    """
    async with asyncio.TaskGroup() as groups:
        while (position := await buffer.wait_for_slot()) is not None:
            groups.create_task(fill_slot(run, buffer, position))


async def fill_slot(run: "Run", buffer: GroupBuffer, position: int) -> None:
    """One prompt's way from its row to a scored group; what cannot be one is dropped with its reason."""
    draw = run.prompts.draw(position)
    group_id = f"{draw.epoch}-{position}"
    try:
        group = await run.generators.generate_group(group_id, draw.sample, run.sampling_spec(draw))
        payload, summary = await run.rewards.score(group, keep_texts=run.is_recorded(position))
    except (RolloutError, ScoringError) as error:
        await buffer.drop(position, str(error))
        return
    await buffer.add(GroupTicket(position=position, group_id=group_id, payload=payload, summary=summary))
