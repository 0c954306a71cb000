"""One rank's share of a step before anything is computed: advantages, counts, micro-batches with their images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.algorithms.advantages import zero_signal_mask
from learner.algorithms.registry import Algorithm
from learner.batching import Piece, make_pieces, plan_micro_batches
from learner.config import LearnerConfig
from learner.images import ImageEncoder, ImageInputs
from learner.records import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """What a share holds; counts of all ranks add up to the step's."""

    num_groups: int = 0
    num_zero_signal_groups: int = 0
    """Groups in which every advantage is 0."""
    num_sequences: int = 0
    num_masked_sequences: int = 0
    num_trained_sequences: int = 0
    """Sequences that enter the forward pass."""
    num_completion_tokens: int = 0
    """Tokens of all unmasked sequences, whether they enter the forward pass or not: the loss's denominator."""
    num_forward_tokens: int = 0
    """Tokens fed to the model: prompts once a piece, completions without their last token."""

    def __add__(self, other: "StepCounts") -> "StepCounts":
        """Add field by field."""
        return StepCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """A rank's micro-batches, ready to be laid out."""

    micro_batches: list[tuple[list[Piece], list[ImageInputs | None]]]
    counts: StepCounts


def plan_step(
    groups: Sequence[ScoredGroup], *, config: LearnerConfig, algorithm: Algorithm, images: ImageEncoder
) -> StepPlan:
    """Plan one rank's share of a step.

    Raises:
        LearnerError: an image does not decode or does not match its prompt; names the group.
    """
    advantages = compute_advantages(groups, config=config, algorithm=algorithm)
    pieces = make_pieces(
        groups,
        [row[: len(group.sequences)] for row, group in zip(advantages, groups, strict=True)],
        micro_batch_tokens=config.micro_batch_tokens,
        keep_zero_advantages=config.algorithm.kl_coef > 0,
    )
    planned = plan_micro_batches(pieces, config.micro_batch_tokens)
    # One call of the processor for all groups; a group cut into several pieces is processed once.
    trained = list({id(piece.group): piece.group for piece in pieces}.values())
    encoded = dict(zip(map(id, trained), images.encode(trained), strict=True))
    sequences = [sequence for group in groups for sequence in group.sequences]
    counts = StepCounts(
        num_groups=len(groups),
        num_zero_signal_groups=int(zero_signal_mask(torch.from_numpy(advantages)).sum()),
        num_sequences=len(sequences),
        num_masked_sequences=sum(sequence.masked for sequence in sequences),
        num_trained_sequences=sum(len(piece.sequence_indices) for piece in pieces),
        num_completion_tokens=sum(sequence.num_tokens for sequence in sequences if not sequence.masked),
        num_forward_tokens=sum(piece.num_tokens for piece in pieces),
    )
    batches = [(batch, [encoded[id(piece.group)] for piece in batch]) for batch in planned]
    return StepPlan(micro_batches=batches, counts=counts)


def compute_advantages(
    groups: Sequence[ScoredGroup], *, config: LearnerConfig, algorithm: Algorithm
) -> NDArray[np.float64]:
    """Give float64 [N, G] advantages; groups smaller than the largest are padded with masked zeros."""
    largest = max((len(group.sequences) for group in groups), default=0)
    rewards = np.zeros((len(groups), largest), dtype=np.float64)
    masked = np.ones((len(groups), largest), dtype=bool)
    for row, group in enumerate(groups):
        size = len(group.sequences)
        rewards[row, :size] = [sequence.reward for sequence in group.sequences]
        masked[row, :size] = [sequence.masked for sequence in group.sequences]
    if rewards.size == 0:
        return rewards
    advantages = algorithm.advantages(
        torch.from_numpy(rewards),
        masked=torch.from_numpy(masked),
        normalize_std=True,
        std_floor=config.algorithm.std_floor,
        range_epsilon=config.algorithm.range_epsilon,
    )
    result: NDArray[np.float64] = advantages.numpy()
    return result
