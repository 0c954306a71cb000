"""Groups to one micro-batch, as a learner packs them."""

from collections.abc import Sequence

import numpy as np
import torch

from learner.attention.sdpa import SdpaKernel
from learner.batching import TrainSequence, make_pieces
from learner.policy.model import Policy
from learner.policy.packing import MicroBatch
from learner.policy.padding import Encoder, make_builder
from learner.records import ScoredGroup

CPU = torch.device("cpu")


def pack(policy: Policy, encoder: Encoder, groups: Sequence[ScoredGroup], sharing: str = "auto") -> MicroBatch:
    """Return one micro-batch of all completions; `sharing` is a value of `learner.prefix_sharing`, "never" of rows."""
    is_padded = policy.family.is_padded
    sharing = "never" if is_padded else sharing
    pieces, images = [], []
    for group, image in zip(groups, encoder.encode(groups), strict=True):
        sequences = [
            TrainSequence(
                index=i, advantages=np.full(s.num_tokens, (-1.0) ** i * (0.5 + i), dtype=np.float32), token_weight=0.025
            )
            for i, s in enumerate(group.sequences)
        ]
        own = make_pieces(group, sequences, micro_batch_tokens=10_000, prefix_sharing=sharing, is_padded=is_padded)
        pieces += own
        images += [image] * len(own)
    builder = make_builder(policy.family, encoder, SdpaKernel(), device=CPU, dtype=torch.float32)
    return builder.build(pieces, images)
