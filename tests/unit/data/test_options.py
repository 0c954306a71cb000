import dataclasses
from collections import Counter

import pytest

from orchestration.data.options import LETTERS, can_shuffle
from orchestration.data.sources.rows import RejectReason
from orchestration.settings.recipe import NormaliseConfig
from tests.unit.data.rows import MCQ, SHUFFLED, candidate, refusal


@pytest.mark.parametrize(
    ("answer", "answer_type", "expected"),
    [
        ("B", "", "B"),
        ("b", "", "B"),
        ("(B)", "", "B"),
        ("B. dog", "", "B"),
        ("dog", "", "B"),
        ("The Dog.", "", "B"),
        ("A, C", "", "A, C"),
        ("C and A", "", "A, C"),
        ("AC", "", "A, C"),
        ("(A), (C)", "", "A, C"),
        ("A, B, and D", "", "A, B, D"),
        ("1", "index", "B"),
        ("0", "index", "A"),
        ("3", "index", "D"),
        ("dog", "text", "dog"),
        (" Dog. ", "text", "dog"),
    ],
)
def test_the_reference_is_a_letter_unless_its_source_wants_text(answer: str, answer_type: str, expected: str) -> None:
    assert candidate(MCQ, answer=answer, answer_type=answer_type).answer == expected


@pytest.mark.parametrize(
    ("answer", "answer_type"),
    [
        ("E", ""),
        ("horse", ""),
        ("A. dog", ""),
        ("cat, dog", ""),
        ("4", "index"),
        ("-1", "index"),
        ("B", "index"),
        ("9" * 5000, "index"),
        ("horse", "text"),
        ("B", "text"),
    ],
)
def test_a_reference_that_is_none_of_the_options_is_refused(answer: str, answer_type: str) -> None:
    assert refusal(MCQ, answer=answer, answer_type=answer_type).reason is RejectReason.ANSWER_NOT_IN_OPTIONS


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("cat",),
        ("cat", " cat"),
        ("cat", "dog", " \n"),
        ("3", "\uff13"),
        tuple(f"option {number}" for number in range(27)),
    ],
)
def test_options_that_cannot_be_told_apart_or_lettered_are_refused(options: tuple[str, ...]) -> None:
    assert refusal(MCQ, options=options, answer="A").reason is RejectReason.OPTIONS_UNUSABLE


def test_twenty_six_options_are_the_most() -> None:
    made = candidate(MCQ, options=tuple(f"number {number}" for number in range(26)), answer="number 25")
    assert made.answer == "Z"


def test_options_of_signs_alone_are_told_apart() -> None:
    assert candidate(MCQ, options=("?", "!", "..."), answer="!", answer_type="text").options == ("?", "!", "...")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("A. cat", "B. dog"), ("cat", "dog")),
        (("(a) cat", "(b)dog"), ("cat", "dog")),
        (("a) cat", "b: dog"), ("cat", "dog")),
        (("A. cat", "dog"), ("A. cat", "dog")),
        (("B. cat", "A. dog"), ("B. cat", "A. dog")),
        (("A.M.", "B.C."), ("A.M.", "B.C.")),
        (("  big\n cat ", "dog"), ("big cat", "dog")),
    ],
)
def test_labels_inside_of_options_go_if_all_carry_theirs(options: tuple[str, ...], expected: tuple[str, ...]) -> None:
    made = candidate(MCQ, options=options, answer="A")
    assert made.options == expected
    assert made.answer == "A"


def test_a_reference_with_its_label_is_found_among_options_that_lost_theirs() -> None:
    options = ("A. cat", "B. dog")
    assert candidate(MCQ, options=options, answer="B. dog").answer == "B"
    assert candidate(MCQ, options=options, answer="B. dog", answer_type="text").answer == "dog"


def test_a_text_that_the_reward_would_take_for_a_letter_becomes_its_letter() -> None:
    # Options are labels of a diagram: the text "A" is option B, but a lone A would be graded as the first option.
    assert candidate(MCQ, options=("C", "A", "B"), answer="A", answer_type="text").answer == "B"


def test_options_of_other_tasks_are_cleaned_and_the_reference_left_alone() -> None:
    made = candidate(MCQ, SHUFFLED, task="match_text", options=(" A. cat", "B. dog"), answer="dog ")
    assert (made.options, made.answer) == (("cat", "dog"), "dog")


def test_shuffling_moves_the_letter_along_with_its_text() -> None:
    seen: Counter[str] = Counter()
    for number in range(400):
        made = candidate(MCQ, SHUFFLED, source_id=str(number))
        assert sorted(made.options) == sorted(MCQ.options)
        assert made.options[LETTERS.index(made.answer)] == "dog"
        assert f"{made.answer}. dog" in made.question
        seen[made.answer] += 1
    assert set(seen) == set("ABCD")
    assert min(seen.values()) > 70  # 100 expected of each; 70 is 3.5 standard deviations below


def test_shuffling_keeps_several_letters_and_texts_right() -> None:
    for number in range(30):
        several = candidate(MCQ, SHUFFLED, source_id=str(number), answer="A, C")
        letters = several.answer.split(", ")
        assert letters == sorted(letters)
        assert {several.options[LETTERS.index(letter)] for letter in letters} == {"cat", "cow"}
        assert candidate(MCQ, SHUFFLED, source_id=str(number), answer="dog", answer_type="text").answer == "dog"


def test_an_order_depends_on_seed_and_row_alone() -> None:
    first = [candidate(MCQ, SHUFFLED, source_id=str(number)).options for number in range(20)]
    assert first == [candidate(MCQ, SHUFFLED, source_id=str(number)).options for number in range(20)]
    assert first != [candidate(MCQ, SHUFFLED, source_id=str(number), seed=2).options for number in range(20)]
    assert len(set(first)) > 5


def test_options_that_the_question_names_itself_keep_their_order() -> None:
    config = NormaliseConfig(shuffle_options=True)
    asked = dataclasses.replace(MCQ, question="A cat, dog, cow or rat?", answer="dog", answer_type="text")
    rows = [candidate(asked, config, source_id=str(number)) for number in range(20)]
    assert {row.options for row in rows} == {MCQ.options}


@pytest.mark.parametrize(
    "option",
    [
        "All of the above",
        "none of the above.",
        "None of these",
        "Both of them",
        "Neither of these options",
        "both A and B",
        "A and B",
        "A, B and C",
        "(a) or (b)",
        "A and C only",
        "only B",
        "the previous answer",
        "Option A",
        "C",
        "d.",
    ],
)
def test_options_that_speak_of_others_keep_the_order(option: str) -> None:
    assert not can_shuffle(("cat", "dog", option))
    rows = {candidate(MCQ, SHUFFLED, source_id=str(n), options=("cat", "dog", option)).options for n in range(20)}
    assert len(rows) == 1


@pytest.mark.parametrize("option", ["above the table", "a cat and a dog", "all of it", "5", "none", "a choice of tea"])
def test_ordinary_options_may_be_shuffled(option: str) -> None:
    assert can_shuffle(("cat", "dog", option))


@pytest.mark.parametrize(
    "options",
    [("Aa", "AA"), ("Dear ms. Allen,", "Dear Ms. Allen,"), ("***Harold***", '"Harold"'), ("a, b", "a, b,")],
)
def test_options_may_differ_by_case_or_marks_alone(options: tuple[str, str]) -> None:
    assert [candidate(MCQ, options=options, answer=letter).answer for letter in "AB"] == ["A", "B"]
    assert candidate(MCQ, options=options, answer=options[1], answer_type="text").answer in ("B", options[1])
