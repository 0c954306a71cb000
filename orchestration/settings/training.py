"""The rhythm of a run: steps, how far rollout runs ahead, checkpoints, and scores of held-out data."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The run's rhythm."""

    num_steps: Annotated[int, Ge(1)]
    """Training steps in all; each takes algorithm.num_epochs * num_minibatches optimiser updates."""
    groups_per_step: Annotated[int, Ge(1), Le(100_000)]
    """Prompts a step; each gives group_size completions."""
    max_staleness: Annotated[int, Ge(0)]
    """0: rollout and training take turns. k: a step trains on nothing begun more than k steps before it."""
    run_ahead: Annotated[int, Ge(0)] | None
    """Steps that rollout may run ahead of the live weights; null is max_staleness. What it leaves of max_staleness is
    how often a straggler may be carried over."""
    straggler_deadline_s: Annotated[float, Ge(0), Le(10**9)] | None
    """Time a step waits for its own groups; then any others that are done fill it, and the missing ones are carried
    over to the next step. null waits for all."""
    oversampling: Annotated[float, Ge(1), Le(1000)]
    """Prompts that a step may use up, in units of groups_per_step, so that groups whose completions all earned the same
    are replaced by others. 1 takes them as they come."""
    checkpoint_every: Annotated[int, Ge(1)]
    checkpoint_dir: Annotated[str, "path", MinLen(1)] | None
    """Absolute path, or a URI of object storage (s3://bucket/folder), where checkpoints are kept; null is
    run_dir/checkpoints."""
    staging_dir: Annotated[str, "path", MinLen(1)] | None
    """Absolute path on fast local disk, where a checkpoint waits on its way to checkpoint_dir, so that training need
    not; null is the system's temporary directory. Room for the shares of all ranks of a machine."""
    keep_last: Annotated[int, Ge(1)]
    """Newest complete checkpoints that stay."""
    keep_best: bool
    """Keep the best checkpoint by macro mean and of each reward function too; needs evaluation.every_steps."""
    time_limit_s: Annotated[float, Gt(0), Le(10**9)] | None
    """Length of the allocation, from the start of the job; null reads SLURM_JOB_END_TIME where there is one."""
    checkpoint_before_s: Annotated[float, Ge(0), Le(10**9)]
    """So long before the allocation ends, the run saves a checkpoint and leaves."""
    weight_check_every: Annotated[int, Ge(1)]
    """Tensors of engine and learner are compared when a run starts or resumes, and after every k-th step."""
    max_mismatch: Annotated[float, Gt(0)]
    """Mean log-probability difference between engine and learner on the same weights and one completion of each step;
    above it in three steps in a row, the run stops."""
    max_drop_frac: Annotated[float, Ge(0), Le(1)]
    """Share of a step's groups that may be dropped for bad data."""
    max_failed_frac: Annotated[float, Ge(0), Le(1)]
    """Share of a step's completions whose reference or grader may fail; they are masked and counted."""
    recorded_groups_per_step: Annotated[int, Ge(0)]
    """Groups a step whose completions are written to samples.jsonl."""

    @property
    def steps_ahead(self) -> int:
        """Steps that rollout runs ahead of the live weights."""
        return self.max_staleness if self.run_ahead is None else self.run_ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a run scores held-out data before and after."""

    samples_per_family: Annotated[int, Ge(1)]
    completions_per_sample: Annotated[int, Ge(1)]
    """Sampled at rollout.sampling.temperature, beside one greedy completion."""
    enabled: bool = True
    every_steps: Annotated[int, Ge(1)] | None = None
    """Score held-out data during the run too, after every k-th step; null only before and after."""
