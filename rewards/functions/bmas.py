"""BMAS: similarity of each token of one text to its best match in the other, by cosine of static embeddings.

    F = sum_i u_i max_j c_ij / sum_i u_i      over the reply's tokens i with weights u (precision)
    B = sum_j v_j max_i c_ij / sum_j v_j      over the reference's tokens j with weights v (recall)
    BMAS = (F + B) / 2,                       c_ij = cos_ij |cos_ij|^(sharpness - 1)

The literal formula has all weights 1 and sharpness 1. The default reward (open_ended.py) lets function words
weigh 0.01 and words that fit any picture 0.25, takes sharpness 3 and multiplies by `composition_factor`,
`repetition_factor`, `overuse_factor` and `specificity_factor`, which are nearly 1 on honest prose. Order, negation and
facts are invisible to all of it.

Axes: U distinct ids of all replies of a group, R distinct ids of one reply, G distinct ids of the gold, d width.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewards.core.base import RewardError
from rewards.functions.embedding_table import EmbeddingTable

BLOCK = 64
"""Rows of one matrix product: bounds the memory of gathered rows."""

FRACTION_BITS = 26
"""Unit rows are rounded to multiples of 2^-26, nearer than float32 keeps them. Products are then multiples of 2^-52,
and no sum of them leaves [-1, 1] (Cauchy-Schwarz), so float64 adds them without any rounding: a cosine is the same
number in whatever order, block, thread or machine it is summed, and a reward never depends on its neighbours."""

_UNIT = 2.0 ** (-2 * FRACTION_BITS)


FREQUENT_SHARE = 0.55
"""Share of function words, counted in words, above which a reply counts as padded; see the table in README.md."""
KEPT_SHARE = 0.6
"""A reply with less than this part of the reference's share of function words is a list, not a sentence."""
LIST_FACTOR = 0.5
"""Factor of a reply without any function word."""
REPETITION_POWER = 0.15
"""A text said twice keeps 0.9 of its value: enough to lose against the text said once, and no more, as honest captions
that sum themselves up repeat half of their words."""
NGRAM = 4
USES = 5
"""Uses of one content word that cost nothing, whatever the reference holds."""
OVERUSE_ALLOWED = 0.05
"""Share of uses beyond those that costs nothing: long honest captions come near it."""


class Text(NamedTuple):
    """Token ids and the weight of each occurrence; no weights are equal weights."""

    ids: Sequence[int]
    weights: Sequence[float] | None = None


def bmas_group(gold: Text, replies: Sequence[Text], table: EmbeddingTable, *, sharpness: float = 1.0) -> list[float]:
    """Return BMAS of each reply against one gold text.

    Only distinct ids enter the product, and one product serves all replies.

    Args:
        gold: Not empty.
        replies: An empty one scores 0.
        table: Input embeddings of the frozen initial policy.
        sharpness: At least 1; what a cosine is raised to. Unrelated tokens have cosines well above 0 in most tables.

    Returns:
        One value in [0, 1] per reply; exactly 1 for the same ids and weights; independent of the other replies.

    Raises:
        RewardError: If an id is outside of the table.

    Example:
        >>> bmas_group(Text([0, 1]), [Text([1, 0]), Text([0, 0])], EmbeddingTable(np.eye(2, dtype=np.float32)))
        [1.0, 0.75]
    """
    directions = group_directions(gold, replies, table, sharpness=sharpness)
    return [min(1.0, max(0.0, (forward + backward) / 2.0)) for forward, backward in directions]


def group_directions(
    gold: Text, replies: Sequence[Text], table: EmbeddingTable, *, sharpness: float = 1.0
) -> list[tuple[float, float]]:
    """Return (F, B) of each reply against one gold text; see `bmas_group`. An empty reply has (0, 0)."""
    gold_ids, gold_weights = _distinct(gold)
    weighted = [_distinct(reply) for reply in replies]
    union = np.unique(np.concatenate([ids for ids, _ in weighted])) if weighted else np.empty(0, np.int64)
    if not union.size:
        return [(0.0, 0.0) for _ in weighted]
    similarity = _similarity(union, gold_ids, table)
    best_in_gold = _sharpened(similarity.max(axis=1), sharpness)
    directions = []
    for ids, weights in weighted:
        if not ids.size:
            directions.append((0.0, 0.0))
            continue
        at = np.searchsorted(union, ids)
        forward = _mean(best_in_gold[at], weights)
        backward = _mean(_sharpened(similarity[at].max(axis=0), sharpness), gold_weights)
        directions.append((forward, backward))
    return directions


def composition_factor(reply_share: float, gold_share: float) -> float:
    """Return the factor for a reply's share of function words.

    1 for prose. Above max(0.55, the reference's share) it falls to 0 at function words alone, so padding with them
    costs more than it finds; below 0.6 x min(0.55, the reference's share) it falls to 0.5 at a list of keywords.

    Args:
        reply_share: Function words of all words, in [0, 1].
        gold_share: The same of the reference.

    Example:
        >>> composition_factor(0.5, 0.4), composition_factor(0.875, 0.75), composition_factor(0.0, 0.4)
        (1.0, 0.5, 0.5)
    """
    most, least = max(gold_share, FREQUENT_SHARE), KEPT_SHARE * min(gold_share, FREQUENT_SHARE)
    if reply_share > most:
        return (1.0 - reply_share) / (1.0 - most)
    return 1.0 if reply_share >= least else LIST_FACTOR + (1.0 - LIST_FACTOR) * reply_share / least


