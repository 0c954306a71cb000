"""The stream's attention by FlexAttention: one compiled kernel whose block mask skips what nobody sees."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from learner.attention.flash import VarlenFlash
from learner.attention.layout import StreamLayout

NO_STEM = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexPrepared:
    """The mask of one stream."""

    block_mask: BlockMask


class FlexKernel:
    """FlexAttention over the whole stream; torch compiles it once and again when the number of tokens jumps."""

    name = "flex"
    is_traceable = True

    def __init__(self, *, tower: VarlenFlash | None = None, is_compiled: bool = True) -> None:
        """Compile, unless a test wants the slow exact form; `tower` as in AttentionKernel."""
        self.tower = tower
        self._attend = torch.compile(flex_attention, dynamic=True) if is_compiled else flex_attention

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> FlexPrepared:
        """See AttentionKernel."""
        num_stems = len(layout.stem_lengths)
        own = np.repeat(np.arange(num_stems + len(layout.branch_lengths)), _lengths(layout))
        parents = np.concatenate([np.full(num_stems, NO_STEM), layout.stem_of])
        segment = torch.from_numpy(own).to(device)
        stem = torch.from_numpy(np.repeat(parents, _lengths(layout))).to(device)

        def is_visible(
            batch: torch.Tensor, head: torch.Tensor, row: torch.Tensor, column: torch.Tensor
        ) -> torch.Tensor:
            is_related = (segment[row] == segment[column]) | (stem[row] == segment[column])
            return is_related & (column <= row)

        length = layout.num_tokens
        return FlexPrepared(block_mask=create_block_mask(is_visible, None, None, length, length, device=str(device)))

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prepared: FlexPrepared, *, scaling: float
    ) -> torch.Tensor:
        """See AttentionKernel."""
        query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        is_grouped = query.shape[1] != key.shape[1]
        out = self._attend(query, key, value, block_mask=prepared.block_mask, scale=scaling, enable_gqa=is_grouped)
        return out[0].transpose(0, 1)


def _lengths(layout: StreamLayout) -> np.ndarray:
    return np.concatenate([layout.stem_lengths, layout.branch_lengths])
