"""The toy tokenizer and table that the open-ended golden cases were scored over, as a fixture."""

import re

import numpy as np
import pytest

from rewards.embedding_table import EmbeddingTable

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
NOISE = 0.6
WIDTH = 256
CAPACITY = 4096
_WORD = re.compile(r"\w+|[^\w\s]")


class ToyTokenizer:
    """One id per lower-cased word or punctuation mark, given in the order of first sight."""

    def __init__(self) -> None:
        """Start with the planted words, so that their rows do not depend on what is encoded."""
        self.ids: dict[str, int] = {}
        for word, base in SYNONYMS.items():
            self(f"{base} {word}")

    def __call__(self, text: str) -> list[int]:
        """Encode."""
        return [self.ids.setdefault(word, len(self.ids)) for word in _WORD.findall(text.lower())]


def toy_table(tokenizer: ToyTokenizer) -> EmbeddingTable:
    """Give rows from N(0, I); a synonym's row is its base word's plus 0.6 times noise (cosine about 0.86)."""
    generator = np.random.default_rng(20240501)
    rows = generator.standard_normal((CAPACITY, WIDTH)).astype(np.float32)
    for word, base in SYNONYMS.items():
        noise = generator.standard_normal(WIDTH).astype(np.float32)
        rows[tokenizer.ids[word]] = rows[tokenizer.ids[base]] + NOISE * noise
    return EmbeddingTable(rows)


@pytest.fixture(scope="session")
def toy() -> tuple[ToyTokenizer, EmbeddingTable]:
    """Give a tokenizer with its table."""
    tokenizer = ToyTokenizer()
    return tokenizer, toy_table(tokenizer)
