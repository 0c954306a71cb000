"""A tiny Qwen3-VL: patches of 16, features of two earlier tower blocks, heads wider than the hidden size over heads."""

from dataclasses import replace
from typing import Any

from tests.families.case import TEXT
from tests.families.cases import qwen2_5_vl
from tests.families.cases.qwen2_5_vl import MROPE, QWEN_IDS

TOKEN_PIXELS = 32
PIXELS = {
    "size": {"shortest_edge": TOKEN_PIXELS**2, "longest_edge": (8 * TOKEN_PIXELS) ** 2},
    "patch_size": 16,
    "merge_size": 2,
    "temporal_patch_size": 2,
}
VISION = {
    "depth": 3,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 16,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1],
    "initializer_range": 0.1,
}


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 32, "rope_parameters": {**MROPE, "mrope_interleaved": True}},
        vision_config=VISION,
        **QWEN_IDS,
        tie_word_embeddings=tie_word_embeddings,
    )


def processor(tokenizer: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(Qwen2VLImageProcessor(**PIXELS), tokenizer, Qwen3VLVideoProcessor(**PIXELS))


def num_image_tokens(width: int, height: int) -> int:
    """Sides are rounded to the nearest multiple of 32; 112 is half-way and goes to the even one, 128."""
    return round(width / TOKEN_PIXELS) * round(height / TOKEN_PIXELS)


CASE = replace(
    qwen2_5_vl.CASE,
    name="qwen3_vl",
    config=config,
    processor=processor,
    num_image_tokens=num_image_tokens,
    parts={
        "vision_tower": "model.visual.pos_embed.weight",
        "projector": "model.visual.deepstack_merger_list.1.linear_fc1.weight",
        "language_model": "model.language_model.norm.weight",
    },
)
