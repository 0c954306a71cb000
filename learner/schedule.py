"""The learning rate as a pure function of the training steps taken."""

import math

from learner.config import OptimizerConfig


def learning_rate_at(num_steps_taken: int, config: OptimizerConfig) -> float:
    """Give the learning rate of the next training step.

    Args:
        num_steps_taken: training steps before this one.
        config: peak, warm-up and schedule.

    Example:
        Two steps of warm-up to 0.1, then constant: the first step uses half.

        >>> learning_rate_at(0, OptimizerConfig(learning_rate=0.1, warmup_steps=2))
        0.05
    """
    if num_steps_taken < config.warmup_steps:
        return config.learning_rate * (num_steps_taken + 1) / config.warmup_steps
    if config.schedule == "constant" or config.total_steps is None:
        return config.learning_rate
    progress = min(1.0, (num_steps_taken - config.warmup_steps) / (config.total_steps - config.warmup_steps))
    remaining = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * remaining
