"""From token losses to one loss: each token's weight in the step's sum.

Denominators are of the whole optimiser step, over all ranks and micro-batches, so the gradient does not depend on how
the step is cut. Axes: S sequences, C completion tokens of all of them, sequence by sequence.
"""

from collections.abc import Sequence
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
    """Give the weight of each token of these sequences.

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
    """Give each token the sum over its sequence: [C] to [C]; carries gradients, and adds in a fixed order."""
    return torch.cat([part.sum().expand(len(part)) for part in torch.split_with_sizes(values, list(lengths))])
