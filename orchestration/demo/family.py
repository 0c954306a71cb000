"""What the tiny models of all families share, and TinyFamily: everything in which families differ."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestration.demo.drawn.samples import END_OF_TURN
from orchestration.demo.tokenizer import MAX_TOKENS, PAD
from orchestration.models.tiny import text_shape
from orchestration.settings.demo import CELL, SIDE

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, ProcessorMixin

MAX_POSITIONS = MAX_TOKENS
ROPE_THETA = 30.0
INITIALIZER_RANGE = 0.05
"""Half of 1 / sqrt(width); the 0.02 of large models leaves so narrow a network silent for its first hundred steps."""

IMAGE_TOKENS = (SIDE // CELL) ** 2
"""Of a drawing, in every family: one for each of its cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyFamily:
    """One model family in miniature: its tokens, how its folder is made, and what its forward pass wants."""

    special_tokens: tuple[str, ...]
    """Control tokens beside those of the chat."""
    image_token: str
    """Stands once for each image token of an expanded prompt."""
    image_markup: str
    """What the chat template writes for an image."""
    drawing_markup: str
    """What the processor makes of `image_markup` for one drawing."""
    video_markup: str
    """What the chat template writes for a video."""
    silent_weights: tuple[str, ...]
    """Endings of the names of each block's last matrices."""
    make_processor: "Callable[[Tokenizer], ProcessorMixin]"
    """Wraps a new tokenizer; the chat template is set by the caller."""
    make_config: "Callable[[Any], PreTrainedConfig]"
    """Returns the model's configuration for a processor's tokenizer."""
    image_positions: "Callable[[int, int], torch.Tensor]"
    """(index of the first image token, tokens in all) -> rotary positions [A, L] of a text with one drawing, A axes."""
    vision_inputs: "Callable[[Sequence[bytes]], dict[str, torch.Tensor]]"
    """Files of drawings -> keyword arguments of the model's forward pass, equal to what the processor gives."""


def text_settings(tokenizer: Any) -> dict[str, Any]:
    """Return the settings of the language model that all families share."""
    return {
        **text_shape(),
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": INITIALIZER_RANGE,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids(END_OF_TURN),
        "pad_token_id": tokenizer.convert_tokens_to_ids(PAD),
        "dtype": "float32",
    }


def decode_drawings(images_png: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return the pixels [B, SIDE, SIDE, 3] of drawings."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in images_png])
