"""Run: everything a training run holds, from its folder to its actors; built once, closed once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from learner.errors import LearnerError
from learner.records import StepReport
from orchestration.cluster.reservations import Reservations
from orchestration.inputs.prepare import Inputs
from orchestration.settings.errors import PayloadLostError, StoppedError
from orchestration.settings.experiment import ExperimentConfig, adapter_of
from orchestration.settings.seeds import derive_seed
from orchestration.storage.checkpoints import Checkpoints, store_of
from orchestration.storage.faults import FaultLog, Role
from orchestration.storage.run_folder import RunFolder
from orchestration.train.buffer import GroupBuffer, Progress
from orchestration.train.draws import Draws
from orchestration.train.held_out import Evaluation, HeldOut
from orchestration.train.known_trackers import trackers_of
from orchestration.train.run_state import Allocation, RunState
from orchestration.train.trackers import Outcome, Trackers
from orchestration.train.tracking import RunRecord
from orchestration.workers.dispatch import BatchSlot
from orchestration.workers.engine_pool import start_engines
from orchestration.workers.learner_group import start_learner
from orchestration.workers.reward_pool import start_reward_pool
from orchestration.workers.tickets import StepGroups
from orchestration.workers.turns import start_turns
from orchestration.workers.weight_sync import WeightSync
from rollout.dataset import SampleTable
from rollout.errors import RolloutError

Say = Callable[[str], None]


class Run:
    """A training run and its actors.

    Life: constructed -> `start` -> `loop.train` -> `finish` -> `close`.
    """

    def __init__(self, config: ExperimentConfig, *, inputs: Inputs, reservations: Reservations, say: Say) -> None:
        """Open the data and settle how actors are made; none is started."""
        self.config = config
        self.folder = RunFolder(config.run_path)
        self._say = say
        self.faults = FaultLog(config.cluster.faults, self.folder.faults)
        logs, limits = self.folder.logs, config.cluster.faults
        self.learner = start_learner(config, inputs.model, reservations, logs)
        self.engines = start_engines(
            config.rollout,
            inputs.model,
            reservations,
            logs,
            faults=limits,
            log=self.faults,
            learner=self.learner,
            adapter=adapter_of(config.learner),
        )
        self.rewards = start_reward_pool(config, inputs.model, reservations, logs, self.faults)
        training = config.training
        self.turns = start_turns(config, self.engines, self.learner, record=self.folder.turns)
        self.weight_sync = WeightSync(
            self.engines,
            self.learner,
            self.turns,
            config=config.rollout,
            log=self.faults,
            check_every=training.weight_check_every,
            max_mismatch=training.max_mismatch,
        )
        checkpoints = Checkpoints(
            store_of(self.folder),
            self.turns,
            keep_last=training.keep_last,
            keep_best=training.keep_best,
            say=say,
        )
        self._rows = SampleTable(inputs.train)
        self.draws = Draws(self._rows, config)
        self.state = RunState(
            config, checkpoints, draws=self.draws, lengths=self.engines.lengths, faults=self.faults, say=say
        )
        self._held_out = HeldOut(
            config,
            SampleTable(inputs.held_out),
            engines=self.engines,
            rewards=self.rewards,
            folder=self.folder,
            say=say,
        )
        self.record = RunRecord(
            self.folder,
            first_step=self.step,
            num_steps=config.training.num_steps,
            trackers=Trackers(
                trackers_of(config, self.folder, first_step=self.step),
                config.tracking,
                say=say,
                images_of=self._images_of,
            ),
            say=say,
        )
        self._allocation = Allocation(training.time_limit_s, training.checkpoint_before_s)
        self._buffer: GroupBuffer | None = None
        self._num_batches = 0
        self._stop_reason: str | None = None
        self._learner_is_lost = False
        self._newest_step: tuple[StepGroups, asyncio.Task[StepReport]] | None = None
        """The groups of the step that the learner is at, or was at last, and its report."""

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def is_over(self) -> bool:
        """Whether no further step is to be taken."""
        is_done = self.step >= self.config.training.num_steps and not self._learner_is_lost
        return self._stop_reason is not None or is_done

    @property
    def is_synchronous(self) -> bool:
        """Whether nothing is sampled but what the next step trains on, under the weights that it begins with."""
        return self.config.training.max_staleness == 0

    async def start(self) -> None:
        """Start the actors, restore the latest checkpoint, publish its weights, score the untrained model."""
        clock = asyncio.get_running_loop().time
        started = clock()
        self._say("starting engines, reward actors and learner ranks ...")
        engines, learner = partial(self.engines.ready, self.weight_sync.admit), self._build_learner
        if self.turns.is_shared:  # engines start after the ranks whose GPUs they share
            await asyncio.gather(self.rewards.ready(), learner())
            await engines()
            await self.turns.to_learner()
        else:
            await asyncio.gather(self.rewards.ready(), learner(), engines())
        sync = await self.weight_sync.publish(self.step)
        self._say(
            f"ready after {clock() - started:.0f} s; weights published in {sync.transfer_s:.2f} s, "
            f"{sync.num_compared} engine tensors equal the learner's"
        )
        if self.step == 0 and self.config.evaluation.enabled:
            await self._evaluate("before")

    async def finish(self) -> None:
        """Keep the final weights: checkpoint, Hugging Face folder, held-out scores.

        Raises:
            StoppedError: the run was asked to stop; all steps done are saved, or those up to the last checkpoint
                where the learner is lost.
        """
        if self._stop_reason is not None:
            await (self.state.go_back() if self._learner_is_lost else self.state.settle())
            raise StoppedError(f"{self._stop_reason}: {self.state}")
        await self.state.settle()
        if self.config.training.keep_best:
            for name, best in self.state.best().items():
                self._say(f"best by {name}: {best}")
        if self.config.evaluation.enabled:
            await self._evaluate("after")
        await self.turns.to_learner()
        for method, folder in self.folder.export_folders(self.config.learner.lora).items():
            await self.learner.on_each(method, folder)

    async def rescue(self) -> None:
        """Save before the run ends with an error, if the learner is alive and between two steps.

        A step that the learner is at is waited for. After a step that failed in the learner nothing is saved, because
        some of its updates may have been applied, unless it was a group that the only update could not use.
        """
        algorithm = self.config.algorithm
        try:
            if self._newest_step is not None:
                await asyncio.wait([self._newest_step[1]])
                failure = self._newest_step[1].exception()
                is_refusal = isinstance(failure, LearnerError) and algorithm.num_epochs * algorithm.num_minibatches == 1
                if failure is not None and not is_refusal:
                    return
            if self._learner_is_lost or await self.learner.weight_version() != self.step:
                return
            await self.state.settle()
            self._say(str(self.state))
            if self._newest_step is not None and self.record.next_step < self.step:
                groups, report = self._newest_step
                self.record.log_step(groups, report.result(), None, None, {}, counts=self.counts())
        except Exception as error:  # the error that ends the run matters more
            self._say(f"while step {self.step} was saved and recorded: {error}")

    async def close(self, outcome: Outcome) -> None:
        """Close files and end the actors, all of them; trackers are told how the run ended.

        Raises:
            Exception: the first that one of them raised.
        """
        errors = []
        for close in (
            self._drop_step,
            partial(self._close_files, outcome),
            self._close_rewards,
            self.engines.close,
            self.learner.close,
        ):
            try:
                await close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def request_stop(self, reason: str) -> None:
        """Stop after the current step; `finish` saves a checkpoint first."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._say(f"{reason}: saving a checkpoint after the current step, then stopping ...")
        if self._buffer is not None:
            self._buffer.close()

    def lose_learner(self, error: BaseException) -> None:
        """Record that the learner is lost.

        Raises:
            TooManyFaultsError: too often within the window.
        """
        self._learner_is_lost = True
        self._say(f"step {self.step + 1}: {error}; it is built again from the last checkpoint ...")
        self.faults.record(Role.LEARNER, 0, str(error))

    def lose_payloads(self, group_ids: Sequence[str], cause: str) -> None:
        """Record that groups were lost between two actors; they are sampled again.

        Raises:
            TooManyFaultsError: too often within the window.
        """
        self.faults.record(Role.TRANSFER, 0, f"groups {', '.join(group_ids[:8])}: {cause}")

    async def recover(self) -> None:
        """Rebuild a lost learner and go back to the last checkpoint; does nothing while it lives."""
        if not self._learner_is_lost:
            return
        await self._drop_step()
        await self.learner.close()
        await self.state.go_back()
        self._held_out.forget()
        self.record.rewind(first_step=self.step)
        await self.turns.make_room()
        async with self.weight_sync.closed():
            await self._build_learner()
        await self.weight_sync.publish(self.step)
        self._learner_is_lost = False

    def new_buffer(self) -> GroupBuffer:
        """Return a buffer that continues at the run's progress."""
        self._newest_step = None
        self._buffer = GroupBuffer(
            self.config.training, range_epsilon=self.config.algorithm.range_epsilon, start=self.state.progress
        )
        return self._buffer

    async def train_step(self, groups: StepGroups) -> StepReport:
        """Take one training step; it counts as done even if the run ends before its weights are published.

        Raises:
            LearnerLostError: a rank is gone.
            LearnerError: a group is unusable; no weight was changed.
            DivergedError: loss or gradient is not finite, or explodes.
        """
        taking = asyncio.create_task(self._take_step(groups))
        self._newest_step = groups, taking
        return await asyncio.shield(taking)

    async def _take_step(self, groups: StepGroups) -> StepReport:
        assert self._buffer is not None
        report = await self.learner.train_step(groups.step, groups.tickets)
        self.update_estimates(groups)
        self.state.progress = self._buffer.progress()
        return report

    async def end_step(self, progress: Progress, step_s: float) -> None:
        """Record progress, evaluate and save where due, and request a stop when the allocation ends."""
        self.state.progress = progress
        leave_before_s = self.config.training.checkpoint_before_s
        scores: Mapping[str, float] = {}
        if due := self._held_out.due(self.step):
            found = await self._evaluate(f"step_{self.step:08d}", due)
            best = self.config.training.keep_best
            scores = found.scores(best if isinstance(best, str) else None)
        await self.state.save_if_due(scores)
        if not self.is_over and self._allocation.is_ending(next_s=step_s):
            self.request_stop(f"the allocation ends in less than {leave_before_s:g} s and a step")

    def assign_batch(self, positions: Sequence[int]) -> dict[int, BatchSlot]:
        """Assign the groups of a synchronous run to engines in advance, which makes its completions reproducible."""
        if not self.is_synchronous:
            return {}
        self._num_batches += 1
        samples = self.draws.samples(positions)
        return self.engines.assign_batch(str(self._num_batches), samples)

    async def probe_logprobs(self, groups: StepGroups) -> NDArray[np.float32] | None:
        """Compute probe logprobs, and stage a checkpoint if due, before weights are published.

        Returns:
            Logprobs of one completion of the step, from another group every step; for `check_mismatch`.
        """
        if self.turns.is_shared:
            await self.state.stage_if_due(groups.step + 1)
        return await self.learner.completion_logprobs(groups.probed.payload) if groups.tickets else None

    async def check_mismatch(self, groups: StepGroups, expected: NDArray[np.float32] | None) -> float | None:
        """Return the mean difference between the engines' logprobs now and the learner's in `probe_logprobs`.

        None without them, or where the row or the group is gone meanwhile.
        """
        if expected is None:
            return None
        position = groups.probed.position
        await self.draws.read([position])
        try:
            return await self.weight_sync.mismatch(groups.probed, self.draws.at(position).sample, expected)
        except RolloutError as error:
            self._say(f"step {groups.step + 1}: engines and learner are not compared: {error}")
        except PayloadLostError as error:
            self.lose_payloads([groups.probed.group_id], str(error))
        return None

    def update_estimates(self, groups: StepGroups) -> None:
        """Update the estimates of dispatch (lengths) and of an adaptive curriculum (difficulty) from a step."""
        self.draws.observe(groups)
        self.engines.lengths.observe(ticket.summary for ticket in (*groups.tickets, *groups.replaced))

    def counts(self) -> dict[str, float]:
        """Return the faults so far and the number of engines, as metrics."""
        return {
            **self.faults.counts(),
            "faults/groups_repeated": float(self.engines.num_repeated),
            "rollout/num_engines": float(self.engines.num_live),
            "rollout/num_groups_elastic": float(self.engines.num_by_elastic),
        }

    async def _drop_step(self) -> None:
        """Cancel the step that nothing waits for any more; its ranks are ended."""
        if self._newest_step is not None:
            (_, taking), self._newest_step = self._newest_step, None
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _close_files(self, outcome: Outcome) -> None:
        await asyncio.to_thread(self.record.close, outcome)

    def _images_of(self, position: int) -> Callable[[], Sequence[bytes]]:
        """Return what reads the encoded images of a position's row; which row that is may change with later steps."""
        try:
            _, row = self.draws.stream.row_at(position)
        except RolloutError:
            return tuple
        return lambda: [image.data for image in self._rows[row].images]

    async def _close_rewards(self) -> None:
        self.rewards.close()

    async def _build_learner(self) -> None:
        await self.learner.build(derive_seed(self.config.seed, "learner"))
        await self.state.load_into(self.learner)
        await self.turns.settle_learner()

    async def _evaluate(self, name: str, due: Sequence[str] | None = None) -> Evaluation:
        """Score held-out samples, all or the sets that are due, under the weights of this step; keep them by a name."""
        if self.turns.is_learners:
            await self.weight_sync.publish(self.step)
        found = await self._held_out.score(name, self.step, due)
        self.record.log_held_out(found)
        return found
