"""Canonical rows: questions, answers and boxes."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from orchestration.data.normalise import normalise
from orchestration.data.sources.rows import RawBox, Refused, RejectReason
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig
from tests.unit.data.rows import IMAGE, IOU, LIMITS, MCQ, PLAIN, SHUFFLED, boxes, candidate, refusal


def test_a_candidate_carries_what_the_row_and_its_source_say() -> None:
    made = candidate(MCQ, metadata={"template": "t1"}, answer_type="letter")
    assert (made.source, made.source_id, made.role, made.license) == ("src/part", "7", "train", "CC0")
    assert (made.task, made.stem, made.answer, made.options) == ("match_mcq", "Which?", "B", MCQ.options)
    assert made.images == (IMAGE,)
    assert made.metadata == {"template": "t1"}
    assert made.answer_type == ""


def test_the_sample_id_is_a_digest_of_source_id_and_question() -> None:
    expected = hashlib.blake2b(b"src/part|7|Which?", digest_size=20).hexdigest()
    assert candidate(MCQ).sample_id == expected
    assert len(expected) == 40
    assert candidate(MCQ, SHUFFLED, seed=9, answer="A").sample_id == expected
    assert candidate(MCQ, source_id="8").sample_id != expected


def test_drawn_rows_keep_the_id_that_they_have() -> None:
    made = candidate(MCQ, metadata={"sample_id": "abc", "k": "v"})
    assert made.sample_id == "abc"
    assert made.metadata == {"k": "v"}


def test_a_task_without_a_template_keeps_its_question() -> None:
    assert candidate(MCQ, question="  Which\r\none? \n", task="math", options=()).question == "Which\none?"


LISTED = "A. cat\nB. dog\nC. cow\nD. rat"
NAMED = "Is it a cat, dog, cow or rat?"
WITH_OPTIONS = {"match_mcq": "{question}\n{options}\nGive the letter."}


@pytest.mark.parametrize(
    ("question", "fields", "bare", "in_template"),
    [
        ("Which?", {}, f"Which?\n{LISTED}", f"Which?\n{LISTED}\nGive the letter."),
        (f"Which?\n{LISTED}", {}, f"Which?\n{LISTED}", f"Which?\n{LISTED}\nGive the letter."),
        ("Which? (A) cat (B) dog (C) cow (D) rat", {}, f"Which?\n{LISTED}", f"Which?\n{LISTED}\nGive the letter."),
        (NAMED, {}, f"{NAMED}\n{LISTED}", f"{NAMED}\n{LISTED}\nGive the letter."),
        (NAMED, {"answer": "dog", "answer_type": "text"}, NAMED, f"{NAMED}\n{LISTED}\nGive the letter."),
        ("Not a catalogue", {"answer": "dog", "answer_type": "text"}, f"Not a catalogue\n{LISTED}",
         f"Not a catalogue\n{LISTED}\nGive the letter."),
    ],
)  # fmt: skip
def test_options_are_asked_exactly_once(question: str, fields: dict[str, str], bare: str, in_template: str) -> None:
    assert candidate(MCQ, question=question, **fields).question == bare
    assert candidate(MCQ, NormaliseConfig(prompts=WITH_OPTIONS), question=question, **fields).question == in_template


def test_a_question_that_lists_its_options_in_another_order_is_refused() -> None:
    error = refusal(MCQ, question="Which?\nA. dog\nB. cat\nC. cow\nD. rat")
    assert error.reason is RejectReason.OPTIONS_UNUSABLE
    assert "the question lists A 'dog'; B 'cat'" in error.detail


def test_a_template_places_question_and_options() -> None:
    config = NormaliseConfig(prompts={"match_mcq": "Look. {question}\n{options}\nGive the letter."})
    expected = "Look. Which?\nA. cat\nB. dog\nC. cow\nD. rat\nGive the letter."
    assert candidate(MCQ, config).question == expected
    assert candidate(MCQ, config).stem == "Which?"
    assert candidate(MCQ, config, task="match_text").question == "Which?"


def test_braces_in_a_question_or_an_option_are_text() -> None:
    config = NormaliseConfig(prompts={"match_mcq": "{question}|{options}|{other}"})
    made = candidate(MCQ, config, question="{options} {0} {question.x} %s", options=("{question}", "{"), answer="A")
    assert made.question == "{options} {0} {question.x} %s|A. {question}\nB. {|{other}"


def test_a_template_that_drops_the_question_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prompts\.chart .* must hold \{question\}"):
        NormaliseConfig(prompts={"chart": "How much?"})


@pytest.mark.parametrize("answer", ["yes", "Yes.", " TRUE ", "1", "1.", "1.0", "y", "Yes, it is"])
def test_many_words_are_yes(answer: str) -> None:
    assert candidate(MCQ, task="match_yesno", options=(), answer=answer).answer == "yes"


@pytest.mark.parametrize("answer", ["no", "No.", "False", "0", "0.0", "N", "No, it is not"])
def test_many_words_are_no(answer: str) -> None:
    assert candidate(MCQ, task="match_yesno", options=(), answer=answer).answer == "no"


@pytest.mark.parametrize("answer", ["maybe", "2", "yes and no", "10"])
def test_what_is_neither_yes_nor_no_is_refused(answer: str) -> None:
    error = refusal(MCQ, task="match_yesno", options=(), answer=answer)
    assert error.reason is RejectReason.REFERENCE_UNUSABLE


def test_numbers_and_texts_are_trimmed_and_kept() -> None:
    made = candidate(MCQ, task="chart", options=(), answer=" 1,200.50 \n", answer_type="number")
    assert (made.answer, made.answer_type) == ("1,200.50", "number")


@pytest.mark.parametrize("answer_type", ["float", "Number", "letter"])
def test_an_unknown_answer_type_of_a_chart_is_refused(answer_type: str) -> None:
    error = refusal(MCQ, task="chart", options=(), answer_type=answer_type)
    assert error.reason is RejectReason.REFERENCE_UNUSABLE
    assert answer_type in error.detail


@pytest.mark.parametrize(
    ("values", "form", "frame", "expected"),
    [
        ((10.0, 20.0, 30.0, 40.0), "xyxy", "pixel", "[10, 20, 30, 40]"),
        ((10.0, 20.0, 30.0, 40.0), "xywh", "pixel", "[10, 20, 40, 60]"),
        ((0.1, 0.2, 0.3, 0.4), "xyxy", "norm1", "[20, 20, 60, 40]"),
        ((0.1, 0.2, 0.3, 0.4), "xywh", "norm1", "[20, 20, 80, 60]"),
        ((100.0, 200.0, 300.0, 400.0), "xyxy", "norm1000", "[20, 20, 60, 40]"),
        ((10.126, 20.0, 30.5, 40.999), "xyxy", "pixel", "[10.13, 20, 30.5, 41]"),
        ((-0.001, -2.0, 202.0, 101.5), "xyxy", "pixel", "[0, 0, 200, 100]"),
        ((-0.0, 0.0, 200.0, 100.0), "xyxy", "pixel", "[0, 0, 200, 100]"),
        ((1, 2, 3, 4), "xyxy", "pixel", "[1, 2, 3, 4]"),
    ],
)
def test_a_box_becomes_corners_in_original_pixels(
    values: tuple[float, ...], form: Any, frame: Any, expected: str
) -> None:
    made = candidate(IOU, boxes=boxes(values), box_form=form, box_frame=frame)
    assert made.answer == expected


def test_several_boxes_are_a_list_and_none_is_an_empty_one() -> None:
    assert candidate(IOU, boxes=boxes((1, 2, 3, 4), (5, 6, 7, 8))).answer == "[[1, 2, 3, 4], [5, 6, 7, 8]]"
    assert candidate(IOU, boxes=()).answer == "[]"


def test_labels_are_written_where_there_are_several_categories() -> None:
    def answer(*labels: str) -> Any:
        named = tuple(RawBox(values=(place, 2, 30, 40), label=label) for place, label in enumerate(labels))
        return json.loads(candidate(IOU, boxes=named).answer)

    assert answer("dog") == [0, 2, 30, 40]
    assert answer("dog", "dog") == [[0, 2, 30, 40], [1, 2, 30, 40]]
    assert answer("dog", 'h\u00e9 "x"') == [
        {"bbox_2d": [0, 2, 30, 40], "label": "dog"},
        {"bbox_2d": [1, 2, 30, 40], "label": 'h\u00e9 "x"'},
    ]
    assert answer("dog", "") == [{"bbox_2d": [0, 2, 30, 40], "label": "dog"}, {"bbox_2d": [1, 2, 30, 40]}]


@pytest.mark.parametrize(
    ("answer", "frame", "expected"),
    [
        ("[0, 28, 56, 84]", "pixel", "[0, 28, 56, 84]"),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]', "pixel", "[1, 2, 3, 4]"),
        ("[[0.1, 0.2, 0.3, 0.4]]", "norm1", "[20, 20, 60, 40]"),
        ("[]", "pixel", "[]"),
    ],
)
def test_boxes_in_the_answer_are_read_too(answer: str, frame: Any, expected: str) -> None:
    assert candidate(IOU, answer=answer, box_frame=frame).answer == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((10.0, 20.0, 30.0), RejectReason.BOX_MALFORMED),
        ((30.0, 20.0, 10.0, 40.0), RejectReason.BOX_MALFORMED),
        ((10.0, 40.0, 30.0, 20.0), RejectReason.BOX_MALFORMED),
        ((10.0, 20.0, 10.0, 40.0), RejectReason.BOX_MALFORMED),
        ((10.001, 20.0, 10.004, 40.0), RejectReason.BOX_MALFORMED),
        ((True, 20.0, 30.0, 40.0), RejectReason.BOX_MALFORMED),
        (("1", 20.0, 30.0, 40.0), RejectReason.BOX_MALFORMED),
        ((-2.01, 20.0, 30.0, 40.0), RejectReason.BOX_OUTSIDE_IMAGE),
        ((10.0, -2.01, 30.0, 40.0), RejectReason.BOX_OUTSIDE_IMAGE),
        ((10.0, 20.0, 202.01, 40.0), RejectReason.BOX_OUTSIDE_IMAGE),
        ((10.0, 20.0, 30.0, 102.01), RejectReason.BOX_OUTSIDE_IMAGE),
        ((200.5, 20.0, 201.5, 40.0), RejectReason.BOX_OUTSIDE_IMAGE),
        ((1, 2, 3, 10**400), RejectReason.BOX_OUTSIDE_IMAGE),
    ],
)
def test_boxes_that_cannot_be_meant_are_refused(values: Any, reason: RejectReason) -> None:
    assert refusal(IOU, boxes=boxes((1, 2, 3, 4), values)).reason is reason


@pytest.mark.parametrize("answer", ["somewhere", "[1, 2, 3]", "[[1, 2, 3, 4], [1, NaN, 3, 4]]"])
def test_text_without_sound_boxes_is_refused(answer: str) -> None:
    assert refusal(IOU, answer=answer).reason is RejectReason.BOX_MALFORMED


def test_no_more_boxes_than_the_limit_and_none_larger_than_its_share() -> None:
    limits = LimitsConfig(max_boxes=2, max_box_frac=0.5)
    # 200 x 50 is exactly half of 200 x 100
    fitting = boxes((0, 0, 200, 50), (1, 2, 3, 4))
    assert candidate(IOU, limits=limits, boxes=fitting).answer == "[[0, 0, 200, 50], [1, 2, 3, 4]]"
    assert refusal(IOU, limits, boxes=boxes((0, 0, 200, 50.1))).reason is RejectReason.BOX_TOO_LARGE
    assert refusal(IOU, limits, boxes=boxes(*[(1, 2, 3, 4)] * 3)).reason is RejectReason.TOO_MANY_BOXES


def test_boxes_without_an_image_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        normalise(
            dataclasses.replace(IOU, boxes=()),
            [],
            source="s",
            role="train",
            license="",
            config=PLAIN,
            limits=LIMITS,
            seed=1,
        )
    assert caught.value.reason is RejectReason.IMAGE_MISSING


def test_boxes_belong_to_the_first_image() -> None:
    row = dataclasses.replace(IOU, boxes=boxes((0.5, 0.5, 1.0, 1.0)), box_frame="norm1")
    images = [dataclasses.replace(IMAGE, width=400), IMAGE]
    made = normalise(row, images, source="s", role="train", license="", config=PLAIN, limits=LIMITS, seed=1)
    assert made.answer == "[200, 50, 400, 100]"


def test_shares_of_an_image_are_not_taken_for_pixels() -> None:
    refused = refusal(IOU, boxes=boxes((0.1, 0.1, 0.5, 0.5)))
    assert refused.reason is RejectReason.BOX_MALFORMED
    assert "box_frame: {constant: norm1}" in refused.detail
    assert candidate(IOU, boxes=boxes((0.1, 0.1, 0.5, 0.5)), box_frame="norm1").answer == "[20, 10, 100, 50]"
