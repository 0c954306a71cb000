"""The distinct questions of a recipe as sets of words: signatures in mapped files, the words in the index."""

import math
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orchestration.data.duplicates.fingerprints import jaccard
from orchestration.data.duplicates.near_pairs import WORDS, Pairs, Patterns, Places, distances, pairs_within
from orchestration.data.duplicates.row_index import RowIndex

READ_ROWS = 8192
CACHED_SETS = 8192
ROUNDING = 1e-9


class Questions:
    """Compares word sets by number, which is their id in the index less one."""

    def __init__(self, index: RowIndex) -> None:
        """Write the signatures of all word sets of the index into files beside it."""
        self._index = index
        num_sets = next(index.read("SELECT COUNT(*) FROM word_sets"))[0]
        rows = max(num_sets, 1)
        self._signatures = np.memmap(index.folder / "signatures", np.uint64, "w+", shape=(rows, WORDS))
        self._num_words = np.memmap(index.folder / "num_words", np.int64, "w+", shape=(rows,))
        cursor = index.database.execute("SELECT signature, num_words FROM word_sets ORDER BY id")
        done = 0
        while block := cursor.fetchmany(READ_ROWS):
            end = done + len(block)
            self._signatures[done:end] = np.frombuffer(b"".join(row[0] for row in block), np.uint64).reshape(-1, WORDS)
            self._num_words[done:end] = [row[1] for row in block]
            done = end
        assert done == num_sets, f"{num_sets} word sets, of which {done} were read"
        self._words = lru_cache(maxsize=CACHED_SETS)(self._read_words)

    def near_signatures(self, left: Places, right: Places, similarity: float) -> Pairs:
        """Give all (i, j) whose similarity may be large enough; it is still to be computed."""
        most = int(self._num_words[left].max() + self._num_words[right].max())
        limit = int(_most_unequal(most, similarity))
        return pairs_within(self._patterns(left), self._patterns(right), limit)

    def similar(self, left: Places, right: Places, similarity: float) -> NDArray[np.bool_]:
        """Say for each pair (left[i], right[i]) whether the Jaccard similarity is at least `similarity`."""
        unequal = distances(self._patterns(left), self._patterns(right))
        like = unequal <= _most_unequal(self._num_words[left] + self._num_words[right], similarity)
        places = np.flatnonzero(like)
        # Few questions make many pairs: each pair of word sets is compared once.
        num_sets = len(self._num_words)
        pairs, of_pair = np.unique(left[places].astype(np.int64) * num_sets + right[places], return_inverse=True)
        numbers = (divmod(pair, num_sets) for pair in pairs.tolist())
        verdicts = [jaccard(self._words(a), self._words(b)) >= similarity for a, b in numbers]
        like[places] = np.array(verdicts, dtype=np.bool_)[of_pair]
        return like

    def prefix_keys(self, sets: Places, similarity: float) -> Iterator[tuple[int, int]]:
        """Give (place in `sets`, word number) such that sets of enough similarity share at least one word number.

        Prefix filter: of n words in one order, some of the first n - ceil(similarity n) + 1 are in any set as similar
        as that. Rare words come first, so that few sets share a number.

        Source: Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006.
        """
        numbers, of_set = np.unique(sets, return_inverse=True)
        members = np.split(np.argsort(of_set, kind="stable"), np.cumsum(np.bincount(of_set))[:-1])
        counts = Counter(word for number in numbers.tolist() for word in self._words(number))
        rank = {word: i for i, (word, _) in enumerate(sorted(counts.items(), key=lambda item: (item[1], item[0])), 1)}
        for number, places in zip(numbers.tolist(), members, strict=True):
            ranks = sorted(rank[word] for word in self._words(number))
            size = len(ranks) - math.ceil(similarity * len(ranks) - ROUNDING) + 1
            # Sets without words are similar to each other alone: they share the number 0.
            for key in ranks[:size] or [0]:
                for place in places.tolist():
                    yield place, key

    def _patterns(self, sets: Places) -> Patterns:
        return np.asarray(self._signatures[sets])

    def _read_words(self, number: int) -> frozenset[str]:
        words: str = next(self._index.read("SELECT words FROM word_sets WHERE id = ?", number + 1))[0]
        return frozenset(words.split(" ")) if words else frozenset()


def _most_unequal(num_words: NDArray[np.int64] | int, similarity: float) -> NDArray[np.int64]:
    """Words that two sets of together num_words may not share: (1 - s) / (1 + s) of them, from |A & B| >= s |A | B|."""
    return np.floor(np.asarray(num_words) * ((1 - similarity) / (1 + similarity)) + ROUNDING).astype(np.int64)
