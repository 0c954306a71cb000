"""What a block keeps, as its modules say it, against what autograd saves in transformers' own forward pass."""

from math import ceil
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from orchestration.models.shapes import read_saved_shape, shape_of
from orchestration.plan.activations import CHUNK_TOKENS, FLOAT32, StreamLoad, largest_load
from tests.unit.plan.runs import settings

TOLERANCE = 0.15
TOKENS = 250
"""No multiple of a chunk: of one, torch's delta rule copies four operands of its products."""
LINEAR = {
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
}
TEXTS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 64},
    "qwen3_moe": {
        "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 192,
        "decoder_sparse_step": 1,
    },
    "qwen3_5_text": {"head_dim": 64, **LINEAR, "layer_types": ["full_attention"] * 2},
    "qwen3_5_text, linear attention": {"head_dim": 64, **LINEAR, "layer_types": ["linear_attention"] * 2},
}  # fmt: skip


def saved_bytes(model: Any, width: int) -> int:
    """Count what autograd holds after a forward pass besides parameters: each memory once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    inputs = torch.randn(1, TOKENS, width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(inputs_embeds=inputs, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("name", TEXTS)
def test_blocks_of_every_kind_keep_what_is_planned_within_15_percent(name: str) -> None:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        **TEXTS[name],
    }
    kind = name.partition(",")[0]
    found = read_saved_shape({"model_type": kind, "tie_word_embeddings": False, **sizes}).text
    model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))

    last_norm = 3 * FLOAT32 * TOKENS * found.width
    measured = saved_bytes(model, found.width) - last_norm

    chunk_rows = CHUNK_TOKENS * ceil(TOKENS / CHUNK_TOKENS)
    planned = sum(TOKENS * block.kept(FLOAT32) + FLOAT32 * chunk_rows * block.chunked for block in found.blocks)
    assert planned == pytest.approx(measured, rel=TOLERANCE)


def test_padded_rows_hold_a_prompt_each_and_fill_the_budget() -> None:
    config = settings("model=tiny_gemma4")
    prompt = config.rollout.engine.max_model_len - config.rollout.sampling.max_completion_tokens

    load = largest_load(config, shape_of(config.model))

    assert load.num_prompts == load.num_completions
    row = prompt + load.completion_tokens - 1
    assert load.num_tokens == load.num_prompts * row <= config.learner.micro_batch_tokens < load.num_tokens + row


def test_chunks_of_linear_attention_are_whole_for_each_prompt_and_completion() -> None:
    load = StreamLoad(num_prompts=2, prompt_tokens=100, image_tokens=0, num_completions=8, completion_tokens=66)

    assert load.num_chunk_rows == 2 * 128 + 8 * 128
