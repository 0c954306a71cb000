"""What the embedded demo is made of; light, so that the configuration can hold it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Size of the drawn data and of the warm start; equal settings give equal artifacts."""

    seed: int
    """Of drawings, initial weights and warm start."""
    num_train: int
    num_held_out: int
    warm_start_steps: int
    """Optimiser steps of supervised training on mixed-quality demonstrations."""
    warm_start_batch_size: int
    warm_start_learning_rate: float
    fault_frac: float
    """Share of demonstrations with a fault, for reinforcement learning to take out."""

    def __post_init__(self) -> None:
        """Check counts and the share."""
        for name in ("num_train", "num_held_out", "warm_start_steps", "warm_start_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"demo.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.fault_frac <= 1.0:
            raise ValueError(f"demo.fault_frac is {self.fault_frac}; it is a share in [0, 1]")
