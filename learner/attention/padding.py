"""Segments of a stream in padded blocks of similar length, and back.

A block has a segment a row, [rows, longest]; its places are slots, and blocks follow one another. Padding holds zeros
and gets no gradient.

Axes: L tokens of the stream, C values of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MIN_LENGTH_FRAC = 0.5
"""Of the longest row of a block; lower means fewer calls and more padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Places of a stream's tokens in blocks."""

    rows: torch.Tensor
    """int64 [slots] stream row of each slot; padding slots point to row 0."""
    of_rows: torch.Tensor
    """int64 [L] slot of each stream row."""
    padding: torch.Tensor
    """int64 slots without a token."""


def alike(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Sort rows into blocks of similar length; empty rows are left out.

    Example:
        >>> [block.tolist() for block in alike(np.array([3, 0, 10, 6, 2]))]
        [[2, 3], [0, 4]]
    """
    blocks: list[list[int]] = []
    for index in np.argsort(-lengths, kind="stable"):
        if lengths[index] == 0:
            break
        if blocks and lengths[index] >= MIN_LENGTH_FRAC * lengths[blocks[-1][0]]:
            blocks[-1].append(int(index))
        else:
            blocks.append([int(index)])
    return [np.array(block) for block in blocks]


def padded_rows(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], *, is_left: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the stream row of each slot of a block [n, longest], 0 where it is unused, and which slots are used.

    Args:
        starts: [n] stream row at which each segment starts.
        lengths: [n] of the segments.
        is_left: pad before the segments instead of behind them.
    """
    longest = int(lengths.max())
    place = np.arange(longest)[None, :] - (longest - lengths[:, None] if is_left else 0)
    used = (place >= 0) & (place < lengths[:, None])
    return np.where(used, starts[:, None] + place, 0), used


def make_slots(
    blocks: Sequence[tuple[NDArray[np.int64], NDArray[np.bool_]]], num_tokens: int, device: torch.device
) -> Slots:
    """Return the places of a stream's tokens in blocks from `padded_rows`, in which each token has one slot."""
    rows = np.concatenate([rows.ravel() for rows, _ in blocks])
    used = np.concatenate([used.ravel() for _, used in blocks])
    of_rows = np.empty(num_tokens, dtype=np.int64)
    of_rows[rows[used]] = np.flatnonzero(used)
    return Slots(
        rows=torch.from_numpy(rows).to(device),
        of_rows=torch.from_numpy(of_rows).to(device),
        padding=torch.from_numpy(np.flatnonzero(~used)).to(device),
    )


def to_slots(stream: torch.Tensor, slots: Slots) -> torch.Tensor:
    """Gather a stream [L, C] into slots [slots, C]."""
    gathered: torch.Tensor = _ToSlots.apply(stream, slots)  # type: ignore[no-untyped-call]
    return gathered


def to_stream(padded: torch.Tensor, slots: Slots) -> torch.Tensor:
    """Gather slots [slots, C] back into a stream [L, C]."""
    stream: torch.Tensor = _ToStream.apply(padded, slots)  # type: ignore[no-untyped-call]
    return stream


class _ToSlots(torch.autograd.Function):
    """Backward gathers too: every row has one slot, so nothing needs adding up."""

    @staticmethod
    def forward(ctx: Any, stream: torch.Tensor, slots: Slots) -> torch.Tensor:
        ctx.slots = slots
        return stream.index_select(0, slots.rows).index_fill_(0, slots.padding, 0.0)

    @staticmethod
    def backward(ctx: Any, grad_padded: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_padded.index_select(0, ctx.slots.of_rows), None


class _ToStream(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, slots: Slots) -> torch.Tensor:
        ctx.slots = slots
        return padded.index_select(0, slots.of_rows)

    @staticmethod
    def backward(ctx: Any, grad_stream: torch.Tensor) -> tuple[torch.Tensor, None]:
        slots: Slots = ctx.slots
        return grad_stream.index_select(0, slots.rows).index_fill_(0, slots.padding, 0.0), None
