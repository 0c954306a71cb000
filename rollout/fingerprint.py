"""What tells whether two processes hold the same tensor: exact sums over its bits, computed on both sides alike."""

import torch

from rollout.records import Fingerprint

SLICE_ELEMENTS = 2**20
"""Elements that are looked at at once. Of one slice, 28 bytes an element are held beside the tensor."""


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
    # By rows first: a tensor that is no single run of memory is copied a slice at a time.
    for part in rows.split(max(1, SLICE_ELEMENTS // max(1, rows.shape[1]))):
        for piece in part.flatten().split(SLICE_ELEMENTS):
            bits = piece.float().view(torch.int32).long()
            in_slice = bits.sum()
            total += in_slice
            weighted += bits.mul_(positions[: len(bits)]).sum() + start * in_slice
            start += len(piece)
    return values.numel(), int(total), int(weighted)
