"""The optimiser, the same for every backend."""

from collections.abc import Iterable
from typing import Any

import torch

from learner.config import OptimizerConfig

# Weight decay pulls matrices towards zero; biases and norm weights are vectors and stay as they are.
MIN_DECAYED_AXES = 2


def parameter_groups(policy: torch.nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Sort the trainable parameters into those that decay and those that do not."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= MIN_DECAYED_AXES], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < MIN_DECAYED_AXES], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over parameter groups, as one kernel without temporaries: torch has it for GPUs and for CPUs.

    Args:
        groups: from `parameter_groups`.
        config: rates and decay.
    """
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def run_fused(groups: Iterable[dict[str, Any]]) -> None:
    """Let parameter groups that a checkpoint brought run as `make_optimizer` has it, whichever kernel wrote them."""
    for group in groups:
        group.update(fused=True, foreach=None)
