"""A tiny Qwen3, a language model: its folder has a tokenizer and no processor."""

from typing import Any

from tests.families.case import TEXT, Case


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**TEXT, head_dim=32, tie_word_embeddings=tie_word_embeddings)


CASE = Case(
    name="qwen3",
    config=config,
    processor=lambda tokenizer: tokenizer,
    control_tokens=(),
    image_markup=None,
    num_image_tokens=None,
    plain_inputs=None,
    parts={"language_model": "model.norm.weight"},
)
