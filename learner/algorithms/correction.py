"""Weights for tokens that the engine sampled with other probabilities than the learner computes for the same weights.

Sources: truncated importance sampling, IMPALA, arXiv:1802.01561, eq. 1, for engine and learner Yao et al. 2025, "Your
efficient RL framework secretly brings you off-policy RL training"; masking, IcePop in arXiv:2510.18855.
Axis: C completion tokens of all sequences, sequence by sequence.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from learner.algorithms.aggregation import sequence_sums

CorrectionLevel = Literal["none", "token", "sequence"]
CorrectionAction = Literal["truncate", "mask"]


def correction_weights(
    old_logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    *,
    lengths: Sequence[int],
    level: Literal["token", "sequence"],
    action: CorrectionAction,
    low: float,
    high: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give w = old probability / behaviour probability, bounded.

    truncate: min(w, high); `low` is not read. mask: w inside [low, high], 0 outside: such tokens, or sequences, do not
    train. A NaN is neither truncated nor masked: it must reach the loss and end the step.

    Args:
        old_logprobs: [C], the learner's for the weights before the update, nats.
        behaviour_logprobs: [C], the engine's.
        lengths: [S] tokens of each sequence, C in all.
        level: token: each token its own w. sequence: one for all tokens of a sequence, the product of theirs.
        action: truncate or mask.
        low: of the interval.
        high: of the interval.

    Returns:
        (weights [C], corrected bool [C]: truncated or masked), without gradient.

    Example:
        Old probability 0.9 where the engine had 0.3: w is 3, truncated to 2.

        >>> correction_weights(torch.tensor([0.9]).log(), torch.tensor([0.3]).log(), lengths=[1], level="token",
        ...                    action="truncate", low=0.0, high=2.0)
        (tensor([2.]), tensor([True]))
    """
    log_weights = (old_logprobs - behaviour_logprobs).detach()
    if level == "sequence":
        log_weights = sequence_sums(log_weights, lengths)
    # An overflow to inf is fine: it lies above `high`, and nothing differentiates through it.
    weights = torch.exp(log_weights)
    if action == "truncate":
        return weights.clamp(max=high), weights > high
    outside = (weights < low) | (weights > high)
    return weights.masked_fill(outside, 0.0), outside
