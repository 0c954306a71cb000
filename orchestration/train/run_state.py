"""RunState: progress of a run; what its checkpoints hold beside the learner's state, and when they are due."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from learner.checkpoint import Checkpoint
from orchestration.settings.errors import ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.checkpoints import Checkpoints, Saver, config_digest
from orchestration.storage.faults import FaultLog
from orchestration.train.buffer import Progress
from orchestration.train.draws import Draws
from orchestration.workers.dispatch import LengthEstimates
from orchestration.workers.learner_group import LearnerGroup

SLURM_END = "SLURM_JOB_END_TIME"
"""Set by Slurm inside a job: seconds since the epoch."""


class Allocation:
    """The time that the machines of a run are its own."""

    def __init__(
        self, time_limit_s: float | None, leave_before_s: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Count from now.

        Args:
            time_limit_s: Length of the allocation; None asks Slurm's environment, and without it there is no end.
            leave_before_s: How long before its end the run has to stop.
            clock: Seconds since the epoch.
        """
        self._clock = clock
        end = clock() + time_limit_s if time_limit_s is not None else float(os.environ.get(SLURM_END, "inf"))
        self._leave_at = end - leave_before_s

    def is_ending(self, next_s: float) -> bool:
        """Return whether something that takes `next_s` seconds would end too late."""
        return self._clock() + next_s > self._leave_at


class RunState:
    """Steps done, prompt stream and length estimates: saved together with the learner, and restored with it.

    Consumes: progress, scores. Produces: checkpoints when they are due. Waits for: the learner to stage its state.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        checkpoints: Checkpoints,
        *,
        draws: Draws,
        lengths: LengthEstimates,
        faults: FaultLog,
        say: Callable[[str], None],
    ) -> None:
        """Restore from the latest checkpoint, or start from step 0.

        Raises:
            ResumeError: there are checkpoints, but none is whole.
        """
        self._config = config
        self._checkpoints = checkpoints
        self._saver = Saver(checkpoints, faults, say)
        self._draws = draws
        self._lengths = lengths
        self._say = say
        self._restore(self._latest())

    @property
    def step(self) -> int:
        return self.progress.step

    async def go_back(self) -> None:
        """Restore from the latest complete checkpoint after the learner was lost, with the copies it was making."""
        await self._checkpoints.abandon()
        self._restore(await asyncio.to_thread(self._latest))

    async def load_into(self, learner: LearnerGroup) -> None:
        """Load the state of this step into a learner that was just built; step 0 needs none."""
        if self._checkpoint is not None:
            await learner.on_each("load", self._checkpoints.store, self._checkpoint.step)
            num_steps = self._config.training.num_steps
            self._say(f"resumed {self._checkpoint.name}: {self.step} of {num_steps} steps are done")

    async def save_if_due(self, scores: Mapping[str, float]) -> None:
        """Start the checkpoint of this step if one is due; it is written while training continues.

        Args:
            scores: held-out scores of this step, as `Evaluation.scores` has them; empty where it was not evaluated.
        """
        if self._is_due(self.step):
            await self._saver.begin(self.step, self._extra(), scores)

    async def stage_if_due(self, step: int) -> None:
        """Stage the learner's state now if a checkpoint of `step` is due: at that time it will be offloaded."""
        if self._is_due(step):
            await self._saver.stage(step)

    async def settle(self) -> None:
        """Wait until a checkpoint of this step is complete, which is begun if it was not."""
        await self._saver.settle(self.step, self._extra)

    def best(self) -> dict[str, str]:
        """Return the name of the best checkpoint by each reward function and by `macro`, or by the metric."""
        return {name: checkpoint.name for name, checkpoint in self._checkpoints.best().items()}

    def __str__(self) -> str:
        """Return what is saved, as a sentence for the user."""
        num_steps = self._config.training.num_steps
        if self._saver.saved_step is None:
            return "nothing is saved yet; the same command begins again"
        return (
            f"step {self._saver.saved_step} of {num_steps} is saved in {self._checkpoints.store}; "
            "the same command continues"
        )

    def _latest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint; reads all of its files."""
        checkpoint = self._checkpoints.latest()
        if checkpoint is None and self._checkpoints.has_any():
            raise ResumeError(
                f"{self._checkpoints.store} holds checkpoints, but none whose files are as they were written; restore "
                "one, or use another run_dir: a run from the beginning would replace them"
            )
        return checkpoint

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        self._checkpoint = checkpoint
        self._saver.saved_step = checkpoint.step if checkpoint else None
        extra = checkpoint.extra if checkpoint else {}
        self.progress = Progress.from_json(extra["progress"]) if extra else Progress(step=0, next_position=0)
        self._draws.go_to(extra["prompts"] if extra else {})
        self._lengths.load_state_dict(extra.get("lengths", {}))

    def _is_due(self, step: int) -> bool:
        training = self._config.training
        return step % training.checkpoint_every == 0 or step == training.num_steps

    def _extra(self) -> dict[str, Any]:
        return {
            "progress": self.progress.to_json(),
            "prompts": self._draws.stream.state_dict(self.step),
            "lengths": self._lengths.state_dict(),
            "config_digest": config_digest(self._config),
        }
