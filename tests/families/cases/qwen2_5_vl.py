"""A tiny Qwen2.5-VL; what it shares with its relatives is imported from here."""

from typing import Any

import torch

from tests.families.case import (
    IMAGE_TOKEN,
    TEXT,
    TOKEN_PIXELS,
    VIDEO_TOKEN,
    VISION_END,
    VISION_START,
    Case,
)

QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_MARKUP = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_IDS = {
    "image_token_id": IMAGE_TOKEN,
    "video_token_id": VIDEO_TOKEN,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
PIXELS = {"size": {"shortest_edge": TOKEN_PIXELS**2, "longest_edge": (8 * TOKEN_PIXELS) ** 2}}


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE},
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.1,
        },
        **QWEN_IDS,
        tie_word_embeddings=tie_word_embeddings,
    )


def processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**PIXELS), tokenizer, Qwen2VLVideoProcessor(**PIXELS))


def num_image_tokens(width: int, height: int) -> int:
    return (width // TOKEN_PIXELS) * (height // TOKEN_PIXELS)


def grid_and_kinds(ids: torch.Tensor, grids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"image_grid_thw": grids, "mm_token_type_ids": (ids == IMAGE_TOKEN).int()}


CASE = Case(
    name="qwen2_5_vl",
    config=config,
    processor=processor,
    control_tokens=QWEN_TOKENS,
    image_markup=QWEN_MARKUP,
    num_image_tokens=num_image_tokens,
    plain_inputs=grid_and_kinds,
    parts={
        "vision_tower": "model.visual.blocks.0.attn.qkv.weight",
        "projector": "model.visual.merger.mlp.0.weight",
        "language_model": "model.language_model.norm.weight",
    },
)
