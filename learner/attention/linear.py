"""Linear attention over a stream: the state behind a stem is computed once and handed to all its branches.

A linear layer reads its sequence from left to right and remembers it in a state: a recurrent state, and the last inputs
of a convolution in front of it. Here it runs over all stems first, then over all branches, each from the state of its
stem; backwards, the gradients of a stem's branches add up in its state. Both are exact.

Stems are padded on the left and branches on the right, so that every branch starts where its stem ends: padding holds
zeros, by which a layer must leave a state of zeros as it is, and what follows a branch is not read.

Axes: L tokens of the stream, n rows of a block, T tokens of its longest row, N stems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from learner.attention.kernel import StreamLayout
from learner.attention.padding import Slots, alike, make_slots, padded_rows, to_slots, to_stream

State = tuple[torch.Tensor, ...]
"""What a layer remembers of a sequence: tensors [n, ...]."""

CHUNK_TOKENS = 64
"""Kernels of linear attention compute whole chunks of so many tokens, so shorter rows cost as much: they share a block.
The chunk of flash-linear-attention and of transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearBlocks:
    """A stream's tokens in blocks, stem blocks first, and the stem of each row of a branch block."""

    slots: Slots
    shapes: tuple[tuple[int, int], ...]
    """(n, T) of each block."""
    origins: tuple[torch.Tensor | None, ...]
    """Of each block of branches int64 [n]: which of the N states each row starts from, in the order in which blocks
    have stems; None for a block of stems."""


class Scan(Protocol):
    """A layer's pass over a padded block of sequences."""

    def __call__(self, inputs: Sequence[torch.Tensor], state: State | None) -> tuple[torch.Tensor, State]:
        """Return the outputs [n, T, ...] and the state behind the last slot.

        Args:
            inputs: [n, T, ...] each, zero in padding.
            state: before the first slot; None where sequences begin.
        """


def prepare_linear(layout: StreamLayout, device: torch.device) -> LinearBlocks:
    """Return what every linear layer of a forward pass needs, on the device."""
    lengths = np.concatenate([layout.stem_lengths, layout.branch_lengths])
    starts = np.cumsum(lengths) - lengths
    num_stems = len(layout.stem_lengths)
    stems = alike(-(-layout.stem_lengths // CHUNK_TOKENS))
    branches = alike(-(-layout.branch_lengths // CHUNK_TOKENS))
    place_of_stem = np.empty(num_stems, dtype=np.int64)
    place_of_stem[np.concatenate(stems)] = np.arange(num_stems)
    filled = [
        *(padded_rows(starts[block], lengths[block], is_left=True) for block in stems),
        *(padded_rows(starts[block + num_stems], lengths[block + num_stems]) for block in branches),
    ]
    return LinearBlocks(
        slots=make_slots(filled, layout.num_tokens, device),
        shapes=tuple(rows.shape for rows, _ in filled),
        origins=(
            *(None for _ in stems),
            *(torch.from_numpy(place_of_stem[layout.stem_of[block]]).to(device) for block in branches),
        ),
    )


@torch.compiler.disable
def scan_stream(scan: Scan, inputs: Sequence[torch.Tensor], blocks: LinearBlocks) -> torch.Tensor:
    """Run a layer over a stream; returns its outputs [L, ...].

    Args:
        scan: called once a block.
        inputs: of the layer, [L, ...] each.
        blocks: from `prepare_linear`.
    """
    sizes = [n * length for n, length in blocks.shapes]
    padded = [to_slots(tensor.flatten(1), blocks.slots).unflatten(1, tensor.shape[1:]) for tensor in inputs]
    cut = zip(*(tensor.split(sizes) for tensor in padded), strict=True)
    outs: list[torch.Tensor] = []
    ends: list[State] = []
    states: State | None = None
    for tensors, shape, origins in zip(cut, blocks.shapes, blocks.origins, strict=True):
        before: State | None = None
        if origins is not None:
            if states is None:
                states = tuple(torch.cat(parts) for parts in zip(*ends, strict=True))
            before = tuple(part.index_select(0, origins) for part in states)
        out, end = scan([tensor.unflatten(0, shape) for tensor in tensors], before)
        outs.append(out.flatten(0, 1))
        ends.append(end)
    whole = torch.cat(outs)
    stream: torch.Tensor = to_stream(whole.flatten(1), blocks.slots).unflatten(1, whole.shape[1:])
    return stream
