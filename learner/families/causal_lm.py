"""Language models without images, in a stream."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from learner.config import STREAMED_TEXT
from learner.errors import LearnerError
from learner.families.base import ImageInputs, ModelFamily, StreamInputs

FULL = "full_attention"
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Rotary embeddings that depend on the longest sequence of a batch."""


def is_streamed(config: Any) -> bool:
    """Return whether a language model attends causally over the whole sequence in every layer, as a stream does."""
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if config.model_type not in STREAMED_TEXT or rope in LENGTH_DEPENDENT:
        return False
    windows = getattr(config, "layer_types", None)
    if windows is None:
        return getattr(config, "sliding_window", None) is None
    return all(kind == FULL for kind in windows)


class CausalLM(ModelFamily):
    """Llama, Qwen3 and others of their build: plain positions, full causal attention, text only."""

    is_text_only = True
    parts: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {"vision_tower": (), "projector": (), "language_model": ("model.", "lm_head.")}
    )

    def __init__(self, config: Any) -> None:
        self.image_token_id = -1  # no token is an image's

    def set_attention(self, model: Any, *, text: str, tower: str) -> None:
        model.set_attn_implementation(text)

    def encode(self, image_processor: Any, images: Sequence[Image.Image]) -> list[ImageInputs]:
        """Refuse images.

        Raises:
            LearnerError: always.
        """
        raise LearnerError("a language model takes no images; train it on rows without images")

    def dummy_image(self) -> ImageInputs:
        """Return no image: there is no tower that would have to run on every rank."""
        return ImageInputs(pixel_values=torch.zeros(0), grids=torch.zeros(0, 3, dtype=torch.int64))

    def num_tokens(self, grid: Sequence[int]) -> int:
        return 0

    def prompt_positions(
        self, is_image: NDArray[np.bool_], grids: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], int]:
        return np.arange(len(is_image))[None], len(is_image)

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """[1, L]."""
        return positions

    def image_features(self, model: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        return pixel_values

    def hidden_states(self, model: Any, inputs: StreamInputs) -> torch.Tensor:
        hidden: torch.Tensor = model.model(
            input_ids=inputs.input_ids, position_ids=inputs.position_ids, use_cache=False, **inputs.arguments
        ).last_hidden_state[0]
        return hidden

    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        return []

    def language_blocks(self, model: Any) -> list[torch.nn.Module]:
        return list(model.model.layers)
