"""What each token contributes to the loss before KL and entropy (clip, gspo, cispo), and its weight in the sum.

The objectives take the current logprobs with gradient and those that the importance ratio divides by. Denominators of
the weights are of the whole optimiser step, over all ranks and micro-batches, so the gradient does not depend on how
the step is cut. Axes: S sequences, C completion tokens of all of them, sequence by sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Aggregation = Literal["token", "sequence", "constant"]


def token_weights(
    aggregation: Aggregation,
    lengths: Sequence[int],
    *,
    num_tokens: int,
    num_sequences: int,
    max_completion_tokens: int,
) -> torch.Tensor:
    """Return the weight of each token of these sequences.

    token: 1 / num_tokens, the mean over all tokens; DAPO, arXiv:2503.14476, eq. 8. sequence: 1 / (num_sequences * T),
    the mean of each completion's mean; GRPO, arXiv:2402.03300, eq. 3. constant: 1 / (num_sequences *
    max_completion_tokens), so that a token weighs the same in a short and in a long completion; Dr. GRPO,
    arXiv:2503.20783.

    Args:
        aggregation: one of the three.
        lengths: [S], completion tokens of each sequence.
        num_tokens: of all unmasked completions of the optimiser step.
        num_sequences: unmasked completions of the optimiser step.
        max_completion_tokens: the rollout's limit; read by constant only.

    Returns:
        float32 [C].

    Raises:
        ValueError: aggregation constant without a max_completion_tokens.

    Example:
        >>> token_weights("sequence", [1, 2], num_tokens=3, num_sequences=2, max_completion_tokens=0).tolist()
        [0.5, 0.25, 0.25]
    """
    if aggregation == "constant" and max_completion_tokens < 1:
        raise ValueError(
            f"algorithm.max_completion_tokens is {max_completion_tokens}; aggregation=constant divides by it, so set "
            "it to the rollout's limit, or algorithm.aggregation=token"
        )
    sizes = torch.tensor(lengths, dtype=torch.int64)
    denominators = {
        "token": torch.full(sizes.shape, num_tokens, dtype=torch.float64),
        "sequence": num_sequences * sizes.double(),
        "constant": torch.full(sizes.shape, num_sequences * max_completion_tokens, dtype=torch.float64),
    }[aggregation]
    return denominators.reciprocal().float().repeat_interleave(sizes)


def sequence_sums(values: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Return the sum over its sequence for each token: [C] to [C]; carries gradients, and adds in a fixed order."""
    return torch.cat([part.sum().expand(len(part)) for part in torch.split_with_sizes(values, list(lengths))])


Objective = Literal["clip", "gspo", "cispo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveTerms:
    """The policy term of each token, and what to watch."""

    token_loss: torch.Tensor
    """float32 [C], with gradient"""
    ratio: torch.Tensor
    """float32 [C], the importance ratio that is clipped"""
    is_clipped: torch.Tensor
    """bool [C]: clip, gspo: the clip removed the token's gradient. cispo: it bounded the token's weight."""


def clip_objective(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    *,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> ObjectiveTerms:
    """Return -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r the token's probability ratio.

    In words: the ratio between current and old policy, times the advantage; where the ratio has already moved past the
    clip in the advantage's favour, the token stops pushing.

    Source: PPO, arXiv:1707.06347, eq. 7; two bounds, DAPO, arXiv:2503.14476, eq. 10.
    """
    return _clipped(torch.exp(logprobs - old_logprobs), advantages, clip_low, clip_high)


def gspo_objective(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    *,
    advantages: torch.Tensor,
    counted: torch.Tensor,
    lengths: Sequence[int],
    clip_low: float,
    clip_high: float,
) -> ObjectiveTerms:
    """Return -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), s the sequence's geometric mean of token ratios.

    In words: as `clip_objective`, but a completion moves or stops as a whole. Each token's s has the sequence's value
    and its own token's gradient: s_t = sg[s] * p_t / sg[p_t]. Its mean over the sequence has value and gradient of the
    sequence's own term, so aggregation sequence gives the paper's objective, and advantages may differ by token.

    Args:
        logprobs: [C] current policy, with gradient.
        old_logprobs: [C].
        advantages: [C].
        counted: bool [C]; other tokens are out of their sequence's mean.
        lengths: [S]; sequences must be whole.
        clip_low: of the order 3e-4, as s is a mean.
        clip_high: of the order 4e-4.

    Source: GSPO, arXiv:2507.18071; s eq. 7, objective eq. 5, by token (GSPO-token) eq. 13 and 14.
    """
    log_ratio = (logprobs - old_logprobs).detach()
    num_counted = sequence_sums(counted.float(), lengths).clamp(min=1)
    sequence_ratio = torch.exp(sequence_sums(log_ratio.where(counted, 0.0), lengths) / num_counted)
    own_gradient = torch.exp(logprobs - logprobs.detach())
    return _clipped(sequence_ratio * own_gradient, advantages, clip_low, clip_high)


def cispo_objective(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    *,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> ObjectiveTerms:
    """Return -sg[clip(r, 1 - clip_low, 1 + clip_high)] A log p, r the token's probability ratio.

    In words: REINFORCE with a bounded importance weight; every token keeps a gradient, also where PPO drops it. The
    paper uses only the upper bound: clip_low=1 disables the lower one.

    Source: CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4 and 5.
    """
    ratio = torch.exp(logprobs - old_logprobs).detach()
    weight = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return ObjectiveTerms(token_loss=-weight * advantages * logprobs, ratio=ratio, is_clipped=weight != ratio)


def _clipped(ratio: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float) -> ObjectiveTerms:
    pushed = ratio * advantages
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    return ObjectiveTerms(
        token_loss=-torch.minimum(pushed, clipped), ratio=ratio.detach(), is_clipped=(clipped < pushed).detach()
    )
