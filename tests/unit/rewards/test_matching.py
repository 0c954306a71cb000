"""Matching: yes/no, multiple choice and text, with the ways in which peers misread them."""

import pytest

from rewards.core.base import GoldError, Reason, RewardRequest
from rewards.core.config import MatchingConfig
from rewards.functions.matching import MatchingReward

NUMBERS = ("10", "12", "14", "16")
ANIMALS = ("cat", "dog", "red bird", "blue bird")


def value(answer: str, gold: str, *, task: str = "match_mcq", options: tuple[str, ...] = ()) -> float | None:
    request = RewardRequest(task=task, question="", response="", answer=gold, options=options)
    return MatchingReward(MatchingConfig()).grade(request, [answer])[0].value


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        "(B)",
        "[B]",
        "{B}",
        "<b>",
        "B.",
        "B)",
        "B:",
        "B!",
        "**B**",
        "\u3010B\u3011",
        "B (12)",
        "12 (B)",
        "*B*",
        "`B`",
        "$B$",
        "'B'",
        "\\boxed{B}",
        "$\\boxed{\\text{(B)}}$",
        "\uff22",
        "\u24b7",
        "Option B",
        "option (b)",
        "Choice B: 12",
        "The answer is: **B**.",
        "**Answer:** B",
        "Final Answer: (B)",
        "So the correct answer is B",
        "B. 12",
        "B) 12",
        "(B) 12",
        "B - 12",
        "B — 12",
        "B.12",
        "B, because 12 is even",
        "B\n12",
        "12",
        "12.",
        '"12"',
        "B 12",
        "```\nB\n```",
        "B, not A",
        "B because A is wrong",
    ],
)
def test_the_right_option_is_recognised(answer: str) -> None:
    assert value(answer, "B", options=NUMBERS) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        "14",
        "B. 14",
        "B: the answer is 14",
        "A or B",
        "B or C",
        "A, B",
        "A/B",
        "A B C D",
        "B. A.",
        "A. 10 B. 12 C. 14 D. 16",
        "b. 12 or c. 14",
        "not B",
        "the answer is not B",
        "\u2260B",
        "~B",
        "Bat",
        "B12",
        "Because",
        "E",
        "F. 12",
        "AB",
        "maybe",
        "?",
        ".",
        "12 14",
        "-12",
        "1.2",
        "B, not B",
        "B because A or C is right",
    ],
)
def test_wrong_hedged_and_contradictory_options_earn_nothing(answer: str) -> None:
    assert value(answer, "B", options=NUMBERS) == 0.0


def test_article_is_no_label() -> None:
    options = ("a dog", "A cat", "an owl")
    assert [value(answer, "B", options=options) for answer in ("A cat", "a cat", "cat", "B. A cat")] == [1.0] * 4
    assert value("A cat", "A", options=options) == 0.0
    assert value("B. A cat runs here", "B", options=options) == 1.0


def test_label_beats_text_and_unknown_label_may_be_a_text() -> None:
    assert value("B", "B", options=("B", "A", "D", "C")) == 1.0
    assert value("F", "B", options=("E", "F", "G")) == 1.0


@pytest.mark.parametrize(
    "answer", ["A, C", "C and A", "AC", "A; C", "(A), (C)", "A C", "A\nC", "cat and red bird", "A. cat, C. red bird"]
)
def test_several_right_options_need_the_exact_set(answer: str) -> None:
    assert value(answer, "A, C", options=ANIMALS) == 1.0
    assert value(answer, "A, D", options=ANIMALS) == 0.0
    assert value(answer, "A", options=ANIMALS) == 0.0


@pytest.mark.parametrize("answer", ["A", "C", "A, B, C", "A or C", "CAB", "A, C, D", "all"])
def test_other_sets_earn_nothing(answer: str) -> None:
    assert value(answer, "A, C", options=ANIMALS) == 0.0


def test_stored_labels_and_text_references_are_understood() -> None:
    options = ("(A) cat", "(B) dog")
    assert [value(answer, "dog", options=options) for answer in ("B", "dog", "(B) dog")] == [1.0] * 3
    assert value("C) anything", "C") == 1.0


@pytest.mark.parametrize(
    ("gold", "options"), [("E", NUMBERS), ("", NUMBERS), ("mouse", ANIMALS), ("yes", ()), ("same", ("same", "same"))]
)
def test_reference_without_an_option_is_a_failure_not_a_zero(gold: str, options: tuple[str, ...]) -> None:
    with pytest.raises(GoldError):
        value("A", gold, options=options)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Yes!", "yes", 1.0),
        ("**Yes**, it is.", "Yes", 1.0),
        ("True", "yes", 1.0),
        ("true.", "True", 1.0),
        ("No", "False", 1.0),
        ("No, nothing is there", "no", 1.0),
        ("Yes", "False", 0.0),
        ("I know it: yes", "no", 0.0),
        ("I know it", "no", 0.0),
        ("unknown", "no", 0.0),
        ("eyes", "yes", 0.0),
        ("yes and no", "yes", 0.0),
        ("Yes/No", "no", 0.0),
        ("yes_no", "yes", 0.0),
        ("Yes, that is false", "yes", 0.0),
        ("not yes", "no", 0.0),
        ("", "no", 0.0),
        ("y", "yes", 0.0),
    ],
)
def test_yes_no_reads_whole_words(answer: str, gold: str, expected: float) -> None:
    assert value(answer, gold, task="match_yesno") == expected


def test_unreadable_truth_and_unreadable_answer_never_compare_equal() -> None:
    with pytest.raises(GoldError, match="perhaps"):
        value("perhaps", "perhaps", task="match_yesno")
    with pytest.raises(GoldError):
        value("!!!", "!!!", task="match_text")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("35", "3.5"), ("3", "-3"), ("15", "1.5"), ("12", "1/2"), ("345", "3:45"), ("", "x"), ("reddish", "red")],
)
def test_punctuation_inside_text_counts(answer: str, gold: str) -> None:
    assert value(answer, gold, task="match_text") == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("The Eiffel  Tower.", "eiffel tower"),
        ("\u201cSTOP\u201d", "stop"),
        ("3.5", "3.5"),
        ("d\u2019or", "d'or"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_spelling_variants_of_one_text_are_equal(answer: str, gold: str) -> None:
    assert value(answer, gold, task="match_text") == 1.0


def test_an_essay_is_too_long() -> None:
    request = RewardRequest(task="match_yesno", question="", response="", answer="yes")
    grade = MatchingReward(MatchingConfig()).grade(request, ["yes " * 100])[0]
    assert (grade.value, grade.reason) == (0.0, Reason.TOO_LONG)


def test_other_task_names_are_read_by_their_reference() -> None:
    assert value("yes, sure", "Yes", task="vqa") == 1.0
    assert value("dog", "B", task="vqa", options=ANIMALS) == 1.0
    assert value("Rome", "rome", task="vqa") == 1.0