def repetition_factor(reply: Sequence[Hashable], gold: Sequence[Hashable]) -> float:
    """Return (1 - d)^0.15, d = how much more of the reply than of the reference are repeated 4-grams of words.

    Texts of fewer than eight words are judged by n-grams of half their length, so that `dog dog` is a repetition too.

    Returns:
        In (0, 1]; strictly less than 1 for any text that is said twice.

    Example:
        >>> words = "a dog runs over the wide lawn".split()
        >>> repetition_factor(words, words), round(repetition_factor(words * 2, words), 3)
        (1.0, 0.934)
    """
    size = min(NGRAM, max(1, len(reply) // 2))
    return float((1.0 - max(0.0, duplicate_frac(reply, size) - duplicate_frac(gold, size))) ** REPETITION_POWER)


def overuse_factor(reply: Sequence[Hashable], gold: Sequence[Hashable]) -> float:
    """Return min(1, (1 - d) / 0.95)^2, d = share of content words beyond the fifth use, or beyond the reference's uses.

    Repeating one right word between changing function words repeats no 4-gram, and every use of it counts as found.

    Args:
        reply: Content words of the reply, in order.
        gold: The same of the reference.

    Example:
        >>> overuse_factor(["dog"] * 20, ["dog", "lawn"]), overuse_factor(["dog"] * 20, ["dog"] * 20)
        (0.06925207756232686, 1.0)
    """
    allowed = Counter(gold)
    excess = sum(max(0, uses - max(USES, allowed[word])) for word, uses in Counter(reply).items())
    share = excess / len(reply) if reply else 0.0
    return min(1.0, (1.0 - share) / (1.0 - OVERUSE_ALLOWED)) ** 2


def specificity_factor(reply_weight: float, gold_weight: float) -> float:
    """Return the factor for a reply that is less specific than the reference: min(1, reply / gold).

    Args:
        reply_weight: Mean weight of the reply's distinct content words, in (0, 1].
        gold_weight: The same of the reference.

    Example:
        >>> specificity_factor(0.3, 0.6), specificity_factor(0.9, 0.6)
        (0.5, 1.0)
    """
    return min(1.0, reply_weight / gold_weight)


def duplicate_frac(words: Sequence[Hashable], size: int = NGRAM) -> float:
    """Return the share of n-grams that occurred before; 0 for fewer than `size` words."""
    total = len(words) - size + 1
    if total < 1:
        return 0.0
    return 1.0 - len(set(zip(*(words[offset : offset + total] for offset in range(size)), strict=True))) / total


def _distinct(text: Text) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return distinct ids, sorted, and the total weight of each."""
    ids, places, counts = np.unique(np.asarray(text.ids, np.int64), return_inverse=True, return_counts=True)
    if text.weights is None:
        return ids, counts.astype(np.float64)
    return ids, np.bincount(places, np.asarray(text.weights, np.float64), minlength=len(ids)).astype(np.float64)


def _sharpened(cosines: NDArray[np.float32], sharpness: float) -> NDArray[np.float64]:
    """Return cos |cos|^(sharpness - 1), which keeps order, sign, 0 and 1; so it may follow the maximum."""
    wide = cosines.astype(np.float64)
    return wide if sharpness == 1.0 else wide * np.abs(wide) ** (sharpness - 1.0)


def _similarity(union: NDArray[np.int64], gold: NDArray[np.int64], table: EmbeddingTable) -> NDArray[np.float32]:
    """Return cosines [U, G]; equal ids are exactly 1, so that rounding neither lowers nor exceeds identity."""
    gold_rows = _unit_rows(gold, table)
    similarity = np.empty((len(union), len(gold)), np.float32)
    _, in_union, in_gold = np.intersect1d(union, gold, assume_unique=True, return_indices=True)
    if in_gold.size:
        # The library computes a product of a matrix with itself at half the price.
        similarity[in_union] = (gold_rows @ gold_rows.T)[in_gold] * _UNIT
        similarity[in_union, in_gold] = 1.0
    others = np.delete(np.arange(len(union)), in_union)
    for start in range(0, len(others), BLOCK):
        block = others[start : start + BLOCK]
        similarity[block] = (_unit_rows(union[block], table) @ gold_rows.T) * _UNIT
    return similarity


def _unit_rows(token_ids: NDArray[np.int64], table: EmbeddingTable) -> NDArray[np.float64]:
    """Return rows [k, d] of length 2^FRACTION_BITS in whole numbers; a zero row has no direction and stays zero.

    Raises:
        RewardError: If a row is not finite.
    """
    rows = table.rows(token_ids).astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if not np.isfinite(norms).all():
        raise RewardError("the embedding table holds NaN or infinity in a row that was asked for")
    rows *= (2.0**FRACTION_BITS / np.where(norms > 0.0, norms, 1.0))[:, None]
    return np.rint(rows, out=rows)


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    return float((values * weights).sum()) / total if total > 0.0 else 0.0
