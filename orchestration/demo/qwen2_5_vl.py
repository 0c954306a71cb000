"""A tiny Qwen2.5-VL: patches in windows, 2 x 2 of them an image token, positions in time, height and width."""

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
from orchestration.models.tiny import (
    MAX_PIXELS,
    MERGE_SIZE,
    MIN_PIXELS,
    PATCH_SIZE,
    TEMPORAL_PATCH,
    WIDTH,
    vision_shape,
)
from orchestration.settings.demo import SIDE

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor

VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"
SPECIAL_TOKENS = (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)

MROPE_SECTION = (4, 6, 6)
"""Rotary frequencies for time, height and width; they sum to half the head dimension."""
GRID_SIDE = SIDE // PATCH_SIZE
"""Patches along each side of a drawing."""


def make_processor(tokenizer: "Tokenizer") -> "Qwen2_5_VLProcessor":
    """Wrap the tokenizer into a Qwen2.5-VL processor."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels: dict[str, Any] = {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}}
    grid: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": TEMPORAL_PATCH}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels, **grid),
        video_processor=Qwen2VLVideoProcessor(**pixels, **grid),
        tokenizer=wrap_tokenizer(tokenizer, extra_special_tokens=["<|im_start|>", *SPECIAL_TOKENS]),
    )


def make_config(tokenizer: Any) -> "Qwen2_5_VLConfig":
    """Return the configuration of the tiny model for a tokenizer."""
    from transformers import Qwen2_5_VLConfig

    token_id = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": list(MROPE_SECTION)}
    return Qwen2_5_VLConfig(
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        text_config={**text_settings(tokenizer), "rope_parameters": rope},
        vision_config={
            **vision_shape("qwen2_5_vl"),
            "out_hidden_size": WIDTH,
            "initializer_range": INITIALIZER_RANGE,
        },
        image_token_id=token_id(IMAGE_PAD),
        video_token_id=token_id(VIDEO_PAD),
        vision_start_token_id=token_id(VISION_START),
        vision_end_token_id=token_id(VISION_END),
        tie_word_embeddings=False,
        dtype="float32",
    )


def image_positions(image_start: int, length: int) -> "torch.Tensor":
    """Return the M-RoPE positions [3, length] of a text with one drawing; the image's cells share one time."""
    import torch

    side = GRID_SIDE // MERGE_SIZE
    cells = torch.arange(IMAGE_TOKENS)
    head = torch.arange(image_start)
    tail = torch.arange(length - image_start - IMAGE_TOKENS) + image_start + side
    axes = (torch.zeros_like(cells), cells // side, cells % side)
    return torch.stack([torch.cat([head, axis + image_start, tail]) for axis in axes])


def vision_inputs(images_png: Sequence[bytes]) -> dict[str, "torch.Tensor"]:
    """Return pixel_values [num patches, patch values] and image_grid_thw [B, 3] of drawings."""
    import torch

    grid = torch.tensor([(1, GRID_SIDE, GRID_SIDE)] * len(images_png))
    return {"pixel_values": torch.from_numpy(patches(images_png)), "image_grid_thw": grid}


def patches(images_png: Sequence[bytes]) -> NDArray[np.float32]:
    """Return the patches [num patches, patch values] that Qwen2.5-VL's image processor makes of unresized pictures.

    Args:
        images_png: Files of pictures of one size, whose sides divide by the side of an image token.
    """
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    pictures = decode_drawings(images_png)
    num_pictures, height, width, num_channels = pictures.shape
    rows, columns = height // (MERGE_SIZE * PATCH_SIZE), width // (MERGE_SIZE * PATCH_SIZE)
    blocks = pictures.reshape(num_pictures, rows, MERGE_SIZE, PATCH_SIZE, columns, MERGE_SIZE, PATCH_SIZE, num_channels)
    blocks = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, num_channels, 1, PATCH_SIZE * PATCH_SIZE)
    mean, std = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    values = blocks * np.float32(1 / 255.0) / std - mean / std
    return values.repeat(TEMPORAL_PATCH, axis=2).reshape(len(blocks), -1)


QWEN2_5_VL = TinyFamily(
    special_tokens=SPECIAL_TOKENS,
    image_token=IMAGE_PAD,
    image_markup=VISION_START + IMAGE_PAD + VISION_END,
    drawing_markup=VISION_START + IMAGE_PAD * IMAGE_TOKENS + VISION_END,
    video_markup=VISION_START + VIDEO_PAD + VISION_END,
    silent_weights=("o_proj.weight", "down_proj.weight", "attn.proj.weight"),
    make_processor=make_processor,
    make_config=make_config,
    image_positions=image_positions,
    vision_inputs=vision_inputs,
)
