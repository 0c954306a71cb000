"""What a step consists of: lengths of prompts and completions, groups, updates, micro-batches, groups in flight."""

from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np

from learner.batching import TrainSequence, make_pieces, plan_micro_batches
from learner.config import LearnerConfig
from learner.records import ScoredGroup, ScoredSequence
from orchestration.settings.experiment import ExperimentConfig

DRAWN_TOKENS = (34, 16)
"""Prompt and image tokens of the demo's rows: means of 400 of them under the tokenizers of both of its models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of values between edges.

    Example:
        >>> histogram = Histogram.of([3, 5, 9, 40])
        >>> histogram.edges, histogram.counts, histogram.mean
        ((0, 4, 8, 16, 32, 64), (1, 1, 1, 0, 1), 14.25)
    """

    edges: tuple[int, ...]
    """counts[i] are the values from edges[i] up to, not including, edges[i + 1]: 0, then powers of two."""
    counts: tuple[int, ...]
    mean: float
    middle: int
    """Median."""
    high: int
    """99th percentile."""
    most: int
    """Maximum."""

    @classmethod
    def of(cls, values: list[int]) -> "Histogram":
        """Count values, at least one."""
        ordered = sorted(values)
        first = max(1, ordered[0]).bit_length()
        edges = (0, *(1 << power for power in range(first, max(1, ordered[-1]).bit_length() + 1)))
        counts = [0] * (len(edges) - 1)
        for value in ordered:
            counts[max(0, value.bit_length() - first)] += 1
        return cls(
            edges=edges,
            counts=tuple(counts),
            mean=sum(ordered) / len(ordered),
            middle=_quantile(ordered, 0.5),
            high=_quantile(ordered, 0.99),
            most=ordered[-1],
        )


