"""Exact attention over prefix-shared token streams, as an attention implementation of transformers.

The stream of a micro-batch is all prompts, then all completions, without padding. Each layer gathers it into two
padded blocks and runs one attention call on each: prompts attend to themselves, completions to their own prompt and
to themselves.

Axes: L tokens of the stream, H heads, D head size, N prompts, P longest prompt, S completions, M longest completion
(without its last token).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

ATTENTION_NAME = "prefix_shared"
LAYOUT_KEY = "prefix_layout"
"""Keyword under which a forward call carries its PrefixLayout down to the attention function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixLayout:
    """Where the tokens of a stream stand in the padded blocks."""

    rows: torch.Tensor
    """[N * P + S * M] stream row of each slot, prompt block first; padding slots point to row 0."""
    slots: torch.Tensor
    """[L] slot of each stream row."""
    is_padding: torch.Tensor
    """bool [N * P + S * M]"""
    prompt_of: torch.Tensor
    """[S] prompt of each completion."""
    completion_bias: torch.Tensor
    """[S, 1, M, P + M] 0 where a completion slot may look, -inf elsewhere."""
    shape: tuple[int, int, int, int]
    """(N, P, S, M)"""


def build_layout(
    prompt_lengths: NDArray[np.int64],
    completion_lengths: NDArray[np.int64],
    prompt_of: NDArray[np.int64],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> PrefixLayout:
    """Lay out a stream of all prompts followed by all completions.

    Args:
        prompt_lengths: [N].
        completion_lengths: [S] tokens fed of each completion (its length minus 1); may be 0.
        prompt_of: [S] index of each completion's prompt.
        device: of the stream.
        dtype: of queries and keys.
    """
    prompt_rows, prompt_used = _padded_rows(prompt_lengths, first_row=0)
    completion_rows, completion_used = _padded_rows(completion_lengths, first_row=int(prompt_lengths.sum()))
    used = np.concatenate([prompt_used.ravel(), completion_used.ravel()])
    (num_prompts, longest_prompt), (num_completions, longest) = prompt_rows.shape, completion_rows.shape
    bias = torch.zeros(num_completions, 1, longest, longest_prompt + longest, device=device, dtype=dtype)
    is_hidden_prompt = torch.from_numpy(~prompt_used[prompt_of]).to(device)
    bias[..., :longest_prompt].masked_fill_(is_hidden_prompt[:, None, None, :], -torch.inf)
    is_future = torch.ones(longest, longest, dtype=torch.bool, device=device).triu(1)
    bias[..., longest_prompt:].masked_fill_(is_future, -torch.inf)
    return PrefixLayout(
        rows=torch.from_numpy(np.concatenate([prompt_rows.ravel(), completion_rows.ravel()])).to(device),
        # Slots in use, read in order, are exactly the stream.
        slots=torch.from_numpy(np.flatnonzero(used)).to(device),
        is_padding=torch.from_numpy(~used).to(device),
        prompt_of=torch.from_numpy(prompt_of).to(device),
        completion_bias=bias,
        shape=(num_prompts, longest_prompt, num_completions, longest),
    )


def _padded_rows(lengths: NDArray[np.int64], first_row: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Stream row of each slot [rows, longest] (0 where unused), and which slots are used."""
    longest = int(lengths.max()) if len(lengths) else 0
    starts = first_row + np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)[: len(lengths)]
    column = np.arange(longest)
    used = column[None, :] < lengths[:, None]
    return np.where(used, starts[:, None] + column[None, :], 0), used


class _ToBlock(torch.autograd.Function):
    """Gather stream rows into slots. Backward gathers too: every row has one slot, so nothing needs adding up."""

    @staticmethod
    def forward(ctx: Any, stream: torch.Tensor, layout: PrefixLayout) -> torch.Tensor:
        ctx.layout = layout
        return stream.index_select(0, layout.rows)

    @staticmethod
    def backward(ctx: Any, grad_block: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_block.index_select(0, ctx.layout.slots), None


class _ToStream(torch.autograd.Function):
    """Gather slots back into stream rows; padding slots get no gradient."""

    @staticmethod
    def forward(ctx: Any, block: torch.Tensor, layout: PrefixLayout) -> torch.Tensor:
        ctx.layout = layout
        return block.index_select(0, layout.slots)

    @staticmethod
    def backward(ctx: Any, grad_stream: torch.Tensor) -> tuple[torch.Tensor, None]:
        layout: PrefixLayout = ctx.layout
        grad_block = grad_stream.index_select(0, layout.rows)
        return grad_block.masked_fill_(layout.is_padding[:, None], 0.0), None


def prefix_shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    prefix_layout: PrefixLayout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within a prefix-shared stream; the signature is that of transformers' attention implementations.

    Args:
        module: the attention layer; unused.
        query: [1, H, L, D].
        key: [1, KV heads, L, D].
        value: [1, KV heads, L, D].
        attention_mask: unused: the layout says who sees whom.
        scaling: factor on the scores.
        prefix_layout: of this micro-batch.

    Returns:
        ([1, L, H, D], None)
    """
    num_prompts, longest_prompt, num_completions, longest = prefix_layout.shape
    num_heads, num_kv_heads, head_dim = query.shape[1], key.shape[1], query.shape[3]
    # One gather for queries, keys and values: their heads side by side, [L, (H + 2 KV) * D].
    stream = torch.cat([query[0], key[0], value[0]]).transpose(0, 1).reshape(query.shape[2], -1)
    prompts, completions = _ToBlock.apply(stream, prefix_layout).split(
        [num_prompts * longest_prompt, num_completions * longest]
    )
    heads = [num_heads, num_kv_heads, num_kv_heads]
    prompt_q, prompt_k, prompt_v = (
        prompts.view(num_prompts, longest_prompt, sum(heads), head_dim).transpose(1, 2).split(heads, dim=1)
    )
    prompt_out = _attend(prompt_q, prompt_k, prompt_v, bias=None, scaling=scaling)
    blocks = [prompt_out.transpose(1, 2).reshape(num_prompts * longest_prompt, -1)]
    if longest:
        own_q, own_k, own_v = (
            completions.view(num_completions, longest, sum(heads), head_dim).transpose(1, 2).split(heads, dim=1)
        )
        keys = torch.cat([prompt_k.index_select(0, prefix_layout.prompt_of), own_k], dim=2)
        values = torch.cat([prompt_v.index_select(0, prefix_layout.prompt_of), own_v], dim=2)
        completion_out = _attend(own_q, keys, values, bias=prefix_layout.completion_bias, scaling=scaling)
        blocks.append(completion_out.transpose(1, 2).reshape(num_completions * longest, -1))
    out = _ToStream.apply(torch.cat(blocks), prefix_layout)
    return out.view(1, -1, num_heads, head_dim), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, bias: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    is_grouped = query.shape[1] != key.shape[1]
    if is_grouped and query.is_cuda:
        # CUDA's memory-efficient kernel, the one that takes a bias, wants as many key heads as query heads.
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
        is_grouped = False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, is_causal=bias is None, scale=scaling, enable_gqa=is_grouped
    )


def register_attention() -> None:
    """Make the implementation known to transformers under ATTENTION_NAME; calling twice is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, prefix_shared_attention)
