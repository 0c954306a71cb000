"""What of a tensor differs from its last publication, in the bytes that go over the gloo channel.

header    int64 [tensors of a bucket]: how many elements changed, or WHOLE
payload   of each tensor: flat indices int32 and values of the elements that changed, or all of its elements
"""

import torch

WHOLE = -1
"""In the header: the tensor comes whole."""
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of a size in bytes: bits are compared, as 0.0 equals -0.0 and NaN nothing."""
MAX_INDEX = 2**31 - 1


def whole(tensor: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return WHOLE and the bytes of a tensor on the host."""
    return WHOLE, tensor.cpu().contiguous().view(-1).view(torch.uint8)


class LastPublication:
    """The tensors as they were published last, in host memory.

    A publication that broke must not be followed by another one with the same object: receivers may have missed it.
    """

    def __init__(self) -> None:
        self._bits: dict[str, torch.Tensor] = {}

    def difference(self, name: str, tensor: torch.Tensor) -> tuple[int, torch.Tensor]:
        """Return how many elements changed and the bytes that say how, or `whole` where that is not shorter."""
        _, raw = whole(tensor)
        bits = raw.view(BITS[tensor.itemsize])
        last = self._bits.get(name)
        if last is None or last.dtype != bits.dtype or last.shape != bits.shape:
            self._bits[name] = bits.clone()
            return WHOLE, raw
        changed = (bits != last).nonzero().flatten()
        if len(changed) * (4 + tensor.itemsize) >= len(raw) or len(bits) > MAX_INDEX:
            last.copy_(bits)
            return WHOLE, raw
        values = bits[changed]
        last[changed] = values
        return len(changed), torch.cat([changed.int().view(torch.uint8), values.view(torch.uint8)])
