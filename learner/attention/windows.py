"""Attention of a vision tower whose patches fall into windows: one SDPA call for all windows of one length.

transformers would make a call a window, thousands of them for a large image.

Axes: L patches, H heads, D head size; n windows of T patches each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.weak import WeakIdKeyDictionary

WINDOW_ATTENTION = "mixed_r1_windows_like_flash"
"""transformers hands the windows' lengths only to implementations that have "flash" in their name. It must be set on a
model that stands; named in a configuration, transformers would look for a package of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows sorted by length."""

    shapes: tuple[tuple[int, int], ...]
    """(n, T) of each length."""
    order: torch.Tensor
    """[L] patch at each place."""
    places: torch.Tensor
    """[L] place of each patch."""


# A forward pass gives the same tensor of lengths to every layer; reading it is a wait for the device.
_WINDOWS_OF = WeakIdKeyDictionary()


def window_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each window; the signature is that of transformers' attention implementations.

    Args:
        module: unused.
        query: [1, H, L, D].
        key: [1, H, L, D].
        value: [1, H, L, D].
        attention_mask: unused: the lengths say who sees whom.
        scaling: factor on the scores.
        cu_seq_lens_q: int32 [windows + 1] cumulated lengths.

    Returns:
        ([1, L, H, D], None)
    """
    if cu_seq_lens_q not in _WINDOWS_OF:
        _WINDOWS_OF[cu_seq_lens_q] = _sort(cu_seq_lens_q)
    windows: Windows = _WINDOWS_OF[cu_seq_lens_q]
    num_heads, head_dim = query.shape[1], query.shape[3]
    # Heads of queries, keys and values side by side: [L, 3 H D].
    stream = torch.cat([query[0], key[0], value[0]]).transpose(0, 1).flatten(1)
    if len(windows.shapes) > 1:
        stream = _Permuted.apply(stream, windows.order, windows.places)
    outs = []
    for block, (number, length) in zip(stream.split([n * t for n, t in windows.shapes]), windows.shapes, strict=True):
        own = block.view(number, length, 3 * num_heads, head_dim).transpose(1, 2).split(num_heads, dim=1)
        outs.append(F.scaled_dot_product_attention(*own, scale=scaling).transpose(1, 2).reshape(number * length, -1))
    out = torch.cat(outs)
    if len(windows.shapes) > 1:
        out = _Permuted.apply(out, windows.places, windows.order)
    return out.view(1, -1, num_heads, head_dim), None


def register_window_attention() -> None:
    """Make it known to transformers; calling twice is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(WINDOW_ATTENTION, torch.compiler.disable(window_attention))


def _sort(cumulated: torch.Tensor) -> Windows:
    ends = cumulated.cpu().numpy().astype(np.int64)
    lengths = np.diff(ends)
    orders, shapes = [], []
    for length in np.unique(lengths):
        starts = ends[:-1][lengths == length]
        orders.append((starts[:, None] + np.arange(length)).ravel())
        shapes.append((len(starts), int(length)))
    order = np.concatenate(orders)
    return Windows(
        shapes=tuple(shapes),
        order=torch.from_numpy(order).to(cumulated.device),
        places=torch.from_numpy(np.argsort(order)).to(cumulated.device),
    )


class _Permuted(torch.autograd.Function):
    """Rows in another order; backwards they are gathered again, where index_select would add them up."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, order: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        ctx.places = places
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad.index_select(0, ctx.places), None, None
