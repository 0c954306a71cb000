"""Sizes of the demo's tiny models, as config.json and processor settings; without transformers."""

from typing import Any

from orchestration.settings.demo import SIDE, FamilyName

VOCAB_SIZE = 576
"""Enough for 256 bytes, 11 added tokens, and each word of the demo as one token."""
WIDTH = 96
HEAD_DIM = 32
NUM_HEADS = WIDTH // HEAD_DIM
TEXT_LAYERS = 3
VISION_LAYERS = 3
MLP_WIDTH = 256
PATCH_SIZE = 14

MERGE_SIZE = 2
TEMPORAL_PATCH = 2
"""Patches of Qwen2.5-VL span two video frames; a still image is shown twice."""
WINDOW_SIZE = 112
"""An attention window covers a whole picture of the demo, so windowed and full attention are the same."""
MIN_PIXELS = 56 * 56
MAX_PIXELS = 448 * 448
"""Pictures between these areas whose sides divide by 28 reach the model unresized."""

DOWNSAMPLE_RATIO = 0.5
"""Of InternVL: 2 x 2 patches become one image token, as in Qwen2.5-VL."""


def text_shape() -> dict[str, Any]:
    """Return the sizes of the language model that all families share."""
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_HEADS,
    }


def vision_shape(family: FamilyName) -> dict[str, Any]:
    """Return the sizes of a family's vision tower under the keys of its config.json."""
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": MLP_WIDTH}
    if family == "qwen2_5_vl":
        return {
            **sizes,
            "depth": VISION_LAYERS,
            "num_heads": NUM_HEADS,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH,
            "window_size": WINDOW_SIZE,
            "fullatt_block_indexes": [VISION_LAYERS - 1],
        }
    return {
        **sizes,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "attention_bias": True,
        "image_size": [SIDE, SIDE],
        "patch_size": [PATCH_SIZE, PATCH_SIZE],
    }


def tiny_config(family: FamilyName) -> dict[str, Any]:
    """Return the config.json of a tiny model, as far as `read_shape` reads it."""
    config = {
        "model_type": family,
        "text_config": text_shape(),
        "vision_config": vision_shape(family),
        "tie_word_embeddings": False,
    }
    return config if family == "qwen2_5_vl" else {**config, "downsample_ratio": DOWNSAMPLE_RATIO}


def tiny_processor(family: FamilyName) -> dict[str, Any]:
    """Return the image processor settings of a tiny model, as far as `image_tokens` reads them."""
    if family == "qwen2_5_vl":
        return {
            "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
            "patch_size": PATCH_SIZE,
            "merge_size": MERGE_SIZE,
        }
    return {"size": {"height": SIDE, "width": SIDE}, "min_patches": 1, "max_patches": 1}
