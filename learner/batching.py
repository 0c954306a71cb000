"""Which groups go where: to ranks by tokens, to micro-batches by a token budget. Pure; neither torch nor images.

A *piece* is a group with those of its sequences that stand in one micro-batch; a group that fits is one piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.records import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A group's prompt with some of its completions and their advantages."""

    group: ScoredGroup
    sequence_indices: tuple[int, ...]
    """Which of group.sequences stand here; may be empty only in a dummy."""
    advantages: tuple[float, ...]
    """One for each of sequence_indices."""

    @property
    def num_tokens(self) -> int:
        """Tokens that this piece feeds to the model."""
        return piece_tokens(self.group, self.sequence_indices)


def piece_tokens(group: ScoredGroup, sequence_indices: Sequence[int]) -> int:
    """Tokens fed for a prompt and some of its completions; a completion's last token is only predicted."""
    return len(group.prompt_token_ids) + sum(group.sequences[i].num_tokens - 1 for i in sequence_indices)


def partition_groups(token_counts: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Share groups between ranks so that tokens balance: longest first, each to the rank with least so far.

    Args:
        token_counts: tokens of each group.
        num_ranks: number of shares.

    Returns:
        Indices of the groups of each rank, ascending; shares may be empty.

    Example:
        >>> partition_groups([5, 9, 4, 2], 2)
        [[1, 3], [0, 2]]
    """
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    filled = [0] * num_ranks
    for index in sorted(range(len(token_counts)), key=lambda i: (-token_counts[i], i)):
        rank = min(range(num_ranks), key=lambda r: (filled[r], len(shares[r]), r))
        shares[rank].append(index)
        filled[rank] += token_counts[index]
    return [sorted(share) for share in shares]


def make_pieces(
    groups: Sequence[ScoredGroup],
    advantages: Sequence[NDArray[np.float64]],
    *,
    micro_batch_tokens: int,
    keep_zero_advantages: bool,
) -> list[Piece]:
    """Choose what is trained on: unmasked sequences with an advantage, in pieces within the token budget.

    Leaving out a zero advantage changes no gradient: its loss is a constant. With a KL term it is not, hence the
    switch.

    Args:
        groups: of this rank.
        advantages: for each group float64 [G].
        micro_batch_tokens: budget; a single sequence above it makes a piece of its own.
        keep_zero_advantages: whether sequences of zero advantage stay.
    """
    pieces = []
    for group, group_advantages in zip(groups, advantages, strict=True):
        chosen = [
            i
            for i, sequence in enumerate(group.sequences)
            if not sequence.masked and (keep_zero_advantages or group_advantages[i] != 0)
        ]
        for part in split_sequences(group, chosen, micro_batch_tokens):
            pieces.append(
                Piece(
                    group=group,
                    sequence_indices=tuple(part),
                    advantages=tuple(float(group_advantages[i]) for i in part),
                )
            )
    return pieces


def split_sequences(group: ScoredGroup, sequence_indices: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
    """Cut a group's sequences, in order, into runs that fit the budget together with the prompt."""
    parts: list[list[int]] = []
    for index in sequence_indices:
        if parts and piece_tokens(group, [*parts[-1], index]) <= micro_batch_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def plan_micro_batches(pieces: Sequence[Piece], micro_batch_tokens: int) -> list[list[Piece]]:
    """Pack pieces into micro-batches within the token budget; neighbours in length stand together.

    Attention pads completions of a micro-batch to its longest, so sorting by length keeps padding small.
    """
    batches: list[list[Piece]] = []
    filled = 0
    for piece in sorted(pieces, key=lambda p: (-p.num_tokens, p.group.group_id, p.sequence_indices)):
        if batches and filled + piece.num_tokens <= micro_batch_tokens:
            batches[-1].append(piece)
            filled += piece.num_tokens
        else:
            batches.append([piece])
            filled = piece.num_tokens
    return batches
