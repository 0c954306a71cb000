"""Fingerprints that show whether two processes hold the same tensor: exact sums over its bits."""

from collections.abc import Iterable, Sequence
from math import prod

import torch

from rollout.records import Fingerprint

SLICE_ELEMENTS = 2**20
"""Elements that are read at once. Of one slice, 28 bytes an element are held beside the tensor."""


def fingerprint(tensor: torch.Tensor) -> Fingerprint:
    """Return size, sum and position-weighted sum of a tensor's elements, each read as the integer of its float32 bits.

    Integers add up to the same whatever the order, device or number of threads, so fingerprints are equal or tensors
    are not. Elements that changed places change the last sum: a transposed tensor is another one. A tensor in bfloat16
    or float16 has the fingerprint of its float32 copy.

    Args:
        tensor: of any shape, in a type that float32 holds exactly.

    Example:
        >>> fingerprint(torch.tensor([1.0, 0.0])), fingerprint(torch.tensor([0.0, 1.0]))
        ((2, 1065353216, 0), (2, 1065353216, 1065353216))
    """
    values = tensor.detach()
    rows = values.flatten(0, -2) if values.ndim > 1 else values.reshape(-1, 1)
    positions = torch.arange(min(values.numel(), SLICE_ELEMENTS), device=values.device)
    total = torch.zeros((), dtype=torch.int64, device=values.device)
    weighted = torch.zeros_like(total)
    start = 0
    # By rows first: a tensor that is not contiguous is copied a slice at a time.
    for part in rows.split(max(1, SLICE_ELEMENTS // max(1, rows.shape[1]))):
        for piece in part.flatten().split(SLICE_ELEMENTS):
            bits = piece.float().view(torch.int32).long()
            in_slice = bits.sum()
            total += in_slice
            weighted += bits.mul_(positions[: len(bits)]).sum() + start * in_slice
            start += len(piece)
    return values.numel(), int(total), int(weighted)


def shard_fingerprint(
    tensor: torch.Tensor, indices: Sequence[torch.Tensor], shape: Sequence[int], *, first: int = 0
) -> tuple[int, int, int, int]:
    """Return the sum of a shard's positions in the whole tensor, and its share in the whole's fingerprint.

    The shares of all shards of a tensor add up to its fingerprint, see `join_shards`. Different shards of one tensor
    differ in the sum of positions.

    Args:
        tensor: holds the shard, and perhaps something else around it; of one dimension or more.
        indices: for each dimension of `tensor`, int64 [its size], the index in the whole; -1 where there is none.
        shape: of the whole, with as many dimensions.
        first: position of the whole's first element, where it is itself a part of something.

    Example:
        >>> shard_fingerprint(torch.tensor([9.0, 1.0]), [torch.tensor([-1, 3])], [4])
        (3, 1, 1065353216, 3196059648)
    """
    own = [torch.nonzero(index >= 0).flatten() for index in indices]
    offsets = [index[kept] * prod(shape[d + 1 :]) for d, (index, kept) in enumerate(zip(indices, own, strict=True))]
    within_row = torch.zeros(1, dtype=torch.int64)
    for offset in offsets[1:]:
        within_row = (within_row[:, None] + offset[None, :]).flatten()
    within_row = (within_row + first).to(tensor.device)
    sums = torch.zeros(3, dtype=torch.int64, device=tensor.device)
    num_rows = max(1, SLICE_ELEMENTS // max(1, len(within_row)))
    for rows, starts in zip(own[0].split(num_rows), offsets[0].split(num_rows), strict=True):
        part = tensor.detach().index_select(0, rows.to(tensor.device))
        for dimension, kept in enumerate(own[1:], start=1):
            if len(kept) < tensor.shape[dimension]:
                part = part.index_select(dimension, kept.to(tensor.device))
        bits = part.reshape(len(rows), len(within_row)).float().view(torch.int32).long()
        positions = starts.to(tensor.device)[:, None] + within_row[None, :]
        sums += torch.stack([positions.sum(), bits.sum(), bits.mul_(positions).sum()])
    place, total, weighted = map(int, sums)
    return place, len(own[0]) * len(within_row), total, weighted


def join_shards(shards: Iterable[tuple[int, int, int, int]]) -> Fingerprint:
    """Return the fingerprint of the whole that shards make up; a shard that several processes hold counts once.

    Shards that should be the same and are not count each: the size is then larger than the whole's.

    Args:
        shards: place, size, sum and weighted sum of each.

    Example:
        >>> join_shards([(0, 2, 5, 1), (0, 2, 5, 1), (7, 1, 3, 9)])
        (3, 8, 10)
    """
    size = total = weighted = 0
    for _, own_size, own_total, own_weighted in set(shards):
        size, total, weighted = size + own_size, total + own_total, weighted + own_weighted
    return size, as_int64(total), as_int64(weighted)


def as_int64(value: int) -> int:
    """Return an integer wrapped around to int64, as torch does with sums that overflow.

    Example:
        >>> as_int64(2**63)
        -9223372036854775808
    """
    return (value + 2**63) % 2**64 - 2**63
