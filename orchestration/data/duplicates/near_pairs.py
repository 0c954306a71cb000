"""Which bit patterns lie within a few bits of each other: blocks of numpy, exact, no approximation."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

WORDS = 4
"""uint64 of one pattern of 256 bits."""
BITS = 256
BLOCK = 512
"""Rows and columns of one comparison: 262,144 pairs, some tens of MB where every pair is near."""
FEW = 50
"""Of this many pairs, one that is left is looked at by itself: a pair costs as much as this many in a matrix."""

Patterns = NDArray[np.uint64]
Places = NDArray[np.int64]
Pairs = tuple[Places, Places]


def mixed_bit_order(set_counts: NDArray[np.int64], num_patterns: int, num_bands: int) -> NDArray[np.int64]:
    """Order the bits so that every band of neighbours holds its share of the bits that tell patterns apart.

    Drawn pictures have white borders, whose bits are 0 everywhere: a band of those alone would hold all pictures.

    Args:
        set_counts: [256], patterns in which each bit is set.
        num_patterns: How many patterns were counted.
        num_bands: Bands that the order is for.
    """
    told_apart = np.argsort(np.abs(2 * set_counts - num_patterns), kind="stable")
    return np.concatenate([told_apart[band::num_bands] for band in range(num_bands)])


def reorder_bits(patterns: NDArray[np.uint8], order: NDArray[np.int64]) -> Patterns:
    """Give patterns [n, 32 bytes] with their bits in `order`, as [n, 4] words; distances stay as they are."""
    bits = np.unpackbits(patterns, axis=1)[:, order]
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


def band_keys(patterns: Patterns, band: int, num_bands: int) -> NDArray[np.uint64]:
    """Give one number per pattern that is equal where the bits of a band are.

    Patterns within num_bands - 1 bits of each other agree in at least one of num_bands bands (pigeonhole). Bands wider
    than 64 bits are mixed into one number: unequal bands may then share it, which costs time and no exactness.

    Args:
        patterns: [n, 4], from reorder_bits with mixed_bit_order of as many bands.
        band: Which band.
        num_bands: Of how many.
    """
    sizes = [len(range(b, BITS, num_bands)) for b in range(num_bands)]
    start = sum(sizes[:band])
    wanted = np.zeros(BITS, dtype=np.uint8)
    wanted[start : start + sizes[band]] = 1
    masked = patterns & np.packbits(wanted).view(np.uint64)
    keys = np.zeros(len(patterns), dtype=np.uint64)
    for word in range(WORDS):
        keys = (keys ^ masked[:, word]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def pairs_within(left: Patterns, right: Patterns, limit: int) -> Pairs:
    """Give all (i, j) with at most `limit` unequal bits between left[i] and right[j], sorted.

    The first of the four words decides most pairs of photographs; pictures that are much alike need all four.
    """
    unequal = np.bitwise_count(left[:, None, 0] ^ right[None, :, 0]).astype(np.uint16)
    for word in range(1, WORDS):
        if np.count_nonzero(unequal <= limit) * FEW < unequal.size:
            rows, columns = np.nonzero(unequal <= limit)
            near = distances(left[rows], right[columns]) <= limit
            return rows[near], columns[near]
        unequal += np.bitwise_count(left[:, None, word] ^ right[None, :, word])
    rows, columns = np.nonzero(unequal <= limit)
    return rows, columns


def distances(left: Patterns, right: Patterns) -> NDArray[np.int64]:
    """Give the number of unequal bits of left[i] and right[i]."""
    unequal: NDArray[np.int64] = np.bitwise_count(left ^ right).sum(axis=-1, dtype=np.int64)
    return unequal


def buckets(keys: NDArray[np.uint64], members: Places) -> Iterator[Places]:
    """Give the members of every key that has at least two, in the order of `members`."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], in_order[1:] != in_order[:-1])))
    ends = np.append(starts[1:], len(keys))
    for start, end in zip(starts, ends, strict=True):
        if end - start > 1:
            yield members[order[start:end]]


def first_matches(left: Places, right: Places, matches: Callable[[Places, Places], Pairs]) -> Iterator[tuple[int, int]]:
    """Give (member of left, first member of right that it matches), for those that match any.

    Blocks of `right` are taken in their order, and who has found a match leaves: many duplicates cost little.

    Args:
        left: Members to find a match for.
        right: Members to be found, best first.
        matches: Confirmed pairs (i, j) of a block of each, sorted by i and then j.
    """
    for start in range(0, len(left), BLOCK):
        open_ = left[start : start + BLOCK]
        for other in range(0, len(right), BLOCK):
            block = right[other : other + BLOCK]
            rows, columns = matches(open_, block)
            found, firsts = np.unique(rows, return_index=True)
            yield from zip(open_[found].tolist(), block[columns[firsts]].tolist(), strict=True)
            open_ = np.delete(open_, found)
            if not len(open_):
                break
