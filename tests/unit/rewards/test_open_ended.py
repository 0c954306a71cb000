"""BMAS against its definition, its invariances, the guards, and the options."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.base import GoldError, Reason, RewardError, RewardRequest
from rewards.bmas import (
    FRACTION_BITS,
    BmasOptions,
    _unit_rows,
    bmas_group,
    calibrate_baseline,
    inverse_document_frequencies,
)
from rewards.embedding_table import EmbeddingTable
from rewards.open_ended import OpenEndedReward, duplicate_factor, duplicate_frac, length_factor
from rewards.parameters import OpenEndedConfig

PLAIN = BmasOptions()
ROWS = np.random.default_rng(3).standard_normal((300, 48)).astype(np.float32)
TABLE = EmbeddingTable(ROWS)
ids_strategy = st.lists(st.integers(0, 299), min_size=1, max_size=40)


def naive_bmas(gold: list[int], reply: list[int]) -> float:
    """The definition, token by token in float64."""
    rows = ROWS.astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    forward = sum(max(float(unit[r] @ unit[g]) for g in gold) for r in reply) / len(reply)
    backward = sum(max(float(unit[r] @ unit[g]) for r in reply) for g in gold) / len(gold)
    return (forward + backward) / 2


@given(ids_strategy, ids_strategy)
def test_bmas_equals_its_definition(gold: list[int], reply: list[int]) -> None:
    assert bmas_group(gold, [reply], TABLE, options=PLAIN)[0] == pytest.approx(
        max(0.0, naive_bmas(gold, reply)), abs=1e-5
    )


@given(ids_strategy, ids_strategy)
def test_bmas_is_symmetric_and_bounded_and_one_on_identity(left: list[int], right: list[int]) -> None:
    value = bmas_group(left, [right], TABLE, options=PLAIN)[0]
    assert value == pytest.approx(bmas_group(right, [left], TABLE, options=PLAIN)[0], abs=1e-6)
    assert 0.0 <= value <= 1.0
    assert bmas_group(left, [left], TABLE, options=PLAIN) == [1.0]


@given(ids_strategy, st.lists(ids_strategy, min_size=1, max_size=6))
def test_bmas_of_a_reply_does_not_depend_on_its_group(gold: list[int], replies: list[list[int]]) -> None:
    together = bmas_group(gold, replies, TABLE, options=PLAIN)
    assert together == [bmas_group(gold, [reply], TABLE, options=PLAIN)[0] for reply in replies]


def test_cosines_are_sums_without_any_rounding() -> None:
    rows = _unit_rows(np.arange(60), TABLE)
    exact = [[sum(int(x) * int(y) for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    assert (rows @ rows.T).tolist() == exact
    assert max(map(max, exact)) < 2**53
    lengths = np.sqrt([exact[i][i] for i in range(60)]) / 2.0**FRACTION_BITS
    np.testing.assert_allclose(lengths, 1.0, atol=1e-7)


def test_golden_value_with_its_arithmetic() -> None:
    table = EmbeddingTable(np.array([[1, 0], [0, 2], [3, 4]], np.float32))
    # Reply [2] against gold [0, 1]: F = max(0.6, 0.8); B = (0.6 + 0.8) / 2; BMAS = (0.8 + 0.7) / 2.
    assert bmas_group([0, 1], [[2]], table, options=PLAIN)[0] == pytest.approx(0.75)
    # F1 of the same: 2 x 0.8 x 0.7 / 1.5.
    assert bmas_group([0, 1], [[2]], table, options=BmasOptions(f1=True))[0] == pytest.approx(2 * 0.56 / 1.5)
    # Multiplicity weights the mean: gold [0, 0, 1] has B = (0.6 + 0.6 + 0.8) / 3; distinct ignores it.
    assert bmas_group([0, 0, 1], [[2]], table, options=PLAIN)[0] == pytest.approx((0.8 + 2 / 3) / 2)
    assert bmas_group([0, 0, 1], [[2]], table, options=BmasOptions(distinct=True))[0] == pytest.approx(0.75)


def test_idf_weights_the_tokens() -> None:
    table = EmbeddingTable(np.eye(3, dtype=np.float32))
    idf = np.array([0.0, 1.0, 3.0], np.float32)
    # Gold [0, 1, 2], reply [0, 1]: F = 1; B = 1 / 4 with weights, 2 / 3 without.
    assert bmas_group([0, 1, 2], [[0, 1]], table, options=BmasOptions(idf=idf))[0] == pytest.approx((1 + 1 / 4) / 2)
    assert inverse_document_frequencies([[0, 1], [0]], 3).tolist() == pytest.approx([0.0, np.log(3 / 2), np.log(3)])


def test_zero_rows_resemble_nothing_and_nan_rows_fail() -> None:
    table = EmbeddingTable(np.array([[0, 0], [1, 0], [np.nan, 1]], np.float32))
    assert bmas_group([1], [[0]], table, options=PLAIN) == [0.0]
    with pytest.raises(RewardError, match="NaN"):
        bmas_group([1], [[2]], table, options=PLAIN)
    with pytest.raises(RewardError, match="leave the embedding table"):
        bmas_group([1], [[7]], table, options=PLAIN)


def test_empty_replies_score_zero() -> None:
    assert bmas_group([1], [[], [1]], TABLE, options=PLAIN) == [0.0, 1.0]
    assert bmas_group([1], [[]], TABLE, options=PLAIN) == [0.0]
    assert bmas_group([1], [], TABLE, options=PLAIN) == []


def test_baseline_of_unrelated_texts_is_calibrated() -> None:
    texts = [list(range(start, start + 30)) for start in range(0, 300, 30)]
    baseline = calibrate_baseline(texts, TABLE, options=PLAIN)
    assert baseline == pytest.approx(bmas_group(texts[0], [texts[1]], TABLE, options=PLAIN)[0], abs=0.05)


def reward(**settings: object) -> OpenEndedReward:
    config = dataclasses.replace(OpenEndedConfig(), **settings)  # type: ignore[arg-type]
    return OpenEndedReward(config, lambda text: [ord(char) for char in text], TABLE)


def grade(answer: str, gold: str, **settings: object):
    request = RewardRequest(task="open", question="", response="", answer=gold)
    return reward(**settings).grade(request, [answer])[0]


def test_guards_are_one_on_texts_of_like_length_and_fall_outside() -> None:
    config = OpenEndedConfig()
    assert [length_factor(n, 40, config) for n in (10, 20, 40, 80, 160)] == [0.5, 1.0, 1.0, 1.0, 0.5]
    assert duplicate_frac([1, 2, 3] * 4) == pytest.approx(1 - 3 / 9)
    assert duplicate_frac([1, 2, 3]) == 0.0
    assert duplicate_factor([1, 2, 3] * 4, [1, 2, 3], config) == pytest.approx((3 / 9) / 0.7)
    assert duplicate_factor([1, 2, 3] * 4, [1, 2, 3] * 4, config) == 1.0


def test_repeating_a_reply_never_raises_it() -> None:
    gold = "a small dog runs over the wide green lawn"
    values = [grade(" ".join([gold] * times), gold).value for times in (1, 2, 3, 4)]
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert grade(" ".join([gold] * 3), gold, guards=False).value == pytest.approx(1.0, abs=0.02)


def test_one_frequent_token_earns_little_with_guards_and_half_without() -> None:
    gold = "a small dog runs over the wide green lawn"
    assert grade("a", gold).value < 0.1
    assert grade("a", gold, guards=False).value > 0.5


def test_baseline_rescales_and_clips() -> None:
    plain = grade("abc", "abd", guards=False).value
    assert grade("abc", "abd", guards=False, baseline=0.5).value == pytest.approx((plain - 0.5) / 0.5)
    assert grade("abc", "xyz", guards=False, baseline=0.9).value == 0.0


def test_special_tokens_and_surrounding_space_are_not_scored() -> None:
    assert grade("  abc<|vision_start|>\n", "abc").value == 1.0
    assert grade("<|im_end|>", "abc").reason is Reason.NO_ANSWER
    assert grade("<|im_end|>", "abc").value == 0.0


def test_too_long_and_empty_reference() -> None:
    assert grade("a" * 10_001, "abc").reason is Reason.TOO_LONG
    assert grade("abcd", "abc", max_distinct_tokens=3).reason is Reason.TOO_LONG
    assert grade("abca", "abc", max_distinct_tokens=3).reason is Reason.OK
    with pytest.raises(GoldError):
        grade("a", "  ")


def test_half_a_surrogate_pair_reaches_no_tokenizer() -> None:
    # Tokenizers take UTF-8, which has no such character; this one refuses it as they do.
    strict = OpenEndedReward(OpenEndedConfig(), lambda text: list(text.encode("utf-8")), TABLE)
    request = RewardRequest(task="open", question="", response="", answer="a dog")
    assert strict.grade(request, ["a \ud800dog"])[0].value == pytest.approx(0.9, abs=0.1)


def test_idf_file_must_fit_the_table(tmp_path) -> None:
    np.save(tmp_path / "idf.npy", np.ones(300, np.float32))
    assert grade("abc", "abc", idf_path=str(tmp_path / "idf.npy")).value == 1.0
    np.save(tmp_path / "short.npy", np.ones(5, np.float32))
    with pytest.raises(RewardError, match="idf_path"):
        reward(idf_path=str(tmp_path / "short.npy"))
