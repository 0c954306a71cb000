"""What a step consists of: groups, completions, updates, micro-batches, and how many are on their way at once."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from learner.batching import TrainSequence, make_pieces, plan_micro_batches
from learner.config import LearnerConfig
from learner.records import ScoredGroup, ScoredSequence
from orchestration.plan.lengths import Lengths
from orchestration.settings.experiment import ExperimentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """What one rank feeds to the model in one update.

    Example:
        >>> RankShare(num_tokens=12_000, num_micro_batches=2, largest_micro_batch=8_000).num_micro_batches
        2
    """

    num_tokens: int
    """A shared prompt counts once."""
    num_micro_batches: int
    largest_micro_batch: int
    """Tokens; above learner.micro_batch_tokens where one completion with its prompt is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The arithmetic of a step."""

    groups: int
    group_size: int
    updates: int
    """Optimiser updates a step."""
    groups_per_update: int
    ranks: int
    groups_per_rank: int
    """Of a step."""
    expected: RankShare
    at_most: RankShare
    """Every prompt and every completion as long as can be."""
    completion_tokens: float
    """Expected of a step, all ranks."""
    prefix_sharing: bool
    """Whether a prompt stands once for its completions."""
    groups_in_flight: int
    """At most, between the start of their sampling and the step that trains on them."""
    completions_per_engine: int
    """At most, of those in flight."""
    engine_capacity: int
    """Completions that all engines decode at once: engines x max_num_seqs."""
    epochs: float | None
    """Passes over the training rows in all steps; None where the dataset is not there."""

    @property
    def completions(self) -> int:
        """Completions of a step."""
        return self.groups * self.group_size


def plan_batches(config: ExperimentConfig, lengths: Lengths, num_rows: int | None) -> BatchPlan:
    """Work the arithmetic out; a share that does not divide is the larger one."""
    training, algorithm, learner = config.training, config.algorithm, config.learner
    group_size, engines = config.rollout.sampling.group_size, config.rollout.engines
    groups = training.groups_per_step
    groups_per_update = ceil(groups / algorithm.num_minibatches)
    share = max(1, ceil(groups_per_update / learner.num_ranks))
    ahead = ceil((training.steps_ahead + 1) * groups * training.oversampling)
    in_flight = ahead + (training.max_staleness - training.steps_ahead) * groups
    return BatchPlan(
        groups=groups,
        group_size=group_size,
        updates=algorithm.num_epochs * algorithm.num_minibatches,
        groups_per_update=groups_per_update,
        ranks=learner.num_ranks,
        groups_per_rank=ceil(groups / learner.num_ranks),
        expected=rank_share(
            learner, share, group_size, prompt=round(lengths.prompt), completion=round(lengths.completion)
        ),
        at_most=rank_share(learner, share, group_size, prompt=lengths.prompt_most, completion=lengths.completion_most),
        completion_tokens=groups * group_size * lengths.completion,
        prefix_sharing=learner.prefix_sharing != "never",
        groups_in_flight=in_flight,
        completions_per_engine=ceil(in_flight * group_size / engines),
        engine_capacity=engines * config.rollout.engine.max_num_seqs,
        epochs=None if num_rows is None else training.num_steps * groups / num_rows,
    )


def rank_share(learner: LearnerConfig, num_groups: int, group_size: int, *, prompt: int, completion: int) -> RankShare:
    """Cut equal groups into micro-batches by the learner's own rules.

    Args:
        learner: its budget and whether prompts are shared.
        num_groups: of the rank, in one update.
        group_size: completions of each.
        prompt: tokens.
        completion: tokens of each completion.
    """
    group = _equal_group(max(1, prompt), max(1, completion), group_size)
    sequences = [
        TrainSequence(index=index, advantages=np.zeros(0, np.float32), token_weight=1.0) for index in range(group_size)
    ]
    pieces = make_pieces(
        group, sequences, micro_batch_tokens=learner.micro_batch_tokens, prefix_sharing=learner.prefix_sharing
    )
    batches = plan_micro_batches(pieces * num_groups, learner.micro_batch_tokens)
    filled = [sum(piece.num_tokens for piece in batch) for batch in batches]
    return RankShare(num_tokens=sum(filled), num_micro_batches=len(batches), largest_micro_batch=max(filled))


def _equal_group(prompt: int, completion: int, group_size: int) -> ScoredGroup:
    tokens, logprobs = np.zeros(completion, np.int32), np.zeros(completion, np.float32)
    tokens.flags.writeable = logprobs.flags.writeable = False  # so that all completions share them
    sequence = ScoredSequence(
        completion_token_ids=tokens,
        behaviour_logprobs=logprobs,
        reward=0.0,
        breakdown={},
        weight_version=0,
        truncated=False,
    )
    return ScoredGroup(
        group_id="planned",
        sample_id="planned",
        source="planned",
        task="planned",
        prompt_token_ids=np.zeros(prompt, np.int32),
        images=(),
        sequences=(sequence,) * group_size,
    )
