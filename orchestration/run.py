"""Run: everything a training run holds, from its folder to its actors; built once, closed once."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean

from learner.checkpoint import latest_complete, read_extra
from learner.errors import CheckpointError
from orchestration.buffer import GroupBuffer, Progress
from orchestration.cluster import ClusterPlan
from orchestration.config import ExperimentConfig
from orchestration.dispatch import Seat
from orchestration.errors import LearnerLostError, ResumeError, StoppedError
from orchestration.evaluation.collect import Questioning
from orchestration.evaluation.held_out import choose_samples, evaluate
from orchestration.faults import FaultLog, Role
from orchestration.inputs import Inputs
from orchestration.pools.generators import start_generators
from orchestration.pools.learner import start_learner
from orchestration.pools.rewards import start_reward_pool
from orchestration.seeds import derive_seed
from orchestration.state import RunFolder, write_json
from orchestration.tickets import StepGroups
from orchestration.tracking import Tracker
from orchestration.weight_sync import WeightSync
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.prompt_stream import PromptDraw, PromptStream
from rollout.records import SamplingSpec

Say = Callable[[str], None]


class Run:
    """A training run and its actors.

    Life: constructed -> `start` -> `loop.train` -> `finish` -> `close`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        inputs: Inputs,
        plan: ClusterPlan,
        say: Say,
    ) -> None:
        """Open the data and settle how actors are made; none is started."""
        self.config = config
        self.folder = RunFolder(config.run_path)
        self._say = say
        self._held_out = SampleTable(inputs.held_out)
        self._train_table = SampleTable(inputs.train)
        self._restore_position()
        self.faults = FaultLog(config.cluster.faults, self.folder.faults)
        logs, limits = self.folder.logs, config.cluster.faults
        self.generators = start_generators(
            config.rollout, inputs.model, plan.engines, logs, faults=limits, log=self.faults
        )
        self.learner = start_learner(config, inputs.model, plan.learner_ranks, logs)
        self.rewards = start_reward_pool(config, inputs.model, plan.rewards, logs, self.faults)
        self.weight_sync = WeightSync(
            self.generators,
            self.learner,
            config=config.rollout,
            log=self.faults,
            check_every=config.training.weight_check_every,
            max_mismatch=config.training.max_mismatch,
        )
        self.tracker = Tracker(self.folder, self.prompts, first_step=self.step, tensorboard=config.tensorboard, say=say)
        self._buffer: GroupBuffer | None = None
        self._num_batches = 0
        self._stop_reason: str | None = None
        self._learner_is_lost = False
        self._ends_at = allocation_end(config.training.time_limit_s)

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.progress.step

    @property
    def is_over(self) -> bool:
        """Whether no further step is to be taken."""
        return self._stop_reason is not None or self.step >= self.config.training.num_steps

    async def start(self) -> None:
        """Start the actors, restore the latest checkpoint, publish its weights, score the untrained model."""
        clock = asyncio.get_running_loop().time
        started = clock()
        self._say("starting engines, reward actors and learner ranks ...")
        await asyncio.gather(
            self.generators.ready(self.weight_sync.admit), self.rewards.ready(), self.learner.build(self._learner_seed)
        )
        await self._load_checkpoint()
        sync = await self.weight_sync.publish(self.step)
        self._say(
            f"ready after {clock() - started:.0f} s; weights published in {sync.transfer_s:.2f} s, "
            f"{sync.num_compared} engine tensors equal the learner's"
        )
        if self.step == 0:
            await self._evaluate("before")

    async def finish(self) -> None:
        """Keep the final weights: checkpoint, Hugging Face folder, held-out scores.

        Raises:
            StoppedError: the run was asked to leave; a checkpoint of all steps done is saved.
        """
        if self._checkpoint_step < self.step:
            await self._save_checkpoint()
        if self._stop_reason is not None:
            raise StoppedError(
                f"{self._stop_reason}: step {self.step} of {self.config.training.num_steps} is saved in "
                f"{self.folder.checkpoints}; the same command continues"
            )
        await self._evaluate("after")
        await self.learner.export(self.folder.export)

    async def rescue(self) -> None:
        """Save what is done, if the learner still lives, before the run ends with an error."""
        if self._learner_is_lost or self._checkpoint_step >= self.step:
            return
        try:
            await self._save_checkpoint()
        except (LearnerLostError, CheckpointError) as error:
            self._say(f"step {self.step} could not be saved: {error}")
        else:
            self._say(f"step {self.step} is saved in {self.folder.checkpoints}; the same command continues")

    async def close(self) -> None:
        """Close files and end the actors."""
        self.tracker.__exit__(None, None, None)
        self.rewards.close()
        await self.generators.close()
        await self.learner.close()

    def request_stop(self, reason: str) -> None:
        """Leave after the step that is being trained; `finish` saves a checkpoint first."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._say(f"{reason}: saving a checkpoint after the current step, then leaving ...")
        if self._buffer is not None:
            self._buffer.close()

    def lose_learner(self, error: BaseException) -> None:
        """Note that the learner is gone.

        Raises:
            InfrastructureError: too often within the window.
        """
        self._learner_is_lost = True
        self._say(f"step {self.step + 1}: {error}; it is built again from the last checkpoint ...")
        self.faults.record(Role.LEARNER, 0, str(error))

    def lose_payloads(self, group_ids: Sequence[str], cause: str) -> None:
        """Note that groups vanished between two actors; they are sampled again.

        Raises:
            InfrastructureError: too often within the window.
        """
        self.faults.record(Role.TRANSFER, 0, f"groups {', '.join(group_ids[:8])}: {cause}")

    async def recover(self) -> None:
        """Build a lost learner again and go back to the last checkpoint; nothing to do while it lives."""
        if not self._learner_is_lost:
            return
        self._restore_position()
        self.tracker.rewind(self.prompts, first_step=self.step)
        await self.learner.rebuild(self._learner_seed)
        await self._load_checkpoint()
        await self.weight_sync.publish(self.step)
        self._learner_is_lost = False

    def new_buffer(self) -> GroupBuffer:
        """A buffer that goes on where the run stands."""
        self._buffer = GroupBuffer(
            self.config.training, range_epsilon=self.config.algorithm.range_epsilon, start=self.progress
        )
        return self._buffer

    async def conclude(self, progress: Progress) -> None:
        """Count a step as done; evaluate and save where that is due, and leave when the allocation ends."""
        self.progress = progress
        every = self.config.evaluation.every_steps
        if every is not None and self.step % every == 0 and not self.is_over:
            await self._evaluate(f"step_{self.step:08d}")
        if self.step % self.config.training.checkpoint_every == 0 or self.step == self.config.training.num_steps:
            await self._save_checkpoint()
        if self._ends_at is not None and time.time() > self._ends_at - self.config.training.checkpoint_before_s:
            self.request_stop(f"{self.config.training.checkpoint_before_s:g} s before the allocation ends")

    def sampling_spec(self, draw: PromptDraw) -> SamplingSpec:
        """How the group of one draw is sampled; the seed names (run, epoch, sample), the engine adds the index."""
        sampling = self.config.rollout.sampling
        return SamplingSpec(
            group_size=sampling.group_size,
            temperature=sampling.temperature,
            max_completion_tokens=sampling.max_completion_tokens,
            seed=derive_seed(self.config.seed, "rollout", draw.epoch, draw.sample.sample_id),
        )

    def urgency(self, position: int) -> int:
        """Groups of earlier steps go first."""
        return position // self.config.training.groups_per_step

    def seats(self, positions: Sequence[int]) -> dict[int, Seat]:
        """Places in one batch an engine for the groups of a synchronous run; then its completions are reproducible."""
        if self.config.training.max_staleness > 0:
            return {}
        samples = {}
        for position in positions:
            with suppress(RolloutError):  # it is dropped, with this reason, when it is drawn again
                samples[position] = self.prompts.draw(position).sample
        self._num_batches += 1
        return self.generators.seats(str(self._num_batches), samples, self.config.rollout.sampling.group_size)

    async def compare(self, groups: StepGroups) -> float | None:
        """Mean logprob difference of engines and learner on one completion of the step; another group every step."""
        if not groups.tickets:
            return None
        ticket = groups.tickets[groups.step % len(groups.tickets)]
        return await self.weight_sync.mismatch(ticket, self.prompts.draw(ticket.position).sample)

    def observe(self, groups: StepGroups) -> None:
        """Tell how long and how hard a step's prompts were: dispatch and an adaptive curriculum follow it."""
        graded = [ticket for ticket in groups.tickets if ticket.summary.task_rewards]
        outcomes = [(ticket.position, fmean(ticket.summary.task_rewards)) for ticket in graded]
        self.prompts.observe(groups.step, outcomes)
        self.generators.lengths.observe(ticket.summary for ticket in (*groups.tickets, *groups.replaced))

    def counts(self) -> dict[str, float]:
        """What went wrong so far in this process, as metrics."""
        return {**self.faults.counts(), "faults/groups_repeated": float(self.generators.num_repeated)}

    def is_recorded(self, position: int) -> bool:
        """Whether the completions of this position go to samples.jsonl."""
        training = self.config.training
        return position % training.groups_per_step < training.recorded_groups_per_step

    @property
    def _learner_seed(self) -> int:
        return derive_seed(self.config.seed, "learner")

    def _restore_position(self) -> None:
        """Stand where the latest checkpoint left the prompt stream, or at its beginning."""
        self._checkpoint = latest_complete(self.folder.checkpoints)
        extra = read_extra(self._checkpoint) if self._checkpoint else {}
        self._checkpoint_step = int(extra.get("step", 0))
        self.progress = Progress.from_json(extra["progress"]) if extra else Progress(step=0, next_position=0)
        training = self.config.training
        self.prompts = PromptStream(
            self._train_table,
            seed=derive_seed(self.config.seed, "prompts"),
            groups_per_step=training.groups_per_step,
            max_staleness=training.max_staleness,
            config=self.config.data.stream,
        )
        if extra:
            self.prompts.load_state_dict(extra["prompts"])
        self._lengths = extra.get("lengths", {})

    async def _load_checkpoint(self) -> None:
        self.generators.lengths.load_state_dict(self._lengths)
        if self._checkpoint:
            await self.learner.load(self._checkpoint)
            self._say(
                f"resumed {self._checkpoint.name}: {self.step} of {self.config.training.num_steps} steps are done"
            )

    async def _save_checkpoint(self) -> None:
        """Write one; the previous ones stay until it is whole."""
        await self.learner.save(
            self.folder.checkpoints,
            step=self.step,
            extra={
                "step": self.step,
                "progress": self.progress.to_json(),
                "prompts": self.prompts.state_dict(self.step),
                "lengths": self.generators.lengths.state_dict(),
            },
            keep_last=self.config.training.keep_last,
        )
        self._checkpoint_step = self.step

    async def _evaluate(self, name: str) -> None:
        settings = self.config.evaluation
        if not settings.enabled:
            return
        pairs = set(self._held_out.tasks_and_sources())
        function_of = {pair: self.config.reward.route(*pair).function for pair in pairs}
        sampling = self.config.rollout.sampling
        self._say(f"scoring held-out samples {name} training ...")
        result = await evaluate(
            choose_samples(self._held_out, function_of, settings.samples_per_family),
            generators=self.generators,
            rewards=self.rewards,
            questioning=Questioning(
                greedy=True,
                sampled=SamplingSpec(
                    group_size=settings.completions_per_sample,
                    temperature=sampling.temperature,
                    max_completion_tokens=sampling.max_completion_tokens,
                ),
                max_completion_tokens=sampling.max_completion_tokens,
                seed=self.config.seed,
                coord_mode=self.config.model.coord_mode,
            ),
            function_of=function_of,
            step=self.step,
        )
        write_json(self.folder.evaluation(name), result.to_json())


def allocation_end(time_limit_s: float | None) -> float | None:
    """Seconds since the epoch at which the machines are taken away; None where nothing says so."""
    if time_limit_s is not None:
        return time.time() + time_limit_s
    slurm = os.environ.get("SLURM_JOB_END_TIME")
    return float(slurm) if slurm else None


def check_finished(folder: RunFolder, num_steps: int) -> bool:
    """Whether the run needs nothing more: all steps done, model exported.

    Raises:
        ResumeError: the folder holds more steps than are asked for.
    """
    latest = latest_complete(folder.checkpoints)
    if latest is None:
        return False
    step = int(read_extra(latest)["step"])
    if step > num_steps:
        raise ResumeError(
            f"{folder.root} is at step {step}, beyond training.num_steps={num_steps}; raise num_steps or use another "
            "run_dir"
        )
    return step == num_steps and (folder.export / "config.json").is_file()


def read_evaluation(folder: RunFolder, name: str) -> dict[str, dict[str, float]]:
    """Scores by reward function that `_evaluate` wrote; empty when there are none."""
    path = folder.evaluation(name)
    return json.loads(path.read_text())["families"] if path.is_file() else {}
