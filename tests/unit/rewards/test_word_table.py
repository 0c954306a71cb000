"""The table of words: the same in every process, synonyms near, all else apart."""

import numpy as np

from rewards.functions.word_table import SYNONYMS, WordTable


def cosine(words: WordTable, left: str, right: str) -> float:
    rows = words.rows(np.array(words.encode(f"{left} {right}")))
    return float(rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1]))


def test_synonyms_are_near_and_other_words_far() -> None:
    words = WordTable()
    assert all(0.8 < cosine(words, word, base) < 0.92 for word, base in SYNONYMS.items())
    assert abs(cosine(words, "dog", "revenue")) < 0.25
    assert cosine(words, "Dog", "dog") > 0.999


def test_rows_do_not_depend_on_what_was_asked_before() -> None:
    first, second = WordTable(), WordTable()
    first.rows(np.array(first.encode("many other words come first")))
    ids = np.array(first.encode("a crimson ball"))
    np.testing.assert_array_equal(first.rows(ids), second.rows(ids))
    assert first.rows(np.array([], np.int64)).shape == (0, 256)