def _quantile(ordered: list[int], share: float) -> int:
    """Return the smallest value that at least `share` of all do not exceed."""
    return ordered[max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of a prompt and of a completion."""

    prompt: float
    """Expected."""
    image: float
    """Expected image tokens of a prompt."""
    prompt_most: int
    """Longest prompt that leaves room for a completion of full length."""
    completion: float
    """Expected."""
    completion_most: int
    are_measured: bool
    """Whether prompt lengths are those of the dataset; completion lengths are always assumed."""


def is_drawn(config: ExperimentConfig) -> bool:
    """Return whether all rows are the demo's, whose lengths are known in advance."""
    recipe = config.data.recipe if config.data.train is None else None
    return recipe is not None and all(source.adapter == "drawn" for source in recipe.sources.values())


def expected_lengths(config: ExperimentConfig, prompts: Histogram | None, images: Histogram | None) -> Lengths:
    """Return the lengths to plan with: those of prompts and their images if known, else the assumed ones."""
    assume, engine, sampling = config.plan.assume, config.rollout.engine, config.rollout.sampling
    limit = engine.max_model_len - sampling.longest_completion
    assumed = DRAWN_TOKENS if is_drawn(config) else (assume.prompt_tokens, assume.image_tokens)
    prompt, image = (float(min(tokens, limit)) for tokens in assumed)
    return Lengths(
        prompt=prompts.mean if prompts else prompt,
        image=images.mean if images else image,
        prompt_most=min(prompts.most, limit) if prompts else limit,
        completion=max(1.0, assume.completion_frac * sampling.longest_completion),
        completion_most=sampling.longest_completion,
        are_measured=prompts is not None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """Tokens and micro-batches of one rank in one update."""

    num_tokens: int
    """A shared prompt counts once."""
    num_micro_batches: int
    largest_micro_batch: int
    """Tokens; above learner.micro_batch_tokens if one completion with its prompt is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """Counts of a step."""

    groups: int
    group_size: int
    updates: int
    """Optimiser updates per step."""
    groups_per_update: int
    ranks: int
    groups_per_rank: int
    """Groups of a rank in a step."""
    expected: RankShare
    at_most: RankShare
    """With all prompts and completions at their maximum length."""
    completion_tokens: float
    """Expected in a step, all ranks."""
    prefix_sharing: bool
    """Whether a prompt is computed once for its completions."""
    groups_in_flight: int
    """At most, from the start of their sampling to the step that trains on them."""
    completions_per_engine: int
    """At most, in flight."""
    engine_capacity: int
    """Completions that all engines decode at once: engines x max_num_seqs."""
    epochs: float | None
    """Passes over the training rows in all steps; None without a dataset."""

    @property
    def completions(self) -> int:
        """Completions of a step."""
        return self.groups * self.group_size


def plan_batches(
    config: ExperimentConfig, lengths: Lengths, num_rows: int | None, *, is_padded: bool = False
) -> BatchPlan:
    """Return the counts of a step; uneven shares are rounded up. `is_padded` as `rank_share` takes it."""
    training, algorithm, learner = config.training, config.algorithm, config.learner
    group_size, engines = config.rollout.sampling.largest_group, config.rollout.engines
    groups = training.groups_per_step
    groups_per_update = ceil(groups / algorithm.num_minibatches)
    share = max(1, ceil(groups_per_update / learner.num_ranks))
    ahead = ceil((training.steps_ahead + 1) * groups * training.oversampling)
    in_flight = ahead + (training.max_staleness - training.steps_ahead) * groups
    fed = partial(rank_share, learner, share, group_size, is_padded=is_padded)
    return BatchPlan(
        groups=groups,
        group_size=group_size,
        updates=algorithm.num_epochs * algorithm.num_minibatches,
        groups_per_update=groups_per_update,
        ranks=learner.num_ranks,
        groups_per_rank=ceil(groups / learner.num_ranks),
        expected=fed(prompt=round(lengths.prompt), completion=round(lengths.completion)),
        at_most=fed(prompt=lengths.prompt_most, completion=lengths.completion_most),
        completion_tokens=groups * group_size * lengths.completion,
        prefix_sharing=learner.prefix_sharing != "never" and not is_padded,
        groups_in_flight=in_flight,
        completions_per_engine=ceil(in_flight * group_size / engines),
        engine_capacity=engines * config.rollout.engine.max_num_seqs,
        epochs=None if num_rows is None else training.num_steps * groups / num_rows,
    )


def rank_share(
    learner: LearnerConfig, num_groups: int, group_size: int, *, prompt: int, completion: int, is_padded: bool = False
) -> RankShare:
    """Split a rank's groups of one update, all of equal length, into micro-batches with the learner's own code.

    Args:
        learner: its settings.
        num_groups: of the rank.
        group_size: completions of each.
        prompt: tokens.
        completion: tokens.
        is_padded: whether the model trains in padded rows, which share no prompt.
    """
    tokens, logprobs = np.zeros(max(1, completion), np.int32), np.zeros(max(1, completion), np.float32)
    tokens.flags.writeable = logprobs.flags.writeable = False  # so that all completions share them
    sequence = ScoredSequence(
        completion_token_ids=tokens,
        behaviour_logprobs=logprobs,
        reward=0.0,
        truncated=False,
    )
    group = ScoredGroup(
        group_id="planned", task="planned", images=(),
        prompt_token_ids=np.zeros(max(1, prompt), np.int32), sequences=(sequence,) * group_size,
    )  # fmt: skip
    sequences = [
        TrainSequence(index=index, advantages=np.zeros(0, np.float32), token_weight=1.0) for index in range(group_size)
    ]
    budget, sharing = learner.micro_batch_tokens, "never" if is_padded else learner.prefix_sharing
    pieces = make_pieces(group, sequences, micro_batch_tokens=budget, prefix_sharing=sharing, is_padded=is_padded)
    batches = plan_micro_batches(pieces * num_groups, budget, is_padded=is_padded)
    filled = [sum(piece.num_tokens for piece in batch) for batch in batches]
    return RankShare(num_tokens=sum(filled), num_micro_batches=len(batches), largest_micro_batch=max(filled))
