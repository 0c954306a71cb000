"""Nearly equal images and questions: exact comparison in blocks of numpy, all pairs, no approximation."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orchestration.data.duplicates.row_index import HASH_BYTES, THUMBNAIL_BYTES, RowIndex, jaccard

WORDS = 4
"""uint64 of one pattern of 256 bits."""
BLOCK = 512
"""Rows and columns of one comparison: 262,144 pairs, some tens of MB where every pair is near."""
FEW = 50
"""Comparing a single pair costs as much as this many pairs of a matrix; fewer survivors than that go one by one."""
READ_ROWS = 8192
THUMBNAIL_PAIRS = 1024
CACHED_SETS = 8192
ROUNDING = 1e-9
SIDE = 16
QUARTER = SIDE // 2
NUM_SUMS = 2 * 2 * 3

Patterns = NDArray[np.uint64]
"""[n, 4]."""
Places = NDArray[np.int64]
Pairs = tuple[Places, Places]


class ImageFingerprints:
    """Compares fingerprints by number, which is their id in the index less one.

    Two are alike where their hashes differ in few bits and no value of their thumbnails differs by much.
    """

    def __init__(self, index: RowIndex, *, max_distance: int, max_difference: int) -> None:
        """Write the fingerprints of the index into mapped files beside it.

        Args:
            index: With all rows in it.
            max_distance: Bits of 256 in which the hashes of like images may differ.
            max_difference: Of 255, in any mean of the thumbnails.
        """
        self._max_distance, self._max_difference = max_distance, max_difference
        rows = max(index.count("fingerprints"), 1)
        self._hashes = np.memmap(index.folder / "hashes", np.uint64, "w+", shape=(rows, WORDS))
        self._thumbnails = np.memmap(index.folder / "thumbnails", np.uint8, "w+", shape=(rows, THUMBNAIL_BYTES))
        self._quarters = np.memmap(index.folder / "quarters", np.uint16, "w+", shape=(rows, NUM_SUMS))
        for part, block in index.blocks("SELECT hash, thumbnail FROM fingerprints ORDER BY id", READ_ROWS):
            hashes = np.frombuffer(b"".join(row[0] for row in block), np.uint8).reshape(-1, HASH_BYTES)
            thumbnails = np.frombuffer(b"".join(row[1] for row in block), np.uint8).reshape(-1, THUMBNAIL_BYTES)
            self._hashes[part] = np.ascontiguousarray(hashes).view(np.uint64)
            self._thumbnails[part] = thumbnails
            sums = thumbnails.reshape(-1, 2, QUARTER, 2, QUARTER, 3).sum(axis=(2, 4), dtype=np.uint16)
            self._quarters[part] = sums.reshape(-1, NUM_SUMS)

    def near_hashes(self, left: Places, right: Places) -> Pairs:
        """Return all (i, j) whose hashes are near; their thumbnails are still to be compared."""
        return pairs_within(self._hashes[left], self._hashes[right], self._max_distance)

    def alike(self, left: Places, right: Places) -> NDArray[np.bool_]:
        """Return for each pair (left[i], right[i]) whether hash and thumbnail are near."""
        like = distances(self._hashes[left], self._hashes[right]) <= self._max_distance
        # The mean of a quarter cannot differ by more than its worst pixel: most pairs are decided by these sums.
        places = np.flatnonzero(like)
        sums = self._quarters[left[places]].astype(np.int32) - self._quarters[right[places]]
        apart = np.abs(sums).max(axis=1, initial=0)
        like[places[apart > self._max_difference * QUARTER * QUARTER]] = False
        places = np.flatnonzero(like & (left != right))
        for start in range(0, len(places), THUMBNAIL_PAIRS):
            part = places[start : start + THUMBNAIL_PAIRS]
            difference = self._thumbnails[left[part]].astype(np.int16) - self._thumbnails[right[part]]
            like[part] = np.abs(difference).max(axis=1) <= self._max_difference
        return like


class Questions:
    """Compares word sets by number, which is their id in the index less one."""

    def __init__(self, index: RowIndex) -> None:
        """Write the signatures of all word sets of the index into mapped files beside it."""
        self._index = index
        rows = max(index.count("word_sets"), 1)
        self._signatures = np.memmap(index.folder / "signatures", np.uint64, "w+", shape=(rows, WORDS))
        self._num_words = np.memmap(index.folder / "num_words", np.int64, "w+", shape=(rows,))
        for part, block in index.blocks("SELECT signature, num_words FROM word_sets ORDER BY id", READ_ROWS):
            self._signatures[part] = np.frombuffer(b"".join(row[0] for row in block), np.uint64).reshape(-1, WORDS)
            self._num_words[part] = [row[1] for row in block]
        self._words = lru_cache(maxsize=CACHED_SETS)(self._read_words)

    def near_signatures(self, left: Places, right: Places, similarity: float) -> Pairs:
        """Return all (i, j) whose similarity may be large enough; it is still to be computed."""
        most = int(self._num_words[left].max() + self._num_words[right].max())
        limit = int(_most_unequal(most, similarity))
        return pairs_within(self._signatures[left], self._signatures[right], limit)

    def similar(self, left: Places, right: Places, similarity: float) -> NDArray[np.bool_]:
        """Return for each pair (left[i], right[i]) whether the Jaccard similarity is at least `similarity`."""
        unequal = distances(self._signatures[left], self._signatures[right])
        like = unequal <= _most_unequal(self._num_words[left] + self._num_words[right], similarity)
        places = np.flatnonzero(like)
        # Few questions make many pairs: each pair of word sets is compared once.
        num_sets = len(self._num_words)
        pairs, of_pair = np.unique(left[places].astype(np.int64) * num_sets + right[places], return_inverse=True)
        numbers = (divmod(pair, num_sets) for pair in pairs.tolist())
        verdicts = [jaccard(self._words(a), self._words(b)) >= similarity for a, b in numbers]
        like[places] = np.array(verdicts, dtype=np.bool_)[of_pair]
        return like

    def _read_words(self, number: int) -> frozenset[str]:
        words: str = next(self._index.read("SELECT words FROM word_sets WHERE id = ?", number + 1))[0]
        return frozenset(words.split(" ")) if words else frozenset()


def _most_unequal(num_words: NDArray[np.int64] | int, similarity: float) -> NDArray[np.int64]:
    """Words that two sets of together num_words may not share: (1 - s) / (1 + s) of them, from |A & B| >= s |A | B|."""
    return np.floor(np.asarray(num_words) * ((1 - similarity) / (1 + similarity)) + ROUNDING).astype(np.int64)


def pairs_within(left: Patterns, right: Patterns, limit: int) -> Pairs:
    """Return all (i, j) with at most `limit` unequal bits between left[i] and right[j], sorted.

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
    """Return the number of unequal bits of left[i] and right[i]."""
    unequal: NDArray[np.int64] = np.bitwise_count(np.asarray(left) ^ right).sum(axis=-1, dtype=np.int64)
    return unequal


def first_matches(left: Places, right: Places, matches: Callable[[Places, Places], Pairs]) -> Iterator[tuple[int, int]]:
    """Return (member of left, first member of right that it matches), for those that match any.

    Blocks of `right` are taken in order, and a member that has found a match is not compared further: many duplicates
    cost little.

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
