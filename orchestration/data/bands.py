"""Pairs of rows that may be near each other, without comparing all with all; none that is near is left out.

Near rows have nearly equal image hashes and questions that share most of their words. So they have one of a few parts
of the hash in common, and one of the rarest words of either question: only rows that have both are compared.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Patterns = NDArray[np.uint64]
"""[n, 4]."""
Keys = NDArray[np.uint64]
Places = NDArray[np.int64]
OCTETS = 32
"""Bytes of a pattern of 256 bits."""
BLOCK_PAIRS = 65_536
ROUNDING = 1e-9
_MIX = np.uint64(0x9E3779B97F4A7C15)


def rarest(words: Sequence[str], rarity: Sequence[int], similarity: float) -> list[str]:
    """Return so many of the rarest words of a question that similar questions have one of theirs in common with it.

    Two sets whose Jaccard similarity is at least s share s of the words of each. Without its k rarest, a set of n words
    has too few of them if k is n - ceil(s n) + 1; so the rarest word that both have is one of the k of each.

    Args:
        words: Different words.
        rarity: Of each word, smaller for rarer ones; the same for the same word everywhere.
        similarity: Least Jaccard similarity, above 0.

    Example:
        >>> rarest(["is", "the", "dog", "red", "there"], [9, 9, 1, 2, 5], 0.8)
        ['dog', 'red']
    """
    ranked = sorted(zip(rarity, words, strict=True))
    needed = max(math.ceil(similarity * len(words) - ROUNDING), 1)
    return [word for _, word in ranked[: len(words) - needed + 1]]


def band_keys(patterns: Patterns, limit: int) -> Iterator[Keys]:
    """Yield limit + 1 keys of each pattern; patterns that differ in at most `limit` bits agree in one of them.

    Each key is made of other bytes of the pattern, and so many unequal bits leave one key untouched. Bytes that most
    patterns have in common, as at a white margin, are dealt out evenly, so that each key has bytes that tell.

    Args:
        patterns: Bits of each row.
        limit: Largest number of unequal bits. With 32 or more some keys have no bytes: they are equal for all.
    """
    octets = np.ascontiguousarray(patterns).view(np.uint8)
    common = [np.square(np.bincount(octets[:, place], minlength=256)).sum() for place in range(OCTETS)]
    order = np.argsort(common, kind="stable")
    for band in range(limit + 1):
        key = np.zeros(len(octets), np.uint64)
        for place in order[band :: limit + 1]:  # of more than eight bytes the first are shifted out
            key = key << np.uint64(8) | octets[:, place]
        yield key


def joint_keys(bands: Iterator[Keys], rows: Places, words: Keys) -> Iterator[Keys]:
    """Yield for each band a key of each (row, word) pair: equal where band and word are.

    Args:
        bands: A key of each row, [n] each.
        rows: [m], row of each pair.
        words: [m], its word.
    """
    for band in bands:
        yield (band[rows] * _MIX) ^ words


def num_pairs(keys: Iterator[Keys]) -> int:
    """Return how many pairs `equal_pairs` yields."""
    counts = (np.unique(key, return_counts=True)[1] for key in keys)
    return sum(int((count * (count - 1) // 2).sum()) for count in counts)


def equal_pairs(keys: Iterator[Keys]) -> Iterator[tuple[Places, Places]]:
    """Yield blocks of pairs (i, j), i > j, of equal keys; a pair may come several times."""
    waiting: list[tuple[Places, Places]] = []
    num_waiting = 0
    for key in keys:
        order = np.argsort(key, kind="stable")
        key = key[order]
        start = np.arange(len(key))
        for step in itertools.count(1):
            start = start[: np.searchsorted(start, len(key) - step)]
            start = start[key[start] == key[start + step]]
            if not len(start):
                break
            waiting.append((order[start + step], order[start]))  # stable: the later of equal keys is behind
            num_waiting += len(start)
            if num_waiting >= BLOCK_PAIRS:
                yield _joined(waiting)
                waiting, num_waiting = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(pairs: Sequence[tuple[Places, Places]]) -> tuple[Places, Places]:
    return np.concatenate([later for later, _ in pairs]), np.concatenate([earlier for _, earlier in pairs])
