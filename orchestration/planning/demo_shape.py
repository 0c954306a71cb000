"""The demo's tiny models in the words of a config.json, from the demo's own constants and without transformers."""

from typing import Any

from orchestration.demo.families.base import (
    MLP_WIDTH,
    NUM_HEADS,
    PATCH_SIZE,
    TEXT_LAYERS,
    VISION_LAYERS,
    WIDTH,
)
from orchestration.demo.settings import SIDE, FamilyName
from orchestration.demo.tokenizer import VOCAB_SIZE


def demo_config(family: FamilyName) -> dict[str, Any]:
    """Give what `read_shape` reads of the tiny model that the demo makes."""
    text = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_HEADS,
    }
    sizes = {"hidden_size": WIDTH, "intermediate_size": MLP_WIDTH, "patch_size": PATCH_SIZE}
    if family == "qwen2_5_vl":
        from orchestration.demo.families.qwen2_5_vl import MERGE_SIZE, TEMPORAL_PATCH, WINDOW_SIZE

        vision = {
            **sizes,
            "depth": VISION_LAYERS,
            "num_heads": NUM_HEADS,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH,
            "window_size": WINDOW_SIZE,
            "fullatt_block_indexes": [VISION_LAYERS - 1],
        }
        return {"model_type": family, "text_config": text, "vision_config": vision, "tie_word_embeddings": False}
    from orchestration.demo.families.internvl import DOWNSAMPLE_RATIO

    vision = {
        **sizes,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "attention_bias": True,
        "image_size": SIDE,
    }
    return {
        "model_type": family,
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": False,
        "downsample_ratio": DOWNSAMPLE_RATIO,
    }


def demo_processor(family: FamilyName) -> dict[str, Any]:
    """Give what `image_tokens` reads of the tiny model's image processor."""
    if family == "qwen2_5_vl":
        from orchestration.demo.families.qwen2_5_vl import MAX_PIXELS, MERGE_SIZE, MIN_PIXELS

        return {
            "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
            "patch_size": PATCH_SIZE,
            "merge_size": MERGE_SIZE,
        }
    return {"size": {"height": SIDE, "width": SIDE}, "min_patches": 1, "max_patches": 1}
