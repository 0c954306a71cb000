"""The optimiser, the same for every backend."""

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


def make_optimizer(policy: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Give AdamW over the trainable parameters, decaying matrices only."""
    return torch.optim.AdamW(
        parameter_groups(policy, config), lr=config.learning_rate, betas=config.betas, eps=config.eps, foreach=True
    )
