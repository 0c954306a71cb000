"""A tiny Qwen3.5: two gated delta nets and a layer of full attention; linear heads of 128, as engines on CPU want."""

from dataclasses import replace
from typing import Any

from tests.families.case import TEXT
from tests.families.cases import qwen3_vl
from tests.families.cases.qwen2_5_vl import QWEN_IDS

LINEAR_HEAD = 128
ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "mrope_section": [4, 2, 2],
    "mrope_interleaved": True,
}
VISION = {name: value for name, value in qwen3_vl.VISION.items() if name != "deepstack_visual_indexes"}


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Qwen3_5Config

    text = {
        **TEXT,
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "head_dim": 32,
        "linear_key_head_dim": LINEAR_HEAD,
        "linear_value_head_dim": LINEAR_HEAD,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "rope_parameters": ROPE,
        "tie_word_embeddings": tie_word_embeddings,
    }
    return Qwen3_5Config(text_config=text, vision_config=VISION, **QWEN_IDS, tie_word_embeddings=tie_word_embeddings)


CASE = replace(
    qwen3_vl.CASE,
    name="qwen3_5",
    config=config,
    parts={
        "vision_tower": "model.visual.pos_embed.weight",
        "projector": "model.visual.merger.linear_fc1.weight",
        "language_model": "model.language_model.layers.0.linear_attn.A_log",
    },
    lora_targets=("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj", "q_proj"),
    engine_dtype="bfloat16",
    engine_atol=0.15,
)
