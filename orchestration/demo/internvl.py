"""A tiny InternVL in the layout of the InternVL3-hf checkpoints: square tiles, plain positions, boxes in 0..1000.

A drawing is exactly one tile. The processor may cut no picture into more (max_patches 1), so there is no thumbnail
either, and every picture costs the same image tokens.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestration.demo.family import (
    IMAGE_TOKENS,
    INITIALIZER_RANGE,
    ROPE_THETA,
    TinyFamily,
    decode_drawings,
    text_settings,
)
from orchestration.demo.tokenizer import wrap_tokenizer
from orchestration.models.tiny import DOWNSAMPLE_RATIO, vision_shape
from orchestration.settings.demo import SIDE

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import InternVLConfig, InternVLProcessor

IMAGE_START = "<img>"
IMAGE_END = "</img>"
IMAGE_CONTEXT = "<IMG_CONTEXT>"
VIDEO = "<video>"
SPECIAL_TOKENS = (IMAGE_START, IMAGE_END, IMAGE_CONTEXT, VIDEO)


def make_processor(tokenizer: "Tokenizer") -> "InternVLProcessor":
    """Wrap the tokenizer into an InternVL processor."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    pixels: dict[str, Any] = {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": list(IMAGENET_DEFAULT_MEAN),
        "image_std": list(IMAGENET_DEFAULT_STD),
    }
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**pixels, min_patches=1, max_patches=1),
        video_processor=InternVLVideoProcessor(**pixels),
        tokenizer=wrap_tokenizer(
            tokenizer,
            extra_special_tokens=["<|im_start|>"],
            model_specific_special_tokens={
                "start_image_token": IMAGE_START,
                "end_image_token": IMAGE_END,
                "context_image_token": IMAGE_CONTEXT,
                "video_token": VIDEO,
            },
        ),
        image_seq_length=IMAGE_TOKENS,
    )


def make_config(tokenizer: Any) -> "InternVLConfig":
    """Return the configuration of the tiny model for a tokenizer."""
    from transformers import InternVLConfig

    return InternVLConfig(
        architectures=["InternVLForConditionalGeneration"],
        text_config={
            **text_settings(tokenizer),
            "model_type": "qwen2",
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "tie_word_embeddings": False,
        },
        vision_config={
            **vision_shape("internvl"),
            "initializer_range": INITIALIZER_RANGE,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT),
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=DOWNSAMPLE_RATIO,
        tie_word_embeddings=False,
        initializer_range=INITIALIZER_RANGE,
        dtype="float32",
    )


def image_positions(image_start: int, length: int) -> "torch.Tensor":
    """Return the positions [1, length] of a text with one drawing: an image token counts like any other."""
    import torch

    return torch.arange(length)[None]


def vision_inputs(images_png: Sequence[bytes]) -> dict[str, "torch.Tensor"]:
    """Return pixel_values [B, 3, SIDE, SIDE] of drawings."""
    import torch

    return {"pixel_values": torch.from_numpy(tiles(images_png))}


def tiles(images_png: Sequence[bytes]) -> NDArray[np.float32]:
    """Return the tiles [B, 3, SIDE, SIDE] that InternVL's image processor makes of drawings."""
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    pictures = decode_drawings(images_png).transpose(0, 3, 1, 2)
    mean, std = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return pictures * np.float32(1 / 255.0) / std - mean / std


INTERNVL = TinyFamily(
    special_tokens=SPECIAL_TOKENS,
    image_token=IMAGE_CONTEXT,
    image_markup=IMAGE_CONTEXT + "\n",
    drawing_markup=IMAGE_START + IMAGE_CONTEXT * IMAGE_TOKENS + IMAGE_END + "\n",
    video_markup=VIDEO + "\n",
    silent_weights=("o_proj.weight", "down_proj.weight", "projection_layer.weight", "fc2.weight"),
    make_processor=make_processor,
    make_config=make_config,
    image_positions=image_positions,
    vision_inputs=vision_inputs,
)
