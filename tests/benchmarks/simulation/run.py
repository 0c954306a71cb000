"""The product's own Run over simulated actors: nothing of its logic is copied, only the three starts are replaced."""

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import orchestration.train.run
from orchestration.inputs.prepare import Inputs
from orchestration.loop import train_and_finish
from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.experiment import ExperimentConfig, TrainingConfig
from orchestration.storage.faults import FaultLog
from orchestration.storage.run_folder import RunFolder, settle_config
from orchestration.train.buffer import GroupBuffer, Progress
from orchestration.train.run import Run
from orchestration.workers.engine_pool import EnginePool
from orchestration.workers.learner_group import LearnerGroup
from orchestration.workers.reward_pool import RewardPool
from orchestration.workers.tickets import StepGroups
from tests.benchmarks.simulation.actors import Actors

PATIENCE_S = 86_400.0
"""A run that has not ended by then never will: heartbeats and deaths go on although everyone else waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Sums so far, at the end of a step."""

    at: float
    """Virtual seconds."""
    cpu_s: float
    """Processor seconds of this process."""
    simulated_cpu_s: float
    """Those of them that went into simulated parts."""
    busy_s: float
    """Seconds with anything running, over all engines."""
    sequence_s: float
    """Seconds of sequences, over all engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What one step was made of."""

    staleness: Counter[int]
    """Staleness -> trained groups."""
    num_signal: int
    """Trained groups whose rewards differ."""
    num_used: int
    """Positions that the step used up."""
    num_replaced: int
    num_dropped: int
    num_carried: int
    train_s: float
    """Seconds of the training step."""
    pause_s: float
    """How long engines stand still for the next weights, but for their way to a token boundary."""
    learner_s: float
    """From the groups' arrival until the next weights are live and compared."""


class MeasuredRun(Run):
    """A Run that notes what each step was made of, and the clock after it."""

    def __init__(self, *arguments: Any, actors: Actors, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._actors = actors
        self.begun: Snapshot | None = None
        """Before the first step."""
        self.snapshots: list[Snapshot] = []
        """After each step."""
        self.steps: list[StepFacts] = []

    def new_buffer(self) -> GroupBuffer:
        """A buffer that goes on where the run stands."""
        if self.begun is None:
            self.begun = self._look()
        return super().new_buffer()

    async def check_mismatch(self, groups: StepGroups, expected: NDArray[np.float32] | None) -> float | None:
        """Take notes, now that the new weights are live, and compare."""
        self._note(groups)
        return await super().check_mismatch(groups, expected)

    def _note(self, groups: StepGroups) -> None:
        signal = [s.has_signal(self.config.algorithm.range_epsilon) for s in groups.summaries]
        trained = self._actors.learner.step_ended_at - self._actors.learner.step_began_at
        self.steps.append(
            StepFacts(
                staleness=Counter(groups.step - summary.weight_version for summary in groups.summaries),
                num_signal=sum(signal),
                num_used=len(groups.tickets) + len(groups.replaced) + len(groups.dropped),
                num_replaced=len(groups.replaced),
                num_dropped=len(groups.dropped),
                num_carried=groups.num_carried,
                train_s=trained,
                pause_s=self._actors.learner.sent_at - self._actors.learner.send_began_at,
                learner_s=self._actors.now() - self._actors.learner.fetch_began_at,
            )
        )

    async def end_step(self, progress: Progress, step_s: float) -> None:
        """Count a step as done."""
        await super().end_step(progress, step_s)
        self.snapshots.append(self._look())

    def _look(self) -> Snapshot:
        busy_s, sequence_s = self._actors.busy()
        return Snapshot(
            at=self._actors.now(),
            cpu_s=time.process_time(),
            simulated_cpu_s=self._actors.simulated_cpu_s(),
            busy_s=busy_s,
            sequence_s=sequence_s,
        )


def configure(
    base: ExperimentConfig,
    folder: Path,
    *,
    num_engines: int,
    num_ranks: int,
    num_reward_actors: int,
    training: TrainingConfig,
    layout: Literal["disaggregated", "colocated"],
    actors: Actors,
    seed: int,
) -> ExperimentConfig:
    """Settings of one simulated run; limits of faults are raised out of its way.

    The fault window is counted on the machine's clock, in which a whole simulated run is one moment.
    """
    limits = dataclasses.replace(
        base.cluster.faults,
        heartbeat_s=10.0,
        heartbeat_timeout_s=60.0,
        start_timeout_s=600.0,
        call_timeout_s=3600.0,
        max_engine_faults=10**9,
        max_reward_faults=10**9,
        max_learner_faults=10**9,
        max_transfer_faults=10**9,
    )
    workload = actors.costs.workload
    return dataclasses.replace(
        base,
        run_dir=str(folder),
        seed=seed,
        trackers=(),
        training=training,
        evaluation=dataclasses.replace(base.evaluation, enabled=False),
        learner=dataclasses.replace(base.learner, num_ranks=num_ranks),
        rollout=dataclasses.replace(
            base.rollout,
            engines=num_engines,
            engine=dataclasses.replace(
                base.rollout.engine, max_num_seqs=actors.costs.engine.max_num_seqs, max_model_len=10**6
            ),
            sampling=dataclasses.replace(
                base.rollout.sampling,
                group_size=workload.group_size,
                max_completion_tokens=workload.max_completion_tokens,
            ),
        ),
        cluster=dataclasses.replace(
            base.cluster,
            layout=layout,
            faults=limits,
            reward_pool=dataclasses.replace(base.cluster.reward_pool, num_actors=num_reward_actors),
        ),
    )


async def train_simulated(config: ExperimentConfig, prompts: Path, actors: Actors) -> MeasuredRun:
    """Train from beginning to end with the product's loop; gives the run as it ended."""
    settle_config(RunFolder(config.run_path), config)
    with replaced_starts(actors):
        run = MeasuredRun(
            config,
            inputs=Inputs(model=prompts.parent, train=prompts, held_out=prompts),
            reservations=None,
            say=lambda line: None,
            actors=actors,
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await run.start()
            await train_and_finish(run)
    finally:
        await run.close("finished")
    return run


@contextmanager
def replaced_starts(actors: Actors) -> Iterator[None]:
    """Within the block a Run is built over simulated actors.

    Run calls three functions of its own module that start Ray actors; they are the only place where Ray is needed.
    """
    module: Any = orchestration.train.run
    kept = module.start_engines, module.start_learner, module.start_reward_pool

    def start_engines(
        config: Any,
        model: Path,
        reservations: Any,
        logs: Path,
        *,
        faults: FaultsConfig,
        log: FaultLog,
        learner: LearnerGroup,
        adapter: Any = None,
    ) -> EnginePool:
        return EnginePool(
            actors.start_engine,
            stop=actors.stop,
            config=config,
            faults=faults,
            log=log,
        )

    def start_learner(config: ExperimentConfig, model: Path, reservations: Any, logs: Path) -> LearnerGroup:
        return LearnerGroup(
            actors.start_rank, stop=actors.stop, num_ranks=config.learner.num_ranks, faults=config.cluster.faults
        )

    def start_reward_pool(
        config: ExperimentConfig, model: Path, reservations: Any, logs: Path, log: FaultLog
    ) -> RewardPool:
        pool = config.cluster.reward_pool
        return RewardPool(actors.start_reward, pool, config.cluster.faults, log, stop=actors.stop)

    module.start_engines = start_engines
    module.start_learner = start_learner
    module.start_reward_pool = start_reward_pool
    try:
        yield
    finally:
        module.start_engines, module.start_learner, module.start_reward_pool = kept
