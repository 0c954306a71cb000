"""The table of words that the open-ended cases are scored over, as a fixture."""

from collections.abc import Callable

import pytest

from rewards.functions.embedding_table import EmbeddingTable
from rewards.functions.word_table import WordTable


@pytest.fixture(scope="session")
def toy() -> tuple[Callable[[str], list[int]], EmbeddingTable]:
    """Give a tokenizer with its table."""
    words = WordTable()
    return words.encode, words
