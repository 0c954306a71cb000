"""BMAS: how well each token of one text finds a counterpart in the other, by cosine of static embeddings.

forward F = mean over reply tokens of their best cosine in the gold (precision), backward B = mean over gold tokens of
their best cosine in the reply (recall), BMAS = (F + B) / 2. Order, negation and facts are invisible to it.

Axes: U distinct ids of all replies of a group, R distinct ids of one reply, G distinct ids of the gold, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewards.base import RewardError
from rewards.embedding_table import EmbeddingTable

BLOCK = 64
"""Rows of one matrix product: bounds the memory of gathered rows."""

FRACTION_BITS = 26
"""Unit rows are rounded to multiples of 2^-26, nearer than float32 keeps them. Products are then multiples of 2^-52,
and no sum of them leaves [-1, 1] (Cauchy-Schwarz), so float64 adds them without any rounding: a cosine is the same
number in whatever order, block, thread or machine it is summed, and a reward never depends on its neighbours."""

_UNIT = 2.0 ** (-2 * FRACTION_BITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class BmasOptions:
    """Variants of the formula; the defaults are the literal one."""

    f1: bool = False
    """Harmonic instead of arithmetic mean of F and B."""
    distinct: bool = False
    """Each distinct token counts once."""
    idf: NDArray[np.float32] | None = None
    """[V] weight of each token id."""


def bmas_group(
    gold_ids: Sequence[int],
    reply_ids: Sequence[Sequence[int]],
    table: EmbeddingTable,
    *,
    options: BmasOptions,
) -> list[float]:
    """Give BMAS of each reply against one gold text.

    Only distinct ids enter the product, one product serves all replies, and counts weight the means.

    Args:
        gold_ids: Token ids, not empty.
        reply_ids: Token ids of each reply; an empty one scores 0.
        table: Input embeddings of the frozen initial policy.
        options: Variants.

    Returns:
        One value in [0, 1] per reply; exactly 1 for identical ids; independent of the other replies.

    Raises:
        RewardError: If an id is outside of the table.

    Example:
        >>> bmas_group([0, 1], [[1, 0], [0, 0]], EmbeddingTable(np.eye(2, dtype=np.float32)), options=BmasOptions())
        [1.0, 0.75]
    """
    directions = group_directions(gold_ids, reply_ids, table, options=options)
    return [_combine(forward, backward, f1=options.f1) for forward, backward in directions]


def group_directions(
    gold_ids: Sequence[int],
    reply_ids: Sequence[Sequence[int]],
    table: EmbeddingTable,
    *,
    options: BmasOptions,
) -> list[tuple[float, float]]:
    """Give (F, B) of each reply against one gold text; see `bmas_group`. An empty reply has (0, 0)."""
    gold, gold_weights = _weighted(gold_ids, options)
    replies = [_weighted(ids, options) for ids in reply_ids]
    union = np.unique(np.concatenate([ids for ids, _ in replies])) if replies else np.empty(0, np.int64)
    if not union.size:
        return [(0.0, 0.0) for _ in replies]
    similarity = _similarity(union, gold, table)
    best_in_gold = similarity.max(axis=1).astype(np.float64)
    directions = []
    for ids, weights in replies:
        if not ids.size:
            directions.append((0.0, 0.0))
            continue
        at = np.searchsorted(union, ids)
        forward = _mean(best_in_gold[at], weights)
        backward = _mean(similarity[at].max(axis=0).astype(np.float64), gold_weights)
        directions.append((forward, backward))
    return directions


def inverse_document_frequencies(documents: Sequence[Sequence[int]], vocab_size: int) -> NDArray[np.float32]:
    """Give log((N + 1) / (n_t + 1)) of each token id over N documents.

    Returns:
        [V] float32, save it as .npy for `reward.open_ended.idf_path`.

    Source:
        BERTScore (Zhang et al., 2020), with plus-one smoothing.
    """
    counts = np.zeros(vocab_size, np.int64)
    for ids in documents:
        counts[np.unique(np.asarray(ids, np.int64))] += 1
    return np.log((len(documents) + 1) / (counts + 1)).astype(np.float32)


def calibrate_baseline(texts: Sequence[Sequence[int]], table: EmbeddingTable, *, options: BmasOptions) -> float:
    """Give the mean BMAS of each text against the next: what unrelated texts earn under this table.

    Args:
        texts: At least two texts of one kind, as token ids, none empty.
        table: The table that will be scored with.
        options: The variants that will be scored with.

    Returns:
        A value in [0, 1] for `reward.open_ended.baseline`.
    """
    pairs = zip(texts, (*texts[1:], texts[0]), strict=True)
    return float(np.mean([bmas_group(gold, [reply], table, options=options)[0] for gold, reply in pairs]))


def _weighted(ids: Sequence[int], options: BmasOptions) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give distinct ids, sorted, and what each weighs in its mean."""
    distinct, counts = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
    weights = np.ones(len(distinct)) if options.distinct else counts.astype(np.float64)
    if options.idf is not None:
        weights = weights * options.idf[distinct]
    return distinct, weights


def _similarity(union: NDArray[np.int64], gold: NDArray[np.int64], table: EmbeddingTable) -> NDArray[np.float32]:
    """Give cosines [U, G]; equal ids are exactly 1, so that rounding neither lowers nor exceeds identity."""
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
    """Give rows [k, d] of length 2^FRACTION_BITS in whole numbers; a zero row has no direction and stays zero.

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


def _combine(forward: float, backward: float, *, f1: bool) -> float:
    if f1:
        both = forward + backward
        value = 2.0 * forward * backward / both if forward > 0.0 and backward > 0.0 else 0.0
    else:
        value = (forward + backward) / 2.0
    return min(1.0, max(0.0, value))
