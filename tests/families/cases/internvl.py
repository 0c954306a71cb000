"""A tiny InternVL with a Qwen2 language model, as InternVL3; what InternVL3.5 shares is imported from here."""

from functools import partial
from typing import Any

from tests.families.case import IMAGE_TOKEN, TEXT, TOKEN_PIXELS, Case

SIDE = 2 * TOKEN_PIXELS
"""Tiles of 56 x 56 pixels are 2 x 2 tokens; a picture that is no square is cut into tiles and a thumbnail."""


def make_case(name: str, **text: Any) -> Case:
    """Return the case of an InternVL with a language model of these settings."""
    return Case(
        name=name,
        config=partial(config, text),
        processor=processor,
        control_tokens=("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        token_names=("start_image_token", "end_image_token", "context_image_token", "video_token"),
        image_markup="<IMG_CONTEXT>\n",
        num_image_tokens=num_image_tokens,
        plain_inputs=lambda ids, grids: {},
        parts={
            "vision_tower": "model.vision_tower.embeddings.cls_token",
            "projector": "model.multi_modal_projector.linear_1.weight",
            "language_model": "model.language_model.norm.weight",
        },
    )


def config(text: dict[str, Any], tie_word_embeddings: bool) -> Any:
    from transformers import InternVLConfig

    return InternVLConfig(
        text_config={**TEXT, **text, "tie_word_embeddings": tie_word_embeddings},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 14,
            "initializer_range": 0.1,
            "layer_scale_init_value": 1.0,
        },
        image_token_id=IMAGE_TOKEN,
        image_seq_length=4,
        tie_word_embeddings=tie_word_embeddings,
    )


def processor(tokenizer: Any) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    size = {"height": SIDE, "width": SIDE}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
    )


def num_image_tokens(width: int, height: int) -> int:
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas((height, width), (SIDE, SIDE), 1, 4)
    num_tiles = columns * rows
    return 4 * (num_tiles + (num_tiles > 1))


CASE = make_case("internvl", model_type="qwen2")
