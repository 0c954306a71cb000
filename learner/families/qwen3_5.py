"""Qwen3.5, and its successors of the same architecture."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from learner.attention.linear import LinearBlocks, State, prepare_linear, scan_stream
from learner.families.qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from learner.attention.kernel import StreamLayout


class Qwen35(Qwen25VL):
    """Qwen3.5, dense: three of four layers are gated delta nets; M-RoPE positions, boxes in 0..1000.

    Source: Gated DeltaNet, arXiv:2412.06464. Images and positions are those of Qwen2.5-VL.
    """

    parts: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "vision_tower": ("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."),
            "projector": ("model.visual.merger.",),
            "language_model": ("model.language_model.", "lm_head."),
        }
    )

    def prepare(self, model: Any) -> None:
        """Have the gated delta nets read streams: transformers' own would run on from one sequence into the next."""
        for layer in model.model.language_model.layers:
            if layer.block_type == "linear_attention":
                layer.linear_attn.forward = MethodType(_forward, layer.linear_attn)

    def stream_arguments(self, layout: "StreamLayout", device: torch.device) -> dict[str, Any]:
        return {"linear_blocks": prepare_linear(layout, device)}


def _forward(self: Any, hidden_states: torch.Tensor, *, linear_blocks: LinearBlocks, **_: Any) -> torch.Tensor:
    """Forward pass of transformers' Qwen3_5GatedDeltaNet on a stream [1, L, D].

    All but convolution and recurrence treats tokens one by one, and so needs no padding.
    """
    stream = hidden_states[0]
    # A row of zeros in both leaves the state as it is: nothing decays, and nothing is written.
    beta = self.in_proj_b(stream).sigmoid()
    log_decay = -self.A_log.float().exp() * F.softplus(self.in_proj_a(stream).float() + self.dt_bias)
    out = scan_stream(partial(_scan, self), (self.in_proj_qkv(stream), log_decay, beta), linear_blocks)
    gate = self.in_proj_z(stream).view(-1, self.head_v_dim)
    out = self.norm(out.reshape(-1, self.head_v_dim), gate).view(len(stream), -1)
    mixed: torch.Tensor = self.out_proj(out)
    return mixed[None]


def _scan(layer: Any, inputs: Sequence[torch.Tensor], state: State | None) -> tuple[torch.Tensor, State]:
    """Convolution and gated delta rule of a block; see `learner.attention.linear.Scan`.

    Both are the functions of transformers' own layer, which takes the kernels of causal-conv1d and
    flash-linear-attention where they are installed, and torch otherwise.

    Args:
        layer: with the weights.
        inputs: of the convolution [n, T, C], decay and learning rate of the rule [n, T, V heads].
        state: last inputs of the convolution [n, kernel - 1, C], recurrent state [n, V heads, K size, V size].
    """
    from transformers.models.qwen3_5.modeling_qwen3_5 import causal_conv1d_fn, torch_chunk_gated_delta_rule

    mixed, log_decay, beta = inputs
    num_before = layer.conv_kernel_size - 1
    before, recurrent = (mixed.new_zeros(len(mixed), num_before, mixed.shape[2]), None) if state is None else state
    mixed = torch.cat([before, mixed], dim=1)
    convolved = causal_conv1d_fn(
        mixed.transpose(1, 2), layer.conv1d.weight.squeeze(1), layer.conv1d.bias, activation=layer.activation
    )
    query, key, value = (
        convolved[:, :, num_before:].transpose(1, 2).split([layer.key_dim, layer.key_dim, layer.value_dim], dim=2)
    )
    repeats = layer.num_v_heads // layer.num_k_heads
    query, key = (
        tensor.unflatten(2, (layer.num_k_heads, layer.head_k_dim)).repeat_interleave(repeats, dim=2)
        for tensor in (query, key)
    )
    out, end = torch_chunk_gated_delta_rule(
        query,
        key,
        value.unflatten(2, (layer.num_v_heads, layer.head_v_dim)),
        g=log_decay,
        beta=beta,
        initial_state=recurrent,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    return out, (mixed[:, -num_before:], end)
