"""A tiny Qwen2-VL: the tower has plain MLPs and no windows."""

from dataclasses import replace
from typing import Any

from tests.families.case import TEXT
from tests.families.cases import qwen2_5_vl
from tests.families.cases.qwen2_5_vl import MROPE, PIXELS, QWEN_IDS


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Qwen2VLConfig

    return Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE},
        vision_config={
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "initializer_range": 0.1,
        },
        **QWEN_IDS,
        tie_word_embeddings=tie_word_embeddings,
    )


def processor(tokenizer: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    return Qwen2VLProcessor(Qwen2VLImageProcessor(**PIXELS), tokenizer, Qwen2VLVideoProcessor(**PIXELS))


CASE = replace(qwen2_5_vl.CASE, name="qwen2_vl", config=config, processor=processor)
