"""A tiny GLM-4.1V, which no family here knows: the class of learner/README.md's example of an own family."""

from dataclasses import replace
from typing import Any

from tests.families.case import IMAGE_TOKEN, TEXT, TOKEN_PIXELS, VIDEO_TOKEN, VISION_END, VISION_START
from tests.families.cases import qwen2_5_vl
from tests.families.cases.qwen2_5_vl import MROPE

# Half of a head is rotated, as in published checkpoints; vLLM takes no other share.
ROPE = {**MROPE, "mrope_section": [2, 3, 3], "partial_rotary_factor": 0.5}
# Areas are counted over both frames of a still image.
PIXELS = {"size": {"shortest_edge": 2 * TOKEN_PIXELS**2, "longest_edge": 2 * (8 * TOKEN_PIXELS) ** 2}}


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Glm4vConfig

    return Glm4vConfig(
        text_config={**TEXT, "rope_parameters": ROPE, "pad_token_id": 0, "attention_bias": True},  # vLLM reads it
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
            "image_size": 112,
            "patch_size": 14,
            "initializer_range": 0.1,
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        image_start_token_id=VISION_START,
        image_end_token_id=VISION_END,
        tie_word_embeddings=tie_word_embeddings,
    )


def processor(tokenizer: Any) -> Any:
    from transformers import Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor

    return Glm4vProcessor(Glm4vImageProcessor(**PIXELS), tokenizer, Glm4vVideoProcessor(**PIXELS))


CASE = replace(
    qwen2_5_vl.CASE,
    name="glm4v",
    class_in_readme="Glm4v",
    config=config,
    processor=processor,
    control_tokens=(
        *("<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>"),
        *("<|begin_of_video|>", "<|end_of_video|>"),
    ),
    image_markup="<|begin_of_image|><|image|><|end_of_image|>",
    parts={
        "vision_tower": "model.visual.embeddings.position_embedding.weight",
        "projector": "model.visual.downsample.weight",
        "language_model": "model.language_model.norm.weight",
    },
)
