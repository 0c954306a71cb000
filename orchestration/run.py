"""Run: everything a training run holds, from its folder to its actors; built once, closed once."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from statistics import fmean

from orchestration.buffer import GroupBuffer, GroupTicket
from orchestration.checkpoints import Checkpoints, config_digest, newest_step, store_of
from orchestration.cluster import ClusterPlan
from orchestration.config import ExperimentConfig
from orchestration.errors import ResumeError
from orchestration.evaluation.collect import Questioning
from orchestration.evaluation.held_out import choose_samples, evaluate
from orchestration.inputs import Inputs
from orchestration.pools.generators import GeneratorPool
from orchestration.pools.learner import start_learner
from orchestration.pools.rewards import start_reward_pool
from orchestration.seeds import derive_seed
from orchestration.state import RunFolder, write_json
from orchestration.tracking import Tracker
from orchestration.weight_sync import WeightSync
from rollout.dataset import SampleTable
from rollout.prompt_stream import PromptDraw, PromptStream
from rollout.records import Sample, SamplingSpec

Say = Callable[[str], None]


class Run:
    """A training run and its actors.

    Life: constructed (actors start in the background) -> `start` -> `loop.train` -> `finish` -> `close`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        inputs: Inputs,
        plan: ClusterPlan,
        say: Say,
    ) -> None:
        """Open the data and start all actors; nothing is waited for."""
        self.config = config
        self.folder = RunFolder(config.run_path)
        self.num_steps = config.training.num_steps
        self._say = say
        logs = self.folder.logs
        self.generators = GeneratorPool(config.rollout, inputs.model, plan.engines, logs)
        self.learner = start_learner(config, inputs.model, plan.learner_ranks, logs)
        self.checkpoints = Checkpoints(
            store_of(self.folder),
            self.learner,
            keep_last=config.training.keep_last,
            keep_best=config.training.keep_best,
            say=say,
        )
        self._checkpoint = self.checkpoints.latest()
        self.step = self._checkpoint.step if self._checkpoint else 0
        self.prompts = PromptStream(
            SampleTable(inputs.train),
            seed=derive_seed(config.seed, "prompts"),
            groups_per_step=config.training.groups_per_step,
            max_staleness=config.training.max_staleness,
            config=config.data.stream,
        )
        if self._checkpoint:
            self.prompts.load_state_dict(self._checkpoint.extra.get("prompts", {}))
        self._held_out = SampleTable(inputs.held_out)
        self.rewards = start_reward_pool(config, inputs.model, plan.rewards, logs)
        self.weight_sync = WeightSync(
            self.generators,
            self.learner,
            check_every=config.training.weight_check_every,
            max_mismatch=config.training.max_mismatch,
        )
        self.tracker = Tracker(self.folder, self.prompts, first_step=self.step, tensorboard=config.tensorboard, say=say)

    async def start(self) -> None:
        """Wait for the actors, restore the latest checkpoint, publish its weights, score the untrained model."""
        started = time.perf_counter()
        self._say("starting engines, reward actors and learner ranks ...")
        await asyncio.gather(
            self.generators.ready(),
            self.rewards.ready(),
            self.learner.build(derive_seed(self.config.seed, "learner")),
        )
        await self.learner.connect(self.generators, self.config.rollout)
        if self._checkpoint:
            await self.learner.load(self.checkpoints.store, self._checkpoint.step)
            self._say(f"resumed {self._checkpoint.name}: {self.step} of {self.num_steps} steps are done")
        sync = await self.weight_sync.publish(self.step)
        self._say(
            f"ready after {time.perf_counter() - started:.0f} s; weights published in {sync.transfer_s:.2f} s, "
            f"{sync.num_compared} engine tensors equal the learner's"
        )
        if self.step == 0:
            await self._evaluate("before")

    async def finish(self) -> None:
        """Keep the final weights: checkpoint, Hugging Face folder, held-out scores."""
        await self.checkpoints.settle()
        if (newest_step(self.checkpoints.store) or 0) < self.step:
            await self.save_checkpoint()
            await self.checkpoints.settle()
        await self._evaluate("after")
        await self.learner.export(self.folder.export)

    async def close(self) -> None:
        """Close files and end the engines' processes."""
        self.tracker.__exit__(None, None, None)
        self.rewards.close()
        await self.generators.close()

    def new_buffer(self) -> GroupBuffer:
        """A buffer that begins at the run's current step."""
        training = self.config.training
        return GroupBuffer(
            groups_per_step=training.groups_per_step,
            max_staleness=training.max_staleness,
            first_step=self.step,
            num_steps=self.num_steps,
            max_drop_frac=training.max_drop_frac,
            max_failed_frac=training.max_failed_frac,
        )

    def sampling_spec(self, draw: PromptDraw) -> SamplingSpec:
        """How the group of one draw is sampled; the seed names (run, epoch, sample), the engine adds the index."""
        sampling = self.config.rollout.sampling
        return SamplingSpec(
            group_size=sampling.group_size,
            temperature=sampling.temperature,
            max_completion_tokens=sampling.max_completion_tokens,
            seed=derive_seed(self.config.seed, "rollout", draw.epoch, draw.sample.sample_id),
        )

    def probe(self, tickets: Sequence[GroupTicket]) -> tuple[GroupTicket, Sample] | None:
        """One group on which engine and learner are compared after the sync; another position every step."""
        if not tickets:
            return None
        ticket = tickets[self.step % len(tickets)]
        return ticket, self.prompts.draw(ticket.position).sample

    def observe(self, step: int, tickets: Sequence[GroupTicket]) -> None:
        """Tell the prompt stream how hard the prompts of a step were; an adaptive curriculum follows it."""
        graded = [ticket for ticket in tickets if ticket.summary.task_rewards]
        self.prompts.observe(step, [(ticket.position, fmean(ticket.summary.task_rewards)) for ticket in graded])

    def counts(self, buffer: GroupBuffer) -> dict[str, float]:
        """What went wrong so far in this process, as metrics."""
        return {
            "rollout/num_dropped": float(buffer.num_dropped),
            "reward/num_actor_restarts": float(self.rewards.num_restarts),
        }

    def is_recorded(self, position: int) -> bool:
        """Whether the completions of this position go to samples.jsonl."""
        training = self.config.training
        return position % training.groups_per_step < training.recorded_groups_per_step

    def is_checkpoint_due(self) -> bool:
        """Every k steps, and after the last one."""
        return self.step % self.config.training.checkpoint_every == 0 or self.step == self.num_steps

    async def save_checkpoint(self) -> None:
        """Begin one; training goes on once it is staged, and the previous ones stay until it is whole."""
        await self.checkpoints.begin(
            self.step,
            extra={"prompts": self.prompts.state_dict(self.step), "config_digest": config_digest(self.config)},
        )

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


def check_finished(folder: RunFolder, num_steps: int) -> bool:
    """Whether the run needs nothing more: all steps done, model exported.

    Raises:
        ResumeError: the folder holds more steps than are asked for.
    """
    step = newest_step(store_of(folder))
    if step is None:
        return False
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
