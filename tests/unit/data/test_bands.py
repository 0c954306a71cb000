"""Keys that near rows have in common: none of them is missed, and few others are found."""

import random

import numpy as np
import pytest

from orchestration.data import bands
from orchestration.data.bands import band_keys, equal_pairs, joint_keys, num_pairs, rarest
from orchestration.data.row_index import jaccard


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def patterns(values: list[int]) -> np.ndarray:
    return np.frombuffer(b"".join(value.to_bytes(32, "little") for value in values), np.uint64).reshape(-1, 4)


@pytest.mark.parametrize("limit", [0, 1, 3, 10, 31, 40])
@pytest.mark.parametrize("common_bits", [0, 150, 256])
def test_patterns_within_the_limit_agree_in_a_key(limit: int, common_bits: int) -> None:
    draw = random.Random(limit)
    mask = (1 << 256) - (1 << common_bits)  # the low bits are 0 in all, as those of a white margin
    values = [draw.getrandbits(256) & mask for _ in range(60)]
    values += [flipped(value, draw.sample(range(256), limit)) for value in values]
    found = list(band_keys(patterns(values), limit))
    assert len(found) == limit + 1
    for place in range(60):
        assert any(key[place] == key[place + 60] for key in found)


def test_bytes_that_all_have_in_common_are_dealt_out_evenly() -> None:
    draw = random.Random(0)
    values = [draw.getrandbits(128) for _ in range(300)]  # half of the bytes are 0
    assert num_pairs(band_keys(patterns(values), 10)) < 11 * 300 * 299 / 2 / 200


def test_pairs_of_equal_keys_come_with_the_later_first_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BLOCK_PAIRS", 2)
    one, two = np.array([7, 5, 7, 7, 5], np.uint64), np.array([1, 2, 3, 4, 4], np.uint64)
    blocks = list(equal_pairs(iter([one, two])))
    pairs = [pair for later, earlier in blocks for pair in zip(later.tolist(), earlier.tolist(), strict=True)]
    assert sorted(pairs) == [(2, 0), (3, 0), (3, 2), (4, 1), (4, 3)]
    assert len(blocks) > 1
    assert num_pairs(iter([one, two])) == len(pairs)
    assert list(equal_pairs(iter([np.array([], np.uint64)]))) == []
    assert list(equal_pairs(iter([np.array([1, 2], np.uint64)]))) == []


def test_joint_keys_are_equal_where_band_and_word_are() -> None:
    band, words = np.array([3, 3, 4], np.uint64), np.array([8, 9, 8, 8], np.uint64)
    (key,) = joint_keys(iter([band]), np.array([0, 0, 1, 2]), words)
    assert key[0] == key[2]
    assert len(set(key.tolist())) == 3


def test_the_rarest_words_are_as_many_as_similar_questions_may_lack_and_one() -> None:
    words = list("abcdefghij")
    rarity = list(range(10, 0, -1))
    assert rarest(words, rarity, 0.8) == ["j", "i", "h"]
    assert rarest(words, rarity, 1.0) == ["j"]
    assert rarest(words[:4], rarity[:4], 0.8) == ["d"]
    assert len(rarest(words, rarity, 0.01)) == 10
    assert rarest([""], [1], 0.8) == [""]
    assert rarest(["b", "a"], [1, 1], 0.6) == ["a"], "equally rare words have an order too"


@pytest.mark.parametrize("similarity", [0.05, 0.3, 0.5, 2 / 3, 0.8, 0.9, 1.0])
def test_similar_questions_have_a_rare_word_in_common(similarity: float) -> None:
    draw = random.Random(0)
    vocabulary = [f"w{number}" for number in range(14)]
    rarity = {word: draw.choice([1, 2, 3]) for word in vocabulary}
    num_similar = 0
    for _ in range(4000):
        left, right = (frozenset(draw.sample(vocabulary, draw.randint(1, 12))) for _ in range(2))
        if draw.random() < 0.5:
            right = left ^ frozenset(draw.sample(vocabulary, draw.choice([0, 1, 1, 2, 3]))) or left
        if jaccard(left, right) >= similarity:
            num_similar += 1
            rare = [set(rarest(list(one), [rarity[word] for word in one], similarity)) for one in (left, right)]
            assert rare[0] & rare[1], (left, right)
    assert num_similar > 100
