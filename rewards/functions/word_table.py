"""A table of words for scoring open-ended rows without a checkpoint: reproducible, tiny, and no model's.

One row per lower-cased word or punctuation mark, drawn from the word itself and near-orthogonal to all others, so BMAS
becomes the overlap of words; ten pairs of synonyms are planted with a cosine of about 0.86. For reading cases and
trying settings, never for training.
"""

import re
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rewards.functions.embedding_table import EmbeddingTable

SYNONYMS = {
    "canine": "dog",
    "crimson": "red",
    "lawn": "grass",
    "wooden": "wood",
    "kids": "children",
    "kid": "child",
    "automobile": "car",
    "sits": "sitting",
    "big": "large",
    "huge": "large",
}
"""Word to the word whose row it shares, up to noise."""

NOISE = 0.6
WIDTH = 256
ID_BYTES = 6
"""Ids have 48 bits: among a million words, two share an id with a chance of 0.2 %."""
_KNOWN_ROWS = 1 << 16
_WORD = re.compile(r"\w+|[^\w\s]")


class WordTable(EmbeddingTable):
    """A tokenizer and its embedding table in one.

    Example:
        >>> words = WordTable()
        >>> words.encode("A dog.") == words.encode("a DOG .")
        True
    """

    def __init__(self) -> None:
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._base_of = {word_id(word): word_id(base) for word, base in SYNONYMS.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """(Number of possible ids, width)."""
        return 1 << (8 * ID_BYTES), WIDTH

    def encode(self, text: str) -> list[int]:
        """Return one id per word or mark."""
        return [word_id(word) for word in _WORD.findall(text.lower())]

    def rows(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows [k, 256] of any ids."""
        return np.array([self._row(int(token_id)) for token_id in token_ids], np.float32).reshape(-1, WIDTH)

    def _row(self, token_id: int) -> NDArray[np.float32]:
        if token_id not in self._rows:
            if len(self._rows) >= _KNOWN_ROWS:
                self._rows.clear()
            row = np.random.default_rng(token_id).standard_normal(WIDTH, dtype=np.float32)
            if token_id in self._base_of:
                row = self._row(self._base_of[token_id]) + np.float32(NOISE) * row
            self._rows[token_id] = row
        return self._rows[token_id]


def word_id(word: str) -> int:
    """Return the id of a word: the same in every process and on every machine."""
    return int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=ID_BYTES).digest(), "big")
