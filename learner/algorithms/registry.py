"""Algorithms by name: how a group's rewards become advantages, and which loss they drive."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from learner.algorithms.advantages import group_advantages
from learner.algorithms.losses import policy_gradient_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """The two functions that make one algorithm."""

    advantages: Callable[..., torch.Tensor]
    """As `group_advantages`."""
    loss: Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]
    """As `policy_gradient_loss`."""


ALGORITHMS = {"grpo": Algorithm(advantages=group_advantages, loss=policy_gradient_loss)}


def get_algorithm(name: str) -> Algorithm:
    """Look up an algorithm.

    Raises:
        ValueError: no such name; the message lists the known ones.

    Example:
        >>> get_algorithm("grpo").loss.__name__
        'policy_gradient_loss'
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm.name is {name!r}; known: {', '.join(sorted(ALGORITHMS))}")
    return ALGORITHMS[name]
