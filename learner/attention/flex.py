"""The stream's attention by FlexAttention: one compiled kernel whose block mask skips what no token attends to.

The block mask is counted from lengths. torch's `create_block_mask` would evaluate every pair of tokens: 1 GiB for each
of several masks at 32,768 tokens.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from learner.attention.kernel import StreamLayout, VarlenFlash

NO_STEM = -1
BLOCK_SIZE = 128
"""Side of a block of the mask; the default of FlexAttention."""


class FlexKernel:
    """FlexAttention over the whole stream; torch compiles it once and again when the number of tokens jumps."""

    name = "flex"
    is_traceable = True

    def __init__(self, *, tower: VarlenFlash | None = None, is_compiled: bool = True) -> None:
        """Compile, unless a test wants the slow exact form; `tower` as in AttentionKernel."""
        self.tower = tower
        self._attend = torch.compile(flex_attention, dynamic=True) if is_compiled else flex_attention

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> BlockMask:
        num_stems = len(layout.stem_lengths)
        lengths = np.concatenate([layout.stem_lengths, layout.branch_lengths])
        parents = np.concatenate([np.full(num_stems, NO_STEM), layout.stem_of])
        segment = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
        stem = torch.from_numpy(np.repeat(parents, lengths)).to(device)

        def is_visible(
            batch: torch.Tensor, head: torch.Tensor, row: torch.Tensor, column: torch.Tensor
        ) -> torch.Tensor:
            is_related = (segment[row] == segment[column]) | (stem[row] == segment[column])
            return is_related & (column <= row)

        visible = count_visible(layout)
        is_full = visible == BLOCK_SIZE**2
        return BlockMask.from_kv_blocks(
            *_in_order((visible > 0) & ~is_full, device),
            *_in_order(is_full, device),
            BLOCK_SIZE=BLOCK_SIZE,
            mask_mod=is_visible,
            seq_lengths=(layout.num_tokens, layout.num_tokens),
        )

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prepared: BlockMask, *, scaling: float
    ) -> torch.Tensor:
        query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        is_grouped = query.shape[1] != key.shape[1]
        out = self._attend(query, key, value, block_mask=prepared, scale=scaling, enable_gqa=is_grouped)
        return out[0].transpose(0, 1)


def count_visible(layout: StreamLayout) -> NDArray[np.int64]:
    """Return how many pairs of a row and a column that it sees lie in each block of the mask, [blocks, blocks].

    Example:
        >>> layout = StreamLayout(
        ...     stem_lengths=np.array([100]), branch_lengths=np.array([60]), stem_of=np.array([0])
        ... )
        >>> count_visible(layout).tolist()  # 100 * 101 / 2 + 28 * 100 + 28 * 29 / 2 pairs in the first
        [[8256, 0], [4096, 528]]
    """
    lengths = np.concatenate([layout.stem_lengths, layout.branch_lengths])
    ends = np.cumsum(lengths)[:, None]
    first = np.arange(-(-layout.num_tokens // BLOCK_SIZE)) * BLOCK_SIZE
    # How many tokens of each segment are in each block; float64 counts exactly, and multiplies fast.
    inside = np.minimum(ends, first + BLOCK_SIZE) - np.maximum(ends - lengths[:, None], first)
    inside = np.maximum(inside, 0).astype(np.float64)
    own = np.tril(inside.T @ inside, -1) + np.diag((inside * (inside + 1) / 2).sum(0))
    of_stems = inside[len(layout.stem_lengths) :].T @ inside[layout.stem_of]
    visible: NDArray[np.int64] = (own + of_stems).astype(np.int64)
    return visible


def _in_order(is_kept: NDArray[np.bool_], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many blocks of each row are kept [1, 1, rows], and columns [1, 1, rows, columns], kept ones first."""
    columns = np.argsort(~is_kept, axis=1, kind="stable").astype(np.int32)
    found = (is_kept.sum(1, dtype=np.int32), columns)
    number, order = (torch.from_numpy(array)[None, None].to(device) for array in found)
    return number, order
