"""BMAS against its definition, its invariances, the words it compares, and the guards."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.core.base import GoldError, Grade, Reason, RewardError, RewardRequest
from rewards.core.config import OpenEndedConfig
from rewards.functions.bmas import (
    FRACTION_BITS,
    Text,
    _unit_rows,
    bmas_group,
    composition_factor,
    duplicate_frac,
    overuse_factor,
    repetition_factor,
    specificity_factor,
)
from rewards.functions.caption_words import function_word_share, is_content_word, load_idf, word_frequencies, words_of
from rewards.functions.embedding_table import EmbeddingTable
from rewards.functions.open_ended import OpenEndedReward
from rewards.functions.word_table import WordTable

ROWS = np.random.default_rng(3).standard_normal((300, 48)).astype(np.float32)
TABLE = EmbeddingTable(ROWS)
ids_strategy = st.lists(st.integers(0, 299), min_size=1, max_size=40)


def group(
    gold: list[int], replies: list[list[int]], table: EmbeddingTable = TABLE, *, sharpness: float = 1.0
) -> list[float]:
    return bmas_group(Text(gold), [Text(reply) for reply in replies], table, sharpness=sharpness)


def bmas(gold: list[int], reply: list[int], table: EmbeddingTable = TABLE, *, sharpness: float = 1.0) -> float:
    return group(gold, [reply], table, sharpness=sharpness)[0]


def naive_bmas(gold: list[int], reply: list[int]) -> float:
    """The definition, token by token in float64."""
    rows = ROWS.astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    forward = sum(max(float(unit[r] @ unit[g]) for g in gold) for r in reply) / len(reply)
    backward = sum(max(float(unit[r] @ unit[g]) for r in reply) for g in gold) / len(gold)
    return (forward + backward) / 2


@given(ids_strategy, ids_strategy)
def test_bmas_equals_its_definition(gold: list[int], reply: list[int]) -> None:
    assert bmas(gold, reply) == pytest.approx(max(0.0, naive_bmas(gold, reply)), abs=1e-5)


@given(ids_strategy, ids_strategy)
def test_bmas_is_symmetric_and_bounded_and_one_on_identity(left: list[int], right: list[int]) -> None:
    value = bmas(left, right)
    assert value == pytest.approx(bmas(right, left), abs=1e-6)
    assert 0.0 <= value <= 1.0
    assert bmas(left, left) == 1.0


@given(ids_strategy, st.lists(ids_strategy, min_size=1, max_size=6))
def test_bmas_of_a_reply_does_not_depend_on_its_group(gold: list[int], replies: list[list[int]]) -> None:
    together = group(gold, replies)
    assert together == [bmas(gold, reply) for reply in replies]


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
    assert bmas([0, 1], [2], table) == pytest.approx(0.75)
    # Multiplicity weights the mean: gold [0, 0, 1] has B = (0.6 + 0.6 + 0.8) / 3.
    assert bmas([0, 0, 1], [2], table) == pytest.approx((0.8 + 2 / 3) / 2)
    # Sharpness 3: F = 0.512; B = (0.216 + 0.512) / 2 = 0.364.
    assert bmas([0, 1], [2], table, sharpness=3.0) == pytest.approx((0.512 + 0.364) / 2)
    # Weights 1 and 3 of the gold: B = (0.6 + 3 x 0.8) / 4; F has one token, whatever it weighs.
    assert bmas_group(Text([0, 1], [1, 3]), [Text([2], [9])], table) == [pytest.approx((0.8 + 0.75) / 2)]
    # Occurrences of one id add up: weights 1 and 2 of token 0, 1 of token 1: F = (3 x 0.6 + 1 x 0.8) / 4, B = 0.8.
    assert bmas_group(Text([2]), [Text([0, 1, 0], [1, 1, 2])], table) == [pytest.approx((0.65 + 0.8) / 2)]


def test_sharpness_keeps_sign_order_and_identity() -> None:
    table = EmbeddingTable(np.array([[1, 0], [-1, 0], [-3, 4]], np.float32))
    assert bmas([0], [1], table, sharpness=3.0) == 0.0
    assert bmas([0], [0], table, sharpness=3.0) == 1.0
    # Token 2 has cosine -0.6 with 0 and 0.6 with 1: F of reply [0, 1] against [2] is (-0.216 + 0.216) / 2; B = 0.216.
    assert bmas([2], [0, 1], table, sharpness=3.0) == pytest.approx(0.108)


def test_zero_rows_resemble_nothing_and_nan_rows_fail() -> None:
    table = EmbeddingTable(np.array([[0, 0], [1, 0], [np.nan, 1]], np.float32))
    assert group([1], [[0]], table) == [0.0]
    with pytest.raises(RewardError, match="NaN"):
        group([1], [[2]], table)
    with pytest.raises(RewardError, match="leave the embedding table"):
        group([1], [[7]], table)


def test_empty_replies_score_zero() -> None:
    assert group([1], [[], [1]]) == [0.0, 1.0]
    assert group([1], [[]]) == [0.0]
    assert group([1], []) == []


TINY = {"dog": (1, 0, 0), "puppy": (3, 4, 0), "the": (0, 1, 0), "a": (0, 0, 2)}
"""Words and their rows: dog and puppy have cosine 0.6, puppy and the 0.8."""


def reward(**settings: object) -> OpenEndedReward:
    words = WordTable()
    return OpenEndedReward(dataclasses.replace(OpenEndedConfig(), **settings), words.encode, words)  # type: ignore[arg-type]


def grade(answer: str, gold: str, **settings: object) -> Grade:
    request = RewardRequest(task="open", question="", response="", answer=gold)
    return reward(**settings).grade(request, [answer])[0]


def value(answer: str, gold: str = "", **settings: object) -> float:
    found = grade(answer, gold or GOLD, **settings).value
    assert found is not None
    return found


GOLD = "A small dog runs over the wide green lawn, and two children watch it from a fence."
HONEST = "Two kids stand by a fence and look at a little dog that is running across the grass."


def test_golden_values_of_the_default_with_their_arithmetic() -> None:
    names = list(TINY)
    tiny = OpenEndedReward(
        OpenEndedConfig(), lambda text: [names.index(word) for word in text.split()],
        EmbeddingTable(np.array(list(TINY.values()), np.float32)),
    )  # fmt: skip

    def tiny_value(answer: str, gold: str) -> float | None:
        return tiny.grade(RewardRequest(task="open", question="", response="", answer=gold), [answer])[0].value

    assert tiny_value("The dog.", "the DOG") == 1.0
    # Half of each text is function words, within 0.6 x 0.5 .. 0.55: composition 1; nothing is repeated.
    # F = (0.01 x 1 + 1 x 0.6^3) / 1.01. `puppy` is nearer to `the` than to `dog`: 0.8^3 = 0.512 is its best.
    # B = (0.01 x 1 + 1 x 0.6^3) / 1.01, since `dog` finds `puppy`.
    forward, backward = (0.01 + 0.512) / 1.01, (0.01 + 0.216) / 1.01
    assert tiny_value("the puppy", "the dog") == pytest.approx((forward + backward) / 2)
    # No function word against a half: 0.5 for composition; F = 1, B = 1 / 1.01.
    assert tiny_value("dog", "the dog") == pytest.approx(0.5 * (1 + 1 / 1.01) / 2)
    # The text twice: F = B = 1. Bigrams of 4 words: `the dog`, `dog the`, `the dog`: d = 1 / 3.
    assert tiny_value("the dog the dog", "the dog") == pytest.approx((1 - 1 / 3) ** 0.15)
    # Two function words of three: (1 - 2 / 3) / (1 - 0.55); one word of three is a repetition; F = B = 1.
    assert tiny_value("the dog the", "the dog") == pytest.approx((1 / 3) / 0.45 * (1 - 1 / 3) ** 0.15)


@given(st.permutations(GOLD.split()))
def test_the_order_of_words_changes_nothing_but_what_is_repeated(words: list[str]) -> None:
    assert value(" ".join(words)) == 1.0


@pytest.mark.parametrize("text", [GOLD, HONEST, "dog", "the the the", "犬が芝生の上を走る", "कुत्ता घास पर दौड़ता है"])
def test_a_text_earns_one_against_itself_in_any_case_and_punctuation(text: str) -> None:
    assert value(text, text) == 1.0
    assert value(f"**{text.upper()}** ...", text) == 1.0


def test_every_hack_earns_less_than_the_honest_caption() -> None:
    stop_words = "the a and of with on in at by to is that"
    honest = value(HONEST)
    for hack in (
        f"{HONEST} {HONEST}", f"{HONEST} {HONEST} {HONEST}", stop_words, f"{HONEST} {stop_words}",
        f"{HONEST} {stop_words} {stop_words}", "Describe this image in detail.", ".", "the",
        "The image shows a scene with several people and objects, and some of them are in the background.",
        "two kids stand fence look little dog running grass", "kids, fence, dog, running, grass",
        "A train in the rain.",
    ):  # fmt: skip
        assert value(hack) < honest, hack


def test_words_that_fit_any_picture_and_numbers_earn_little() -> None:
    general = "The scene shows two people standing in the foreground, and various objects are in the background."
    listed = "There are 1 or 2 of them, 3 or 4 on the left and 5 on the right."
    for text in (general, listed):
        assert value(text) < 0.1 * value(HONEST)
        assert value(text) < 0.8 * value(text, general_word_weight=1.0)
        # A reference that is general itself is earned by itself.
        assert value(text, text) == 1.0


def test_a_reply_keeps_the_share_of_what_it_tells_of_this_picture() -> None:
    # Content words of the reply: `person` 0.25 and `dog` 1; of the reference: `dog` and `lawn`, 1 each.
    assert specificity_factor(1.25 / 2, 1.0) == 0.625
    assert specificity_factor(1.0, 0.3) == 1.0
    lines = reward().explain(
        RewardRequest(task="open", question="", response="", answer="a dog on a lawn"), "a person and two dogs"
    )
    assert lines[-1].endswith("specificity 0.6250")
    # Numbers and function words are no content.
    words = ["the", "dog", "sees", "12", "or", "two", "things"]
    assert [word for word in words if is_content_word(word)] == ["dog", "sees", "things"]


def test_a_word_repeated_between_changing_function_words_earns_nothing() -> None:
    words = "the dog with a dog and its dog of that dog in this dog on the dog near a dog by every dog to some dog"
    for hack in (words, f"{HONEST} {words}"):
        assert value(hack) < value(HONEST), hack
    # 9 uses of 9, 5 of them allowed: d = 4 / 9. As many as the reference has cost nothing.
    assert overuse_factor(["dog"] * 9, ["dog"]) == pytest.approx(((5 / 9) / 0.95) ** 2)
    assert overuse_factor(["dog"] * 9, ["dog"] * 9) == 1.0
    assert overuse_factor(["dog"] * 6 + ["lawn"] * 14, ["lawn"] * 14) == 1.0


def test_the_literal_formula_pays_for_repetition_and_stop_words_and_is_kept() -> None:
    assert value(f"{GOLD} {GOLD}", guards=False) == 1.0
    assert value("the", guards=False) > 0.5
    assert value(f"{HONEST} the a and of it from over", guards=False) > value(HONEST, guards=False)


def test_padding_costs_more_the_longer_it_is() -> None:
    values = [value(HONEST + " the of and" * times) for times in range(2, 30)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.35 * values[0]


def test_repeating_costs_more_the_more_often_and_short_texts_too() -> None:
    for text in (GOLD, "dog", "a dog", "a small dog"):
        values = [value(" ".join([text] * times), text) for times in (1, 2, 3, 4)]
        assert values[0] == 1.0
        assert values == sorted(values, reverse=True)
        assert max(values[1:]) < 0.96


def test_composition_is_one_on_prose_and_falls_without_a_jump_at_both_ends() -> None:
    assert [composition_factor(share, 0.4) for share in (0.24, 0.4, 0.55)] == [1.0, 1.0, 1.0]
    assert composition_factor(0.55 + 1e-9, 0.4) == pytest.approx(1.0)
    assert composition_factor(0.24 - 1e-9, 0.4) == pytest.approx(1.0)
    assert composition_factor(0.775, 0.4) == pytest.approx(0.5)
    assert composition_factor(1.0, 0.4) == 0.0
    assert composition_factor(0.12, 0.4) == pytest.approx(0.75)
    assert composition_factor(1.0, 1.0) == 1.0
    assert composition_factor(0.0, 0.0) == 1.0


def test_repetition_is_counted_beyond_that_of_the_reference() -> None:
    assert duplicate_frac([1, 2, 3] * 4) == pytest.approx(1 - 3 / 9)
    assert duplicate_frac([1, 2, 3]) == 0.0
    assert repetition_factor([1, 2, 3] * 4, list(range(12))) == pytest.approx((3 / 9) ** 0.15)
    assert repetition_factor([1, 2, 3] * 4, [1, 2, 3] * 4) == 1.0
    assert repetition_factor([], [1]) == 1.0


def test_words_carry_no_case_punctuation_or_marks_of_a_model() -> None:
    assert words_of("A  **Beagle**'s <|im_end|>ball—red.") == ["a", "beagle", "s", "ball", "red"]
    assert words_of(" ... !") == []
    assert words_of("x\u00b2 \uff24\uff4f\uff47") == ["x", "2", "dog"]
    assert function_word_share(words_of("The dog is here")) == 0.75


def test_words_are_encoded_as_inside_of_a_sentence() -> None:
    def byte_level(text: str) -> list[int]:
        return [ord(piece[0]) + 1000 * piece.startswith("_") for piece in text.replace(" ", " _").split()]

    def sentence_piece(text: str) -> list[int]:
        return [0] * text.startswith(" ") + [ord(word[0]) for word in text.split()]

    table = EmbeddingTable(np.eye(1300, dtype=np.float32))
    for encode in (byte_level, sentence_piece):
        grader = OpenEndedReward(OpenEndedConfig(), encode, table)
        tokens = grader._text(["dog", "cat"])
        assert list(tokens.ids) == encode("a dog cat")[1:]
        assert tokens.weights == [1.0, 1.0]


def test_special_tokens_and_surrounding_space_are_not_scored() -> None:
    for guards in (True, False):
        assert value("  a dog<|vision_start|>\n", "a dog", guards=guards) == 1.0
        assert grade("<|im_end|>", "a dog", guards=guards).reason is Reason.NO_ANSWER
        assert value("<|im_end|>", "a dog", guards=guards) == 0.0
    assert grade("...", "a dog").reason is Reason.NO_ANSWER


def test_too_long_and_empty_reference() -> None:
    for guards in (True, False):
        assert grade("a" * 10_001, "abc", guards=guards).reason is Reason.TOO_LONG
        assert grade("a b c d", "abc", max_distinct_tokens=3, guards=guards).reason is Reason.TOO_LONG
        assert grade("a b c a", "abc", max_distinct_tokens=3, guards=guards).reason is Reason.OK
        with pytest.raises(GoldError):
            grade("a", "  ", guards=guards)
    with pytest.raises(GoldError, match="no words"):
        grade("a", "!!!")


@pytest.mark.parametrize("guards", [True, False])
def test_half_a_surrogate_pair_reaches_no_tokenizer(guards: bool) -> None:
    # Tokenizers take UTF-8, which has no such character; this one refuses it as they do.
    strict = OpenEndedReward(OpenEndedConfig(guards=guards), lambda text: list(text.encode("utf-8")), TABLE)
    request = RewardRequest(task="open", question="", response="", answer="a dog")
    assert strict.grade(request, ["a \ud800dog"])[0].value == pytest.approx(0.95, abs=0.1)


def test_words_of_many_references_weigh_less(tmp_path: Path) -> None:
    found = word_frequencies(["A dog, a dog.", "The dog and the cat", "a dog by a tree", "two cats"])
    assert found == {"num_references": 4, "words": {"a": 2, "dog": 3}}
    path = tmp_path / "word_frequencies.json"
    path.write_text(json.dumps(found))
    # log(5 / 4) / log 5 for dog, in three of four; log(5 / 3) / log 5 for a.
    assert load_idf(str(path)) == pytest.approx(
        {"a": math.log(5 / 3) / math.log(5), "dog": math.log(5 / 4) / math.log(5)}
    )
    gold = "the dog is near the cat"
    plain, weighted = (value("the dog is near the tree", gold, idf_path=name) for name in ("", str(path)))
    assert weighted < plain
    assert value(gold, gold, idf_path=str(path)) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"words": {}}',
        '{"num_references": 0, "words": {}}',
        '{"num_references": 2, "words": {"a": 3}}',
        '{"num_references": 2, "words": {"a": "1"}}',
    ],
)
def test_frequencies_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(RewardError, match=r"idf_path .*broken\.json cannot be read"):
        reward(idf_path=str(path))


def test_an_explanation_names_directions_and_guards() -> None:
    request = RewardRequest(task="open", question="", response="", answer="a dog")
    assert reward().explain(request, "a dog a dog") == [
        "4 tokens against 2",
        "forward (answer found in reference) 1.0000, backward (reference found in answer) 1.0000",
        "guards: composition 1.0000 (function words 50% against 50%), repetition 0.9410, overuse 1.0000, "
        "specificity 1.0000",
    ]
    assert len(reward(guards=False).explain(request, "a dog")) == 2
    assert reward().explain(request, "...") == ["0 tokens against 2"]
