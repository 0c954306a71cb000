"""The stream's attention by torch's scaled_dot_product_attention, in padded blocks, on any device.

Each layer gathers the stream into blocks of similar length and makes one call on each: stems attend to themselves,
branches to their own stem and to themselves. A block's shortest row is at least half as long as its longest, so padding
stays small and calls stay few.

Axes: L tokens of the stream, H heads, D head size; of one block: n rows, m stems, P longest stem, T longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from learner.attention.kernel import StreamLayout
from learner.attention.padding import Slots, alike, make_slots, padded_rows, to_slots, to_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchBlock:
    """Branches of similar length, and the stems that they attend to."""

    shape: tuple[int, int]
    """(n, T)"""
    stem_shape: tuple[int, int]
    """(m, P)"""
    stem_rows: torch.Tensor
    """[m * P] stream row of each stem slot; padding slots point to row 0."""
    stem_of: torch.Tensor
    """[n] which of the m stems."""
    bias: torch.Tensor
    """[n, 1, T, P + T] 0 where a slot may attend, -inf elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBlocks:
    """A stream's tokens in blocks: stem blocks, then branch blocks."""

    slots: Slots
    stem_shapes: tuple[tuple[int, int], ...]
    """(n, T) of each block of stems."""
    branches: tuple[BranchBlock, ...]


class SdpaKernel:
    """SDPA: a few calls a layer, however many groups a stream holds."""

    name = "sdpa"
    is_traceable = False
    tower = None

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> PaddedBlocks:
        lengths = np.concatenate([layout.stem_lengths, layout.branch_lengths])
        starts = np.cumsum(lengths) - lengths
        num_stems = len(layout.stem_lengths)
        stem_blocks = alike(layout.stem_lengths)
        branch_blocks = [block + num_stems for block in alike(layout.branch_lengths)]
        filled = [padded_rows(starts[block], lengths[block]) for block in [*stem_blocks, *branch_blocks]]
        return PaddedBlocks(
            slots=make_slots(filled, layout.num_tokens, device),
            stem_shapes=tuple(rows.shape for rows, _ in filled[: len(stem_blocks)]),
            branches=tuple(
                _branch_block(rows.shape, layout.stem_of[block - num_stems], starts, lengths, device, dtype)
                for block, (rows, _) in zip(branch_blocks, filled[len(stem_blocks) :], strict=True)
            ),
        )

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prepared: PaddedBlocks, *, scaling: float
    ) -> torch.Tensor:
        num_heads, num_kv_heads, head_dim = query.shape[1], key.shape[1], query.shape[2]
        heads = [num_heads, num_kv_heads, num_kv_heads]
        # One gather for queries, keys and values: their heads side by side, [L, (H + 2 KV) * D].
        stream = torch.cat([query, key, value], dim=1).flatten(1)
        shapes = [*prepared.stem_shapes, *(branch.shape for branch in prepared.branches)]
        gathered = to_slots(stream, prepared.slots)
        blocks = [
            block.view(*shape, sum(heads), head_dim).transpose(1, 2).split(heads, dim=1)
            for block, shape in zip(gathered.split([n * t for n, t in shapes]), shapes, strict=True)
        ]
        outs = [_attend(*block, bias=None, scaling=scaling) for block in blocks[: len(prepared.stem_shapes)]]
        for branch, (own_q, own_k, own_v) in zip(prepared.branches, blocks[len(prepared.stem_shapes) :], strict=True):
            stem_heads = stream[:, num_heads * head_dim :].index_select(0, branch.stem_rows)
            stem_k, stem_v = (
                stem_heads.view(*branch.stem_shape, 2 * num_kv_heads, head_dim)
                .transpose(1, 2)
                .index_select(0, branch.stem_of)
                .split(num_kv_heads, dim=1)
            )
            keys, values = torch.cat([stem_k, own_k], dim=2), torch.cat([stem_v, own_v], dim=2)
            outs.append(_attend(own_q, keys, values, bias=branch.bias, scaling=scaling))
        padded = torch.cat([out.transpose(1, 2).flatten(0, 1).flatten(1) for out in outs])
        return to_stream(padded, prepared.slots).view(-1, num_heads, head_dim)


def _branch_block(
    shape: Sequence[int],
    stems: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    device: torch.device,
    dtype: torch.dtype,
) -> BranchBlock:
    distinct, stem_of = np.unique(stems, return_inverse=True)
    stem_rows, stem_used = padded_rows(starts[distinct], lengths[distinct])
    num_rows, longest = shape
    longest_stem = stem_rows.shape[1]
    bias = torch.zeros(num_rows, 1, longest, longest_stem + longest, device=device, dtype=dtype)
    is_hidden = torch.from_numpy(~stem_used[stem_of]).to(device)
    bias[..., :longest_stem].masked_fill_(is_hidden[:, None, None, :], -torch.inf)
    is_future = torch.ones(longest, longest, dtype=torch.bool, device=device).triu(1)
    bias[..., longest_stem:].masked_fill_(is_future, -torch.inf)
    return BranchBlock(
        shape=(num_rows, longest),
        stem_shape=(len(distinct), longest_stem),
        stem_rows=torch.from_numpy(stem_rows.ravel()).to(device),
        stem_of=torch.from_numpy(stem_of).to(device),
        bias=bias,
    )


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
