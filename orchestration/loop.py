"""The training loop: prompts -> groups of completions -> rewards -> one training step -> new weights."""

import asyncio
from typing import TYPE_CHECKING

from orchestration.settings.errors import LearnerLostError, PayloadLostError, ScoringError
from orchestration.train.buffer import GroupBuffer
from orchestration.workers.dispatch import BatchSlot
from orchestration.workers.tickets import GroupTicket, StepGroups
from rollout.errors import RolloutError

if TYPE_CHECKING:
    from orchestration.train.run import Run


async def train_and_finish(run: "Run") -> None:
    """Train, then save the final weights and scores; a learner lost during that restarts from a checkpoint."""
    while True:
        await train(run)
        try:
            return await run.finish()
        except LearnerLostError as error:
            run.lose_learner(error)


async def train(run: "Run") -> None:
    """Train from the run's current step to its last, or until it is asked to stop.

    A lost learner is built again, and training continues from the last checkpoint.
    """
    while not run.is_over:
        try:
            await run.recover()
            if not run.is_over:  # it may have been asked to stop meanwhile
                await take_steps(run)
        except* LearnerLostError as lost:
            run.lose_learner(lost.exceptions[0])


async def take_steps(run: "Run") -> None:
    """Take one training step after the other.

    Rollout of later steps continues while the learner works on the current one, as far as `max_staleness` allows.
    """
    buffer = run.new_buffer()
    clock = asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as tasks:
        rolling_out = tasks.create_task(roll_out(run, buffer))
        started = clock()
        while (groups := await run.learner.or_learner_lost(buffer.take_step())) is not None:
            groups = await fetch(run, groups)
            taken = clock()

            await run.turns.to_learner()
            report = await run.train_step(groups)
            probe = await run.probe_logprobs(groups)
            trained = clock()

            sync = await run.weight_sync.publish(groups.step + 1)
            comparing = tasks.create_task(run.check_mismatch(groups, probe))
            if run.is_synchronous:
                await comparing  # engines sample nothing else meanwhile
            buffer.advance(groups.step + 1)
            mismatch = await comparing
            synced = clock()

            seconds = {"wait_rollout": taken - started, "train": trained - taken, "sync": synced - trained}
            run.record.log_step(groups, report, sync, mismatch, seconds, counts=run.counts())
            await run.end_step(buffer.progress(), step_s=synced - started)
            started = clock()
        rolling_out.cancel()  # a run that stops early does not wait for groups of later steps


async def roll_out(run: "Run", buffer: GroupBuffer) -> None:
    """Fill every free slot of the buffer with a scored group.

    Consumes: positions of the prompt stream. Produces: tickets, or drops with a reason.
    Waits for: a slot within the staleness budget. Woken by: `buffer.advance`, and groups that do not count.
    """
    async with asyncio.TaskGroup() as groups:
        while positions := await buffer.wait_for_slots():
            await run.draws.read(positions)
            slots = run.assign_batch(positions)
            for position in positions:
                groups.create_task(fill_slot(run, buffer, position, slots.get(position)))


async def fill_slot(run: "Run", buffer: GroupBuffer, position: int, slot: BatchSlot | None) -> None:
    """Put the group of one position into the buffer, or the reason why there is none."""
    match await sample_group(run, position, slot):
        case GroupTicket() as ticket:
            buffer.add(ticket)
        case str(reason):
            buffer.drop(position, reason)


async def sample_group(run: "Run", position: int, slot: BatchSlot | None = None) -> GroupTicket | str:
    """Sample and score the group of one position, whose row `draws.read` has read; repeated where it is lost.

    Returns:
        The ticket, or why the position has to be dropped.
    """
    try:
        draw = run.draws.at(position)
        group_id = f"{draw.epoch}-{position}"
        spec = run.draws.sampling_spec(draw)
        while True:
            try:
                urgency = run.draws.urgency(position)
                group = await run.engines.generate_group(group_id, draw.sample, spec, urgency=urgency, slot=slot)
                payload, summary = await run.rewards.score(group, keep_texts=run.draws.is_recorded(position))
                break
            except PayloadLostError as error:
                run.lose_payloads([group_id], str(error))
                slot = None  # its batch has begun already
    except (RolloutError, ScoringError) as error:
        return str(error)
    sample_id = draw.sample.sample_id
    return GroupTicket(position=position, group_id=group_id, sample_id=sample_id, payload=payload, summary=summary)


async def fetch(run: "Run", groups: StepGroups) -> StepGroups:
    """Fetch a step's groups to the learner; those lost with a node are sampled again."""
    while lost := await run.learner.missing(groups.tickets):
        run.lose_payloads([str(position) for position in lost], "their tokens are on no node any more")
        await run.draws.read(lost)
        again = await asyncio.gather(*(sample_group(run, position) for position in lost))
        groups = groups.replace(dict(zip(lost, again, strict=True)))
    return groups
