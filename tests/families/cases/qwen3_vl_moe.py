"""A tiny Qwen3-VL-MoE: experts in each layer, none of whose sizes is the hidden size; stored as published ones are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.families.case import TEXT
from tests.families.cases import qwen3_vl
from tests.families.cases.qwen2_5_vl import MROPE, QWEN_IDS

EXPERTS: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}


def config(tie_word_embeddings: bool, **text: Any) -> Any:
    """`text` changes settings of the language model."""
    from transformers import Qwen3VLMoeConfig

    rope = {**MROPE, "mrope_interleaved": True}
    return Qwen3VLMoeConfig(
        text_config={**TEXT, **EXPERTS, "head_dim": 32, "norm_topk_prob": True, "rope_parameters": rope, **text},
        vision_config=qwen3_vl.VISION,
        **QWEN_IDS,
        tie_word_embeddings=tie_word_embeddings,
    )


def swap_experts(folder: Path) -> None:
    """Swap the axes of stored experts: transformers 5 saves them otherwise than published checkpoints have them."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {name: t.mT.contiguous() if ".experts." in name else t for name, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


CASE = replace(
    qwen3_vl.CASE,
    name="qwen3_vl_moe",
    config=config,
    as_published=swap_experts,
    parts={**qwen3_vl.CASE.parts, "language_model": "model.language_model.layers.0.mlp.experts.down_proj"},
    lora_targets=("q_proj", "o_proj"),
)
