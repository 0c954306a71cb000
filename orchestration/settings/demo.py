"""What the embedded demo is made of; light, so that the configuration can hold it."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

SIDE = 112
"""Width and height of every picture in pixels; a multiple of 28, so that the processor never resizes it."""

CELL = 28
"""Pixels of one image token of the language model (2 x 2 patches): scenes put shapes on this grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """The warm start of the tiny model; equal settings give equal models."""

    seed: Annotated[int, Ge(0)]
    """Of demonstrations, initial weights and warm start."""
    warm_start_steps: Annotated[int, Ge(1)]
    """Optimiser steps of supervised training on mixed-quality demonstrations."""
    warm_start_batch_size: Annotated[int, Ge(1)]
    """Pictures a step; each comes with `questions_per_picture` demonstrations."""
    warm_start_learning_rate: Annotated[float, Ge(0)]
    fault_frac: Annotated[float, Ge(0), Le(1)]
    """Share of demonstrations with a fault, for reinforcement learning to take out."""
    questions_per_picture: Annotated[int, Ge(1)] = 4
    """In the warm start alone, where the picture is encoded once for all its questions."""
    in_words: bool = False
    """Whether questions say in words what is drawn, for models that take no pictures; there are no boxes then."""

    @property
    def num_warm_start_samples(self) -> int:
        """Demonstrations that the warm start needs to meet each but once."""
        return self.warm_start_steps * self.warm_start_batch_size * self.questions_per_picture
