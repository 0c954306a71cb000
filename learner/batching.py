"""Assignment of groups: to ranks by tokens, to minibatches at random, to micro-batches by a token budget. No torch.

A *piece* is a group with those of its sequences that are in one micro-batch; a group that fits is one piece.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from learner.records import ScoredGroup

MIN_SHARING = 2
"""Minimum number of completions for which their prompt is fed once for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSequence:
    """One completion as an update sees it. T is its number of tokens."""

    index: int
    """In group.sequences."""
    advantages: NDArray[np.float32]
    """[T]"""
    token_weight: float
    """Of each of its tokens in the loss."""
    old_logprobs: NDArray[np.float32] | None = None
    """[T] of the policy before the step's first update; None where the current logprobs are used."""
    ref_logprobs: NDArray[np.float32] | None = None
    """[T] of the frozen reference; None without a KL term."""
    kl_coef: float | None = None
    """Weight of the KL in the loss of its task; None where it is the same for all tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A group's prompt with some of its completions."""

    group: ScoredGroup
    sequences: tuple[TrainSequence, ...]
    is_shared: bool
    """Whether the prompt is fed once for all of them, or once before each."""

    @property
    def num_tokens(self) -> int:
        """Tokens that this piece feeds to the model; a completion's last token is only predicted."""
        prompt_length = len(self.group.prompt_token_ids)
        own = sum(self.group.sequences[sequence.index].num_tokens - 1 for sequence in self.sequences)
        return own + prompt_length * (1 if self.is_shared else len(self.sequences))

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence, fed whole."""
        longest = max(self.group.sequences[sequence.index].num_tokens for sequence in self.sequences)
        return len(self.group.prompt_token_ids) + longest - 1

    def num_padded(self, length: int) -> int:
        """Tokens that it feeds as rows padded to a length, or to its own longest row where that is longer."""
        return max(length, self.longest) * len(self.sequences)


def partition_groups(token_counts: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Distribute groups over ranks so that tokens balance: longest first, each to the rank with least so far.

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
    # (tokens, groups, rank): the least filled rank comes first. Already a heap, being sorted.
    filled = [(0, 0, rank) for rank in range(num_ranks)]
    for index in sorted(range(len(token_counts)), key=lambda i: (-token_counts[i], i)):
        tokens, num_groups, rank = filled[0]
        shares[rank].append(index)
        heapq.heapreplace(filled, (tokens + token_counts[index], num_groups + 1, rank))
    return [sorted(share) for share in shares]


def split_minibatches(group_ids: Sequence[str], num_minibatches: int, *, seed: int) -> list[frozenset[str]]:
    """Distribute a step's groups over minibatches at random, the same on every rank.

    Args:
        group_ids: of the whole step, in any order.
        num_minibatches: number of parts; sizes differ by at most one.
        seed: of this pass over the step.

    Example:
        >>> [sorted(part) for part in split_minibatches(["b", "a", "c"], 1, seed=0)]
        [['a', 'b', 'c']]
    """
    ordered = sorted(group_ids)
    dealt = np.random.default_rng(seed).permutation(len(ordered))
    return [frozenset(ordered[i] for i in dealt[part::num_minibatches]) for part in range(num_minibatches)]


def make_pieces(
    group: ScoredGroup,
    sequences: Sequence[TrainSequence],
    *,
    micro_batch_tokens: int,
    prefix_sharing: str,
    is_padded: bool = False,
) -> list[Piece]:
    """Cut a group's sequences, in order, into pieces that fit the token budget; a longer one is a piece of its own.

    Args:
        group: of the sequences.
        sequences: those that enter the forward pass.
        micro_batch_tokens: budget.
        prefix_sharing: auto | always | never, see LearnerConfig; never for padded ones.
        is_padded: whether sequences are rows padded to the longest one, and padding counts.
    """
    is_shared = prefix_sharing == "always" or (prefix_sharing == "auto" and len(sequences) >= MIN_SHARING)
    pieces: list[Piece] = []
    for sequence in sequences:
        alone = Piece(group=group, sequences=(sequence,), is_shared=is_shared)
        if pieces:
            joined = replace(pieces[-1], sequences=(*pieces[-1].sequences, sequence))
            if (joined.num_padded(0) if is_padded else joined.num_tokens) <= micro_batch_tokens:
                pieces[-1] = joined
                continue
        pieces.append(alone)
    return pieces


def plan_micro_batches(
    pieces: Sequence[Piece], micro_batch_tokens: int, *, is_padded: bool = False
) -> list[list[Piece]]:
    """Pack pieces into micro-batches within the token budget, longest first, so that similar lengths are together.

    Args:
        pieces: in any order.
        micro_batch_tokens: budget.
        is_padded: whether sequences are rows padded to the longest one of their micro-batch, and padding counts.
    """

    def length(piece: Piece) -> int:
        return piece.longest if is_padded else piece.num_tokens

    batches: list[list[Piece]] = []
    filled = row = 0
    for piece in sorted(pieces, key=lambda p: (-length(p), p.group.group_id, p.sequences[0].index)):
        fed = piece.num_padded(row) if is_padded else piece.num_tokens
        if batches and filled + fed <= micro_batch_tokens:
            batches[-1].append(piece)
            filled += fed
        else:
            batches.append([piece])
            row = piece.longest if is_padded else 0
            filled = piece.num_padded(row) if is_padded else piece.num_tokens
    return batches
