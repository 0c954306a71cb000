"""Advantages within a group: reward minus the group's mean, over the group's standard deviation.

Source: GRPO, arXiv:2402.03300, eq. 1 and section 4.1.2; without the division, Dr. GRPO, arXiv:2503.20783.
Axes: N groups, G completions of a group.
"""

import torch


def group_advantages(
    rewards: torch.Tensor,
    *,
    masked: torch.Tensor,
    normalize_std: bool,
    std_floor: float,
    range_epsilon: float,
) -> torch.Tensor:
    """Give each completion's advantage over its own group.

    All arithmetic is float64: in float32, equal rewards such as 0.1 leave a deviation of rounding size, and its
    division by an equally tiny standard deviation makes an advantage out of nothing.

    Args:
        rewards: [N, G] or [G].
        masked: bool, same shape; True is left out of mean and deviation and gets advantage 0.
        normalize_std: divide by the population standard deviation.
        std_floor: least value to divide by; where it and the deviation are 0 the advantage is 0 by `range_epsilon`.
        range_epsilon: a group whose rewards span less than this gets exactly zero everywhere.

    Returns:
        float64, same shape.

    Example:
        Rewards 1, 0, 0, 1: mean 0.5, standard deviation 0.5.

        >>> group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0]), masked=torch.zeros(4, dtype=torch.bool),
        ...                  normalize_std=True, std_floor=0.0, range_epsilon=1e-6).tolist()
        [1.0, -1.0, -1.0, 1.0]
    """
    values = rewards.double()
    counted = ~masked
    num_counted = counted.sum(-1, keepdim=True).clamp(min=1)
    mean = values.where(counted, 0.0).sum(-1, keepdim=True) / num_counted
    centred = (values - mean).where(counted, 0.0)
    highest = values.where(counted, -torch.inf).amax(-1, keepdim=True)
    lowest = values.where(counted, torch.inf).amin(-1, keepdim=True)
    # A fully masked group has range -inf, so it falls under the epsilon too.
    is_flat = highest - lowest < range_epsilon
    if not normalize_std:
        return centred.masked_fill(is_flat, 0.0)
    std = (centred.square().sum(-1, keepdim=True) / num_counted).sqrt().clamp(min=std_floor)
    return (centred / std).masked_fill(is_flat, 0.0)


def zero_signal_mask(advantages: torch.Tensor) -> torch.Tensor:
    """Tell which groups teach nothing.

    Args:
        advantages: [N, G].

    Returns:
        bool [N], True where every advantage of the group is exactly 0.
    """
    return (advantages == 0).all(-1)
