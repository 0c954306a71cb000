"""What the embedded demo is made of; light, so that the configuration can hold it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

FamilyName = Literal["qwen2_5_vl", "internvl"]
"""Model families that the demo makes in miniature."""

FrameName = Literal["pixel_resized", "norm1000"]
"""Frames in which the demonstrations can write boxes."""

FAMILY_FRAMES: Mapping[FamilyName, FrameName] = MappingProxyType(
    {"qwen2_5_vl": "pixel_resized", "internvl": "norm1000"}
)
"""Frame in which the large models of a family answer boxes, so the tiny ones learn to as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """The warm start of the tiny model; equal settings give equal models."""

    seed: int
    """Of demonstrations, initial weights and warm start."""
    warm_start_steps: int
    """Optimiser steps of supervised training on mixed-quality demonstrations."""
    warm_start_batch_size: int
    """Pictures a step; each comes with `questions_per_picture` demonstrations."""
    warm_start_learning_rate: float
    fault_frac: float
    """Share of demonstrations with a fault, for reinforcement learning to take out."""
    questions_per_picture: int = 4
    """In the warm start alone, where the picture is encoded once for all its questions."""

    def __post_init__(self) -> None:
        """Check counts and the share."""
        for name in (
            "warm_start_steps",
            "warm_start_batch_size",
            "questions_per_picture",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"demo.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.fault_frac <= 1.0:
            raise ValueError(f"demo.fault_frac is {self.fault_frac}; it is a share in [0, 1]")

    @property
    def num_warm_start_samples(self) -> int:
        """Demonstrations that the warm start needs to meet each but once."""
        return self.warm_start_steps * self.warm_start_batch_size * self.questions_per_picture
