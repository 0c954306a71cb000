import dataclasses
import pickle
import re
from typing import Any

import pytest

from orchestration.data.sources.rows import RawBox, RawImage, RawRow, Refused, RejectReason
from orchestration.data.validate import validate
from orchestration.settings.recipe import LimitsConfig
from rewards.core.envelope import END_OF_TURN
from rollout.placeholders import SPELLINGS
from rollout.records import Turn
from tests.unit.data.pictures import encoded, picture

LIMITS = LimitsConfig()
ROW = RawRow(
    source_id="7", task="match_mcq", question="Which animal?", answer="B", options=("cat", "dog"), metadata={"k": "v"}
)
BOXES = RawRow(source_id="7", task="iou", question="the dog", boxes=(RawBox(values=(1.0, 2.0, 30.0, 40.0)),))


def refusal(row: RawRow, images: tuple[bytes, ...] = (), limits: LimitsConfig = LIMITS) -> Refused:
    row = dataclasses.replace(row, images=tuple(RawImage(data=data) for data in images))
    with pytest.raises(Refused) as caught:
        validate(row, images, limits)
    return caught.value


def changed(row: RawRow = ROW, **fields: Any) -> RawRow:
    return dataclasses.replace(row, **fields)


def test_a_sound_row_gives_its_images_in_order() -> None:
    images = [encoded(picture(40, 30)), encoded(picture(50, 30), "JPEG")]
    checked = validate(changed(images=tuple(RawImage(data=data) for data in images)), images, LIMITS)
    assert [image.data for image in checked] == images
    assert [image.size for image in checked] == [(40, 30), (50, 30)]


def test_a_row_without_images_is_sound() -> None:
    assert validate(ROW, [], LIMITS) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"question": ""}, RejectReason.QUESTION_EMPTY),
        ({"question": " \n\t\u00a0"}, RejectReason.QUESTION_EMPTY),
        ({"question": "x" * 7_995}, RejectReason.QUESTION_TOO_LONG),
        ({"options": ("x" * 7_990, "cat")}, RejectReason.QUESTION_TOO_LONG),
        ({"answer": ""}, RejectReason.ANSWER_EMPTY),
        ({"answer": " \n"}, RejectReason.ANSWER_EMPTY),
        ({"answer": "x" * 8_001}, RejectReason.ANSWER_TOO_LONG),
        ({"boxes": (RawBox(values=(1.0, 2.0, 3.0, 4.0), label="x" * 8_001),)}, RejectReason.ANSWER_TOO_LONG),
    ],
)
def test_empty_and_long_texts_are_refused(fields: dict[str, Any], reason: RejectReason) -> None:
    assert refusal(changed(**fields)).reason is reason


def turns(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn(role="assistant" if place % 2 else "user", text=text) for place, text in enumerate(texts))


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"history": turns("Who?", " ")}, RejectReason.QUESTION_EMPTY, "turn 2 of the history, of the assistant"),
        ({"history": turns("x" * 7_000, "y" * 990)}, RejectReason.QUESTION_TOO_LONG, "7990 of earlier turns"),
        ({"system": "x" * 7_990}, RejectReason.QUESTION_TOO_LONG, "7990 of earlier turns"),
        ({"history": turns("Who\x00?", "He.")}, RejectReason.TEXT_NOT_CLEAN, "turn 1 of the history"),
        ({"system": "\ud800"}, RejectReason.TEXT_NOT_CLEAN, "the system turn"),
        ({"history": turns("<image>Who?", "He.")}, RejectReason.PLACEHOLDER_IN_TEXT, "turn 1 of the history"),
        ({"history": turns("Who?", "<|im_end|>")}, RejectReason.PLACEHOLDER_IN_TEXT, "turn 2 of the history"),
        ({"system": "<bbox>"}, RejectReason.PLACEHOLDER_IN_TEXT, "the system turn"),
        ({"history": turns("\ufffcWho?", "He.")}, RejectReason.MARKERS_UNEQUAL, "1 places .* the row 0 images"),
        ({"question": "Is \ufffc he?"}, RejectReason.MARKERS_UNEQUAL, "1 places .* the row 0 images"),
        ({"options": ("cat", "\ufffc")}, RejectReason.TEXT_NOT_CLEAN, "option 2 holds U"),
        ({"system": "See \ufffc."}, RejectReason.MARKERS_UNEQUAL, "0 places .* the row 0 images"),
    ],
)
def test_earlier_turns_are_checked_as_the_question_is(fields: dict[str, Any], reason: RejectReason, words: str) -> None:
    found = refusal(changed(**fields))
    assert found.reason is reason
    assert re.search(words, found.detail), found.detail


def test_earlier_turns_with_their_images_in_place_are_sound() -> None:
    images = [encoded(picture(40, 30)), encoded(picture(50, 30))]
    row = changed(
        images=tuple(RawImage(data=data) for data in images), system="Be kind.", history=turns("\ufffcWho?", "He.")
    )
    assert len(validate(row, images, LIMITS)) == 2


def test_texts_of_exactly_the_limit_are_accepted() -> None:
    # 8000 - len("cat") - len("dog") = 7994
    assert validate(changed(question="x" * 7_994, answer="y" * 8_000), [], LIMITS) == []


def test_a_megabyte_of_question_is_refused_by_its_length_whatever_it_holds() -> None:
    row = changed(question="\x00<image>" * 125_000)
    error = refusal(row)
    assert error.reason is RejectReason.QUESTION_TOO_LONG
    assert len(error.detail) < 200


def test_no_answer_is_needed_where_there_are_boxes_or_nothing_to_find() -> None:
    assert validate(BOXES, [], LIMITS) == []
    assert validate(changed(BOXES, boxes=()), [], LIMITS) == []


@pytest.mark.parametrize("char", ["\x00", "\x08", "\x0b", "\x1b", "\x7f", "\x85", "\ud800", "\uffff"])
def test_control_characters_and_lone_surrogates_are_refused_wherever_they_stand(char: str) -> None:
    dirty = f"ab{char}c"
    rows = [
        changed(question=dirty),
        changed(answer=dirty),
        changed(options=("cat", dirty)),
        changed(source_id=dirty),
        changed(part=dirty),
        changed(answer_type=dirty),
        changed(metadata={dirty: "v"}),
        changed(metadata={"k": dirty}),
        changed(BOXES, boxes=(RawBox(values=(1.0, 2.0, 3.0, 4.0), label=dirty),)),
    ]
    for row in rows:
        error = refusal(row)
        assert error.reason is RejectReason.TEXT_NOT_CLEAN
        assert f"U+{ord(char):04X} at character 2" in error.detail
        error.detail.encode()


def test_a_dirty_image_id_is_refused() -> None:
    row = changed(images=(RawImage(data=encoded(picture()), image_id="coco/\ud800"),))
    with pytest.raises(Refused) as caught:
        validate(row, [encoded(picture())], LIMITS)
    assert caught.value.reason is RejectReason.TEXT_NOT_CLEAN


def test_line_breaks_tabs_and_other_scripts_are_clean() -> None:
    text = "a\r\nb\tc \u00e9 \u4e2d\u6587 \U0001f600 \u0627\u0644 x < y > z <|> [a] </p>"
    assert validate(changed(question=text, answer=text, options=(text, "dog")), [], LIMITS) == []


@pytest.mark.parametrize(
    "token",
    [
        *SPELLINGS,
        *END_OF_TURN,
        "<|im_start|>",
        "<|fim_prefix|>",
        "<|reserved_special_token_12|>",
        "<IMAGE>",
        "<img_context>",
        "<|IM_END|>",
        "<start_of_image>",
        "[IMG]",
        "<s>",
    ],
)
def test_placeholders_and_control_tokens_are_refused_wherever_a_model_may_read_them(token: str) -> None:
    rows = [
        changed(question=f"What is{token} this?"),
        changed(answer=f"B{token}"),
        changed(options=("cat", f"dog {token}")),
        changed(BOXES, boxes=(RawBox(values=(1.0, 2.0, 3.0, 4.0), label=token),)),
    ]
    for row in rows:
        error = refusal(row)
        assert error.reason is RejectReason.PLACEHOLDER_IN_TEXT
        assert token in error.detail
    assert validate(changed(metadata={"original": token}), [], LIMITS) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_boxes_must_be_finite(value: float) -> None:
    row = changed(BOXES, boxes=(RawBox(values=(1.0, 2.0, 3.0, 4.0)), RawBox(values=(1.0, value, 3.0, 4.0))))
    error = refusal(row)
    assert error.reason is RejectReason.NOT_FINITE
    assert "box 2" in error.detail


@pytest.mark.parametrize("answer", ["nan", " NaN ", "inf", "-Infinity", "+inf", "nan."])
def test_numbers_must_be_finite(answer: str) -> None:
    assert refusal(changed(task="chart", answer=answer)).reason is RejectReason.NOT_FINITE
    assert refusal(changed(task="chart", answer_type="number", answer=answer)).reason is RejectReason.NOT_FINITE
    assert refusal(changed(task="math", answer=answer)).reason is RejectReason.NOT_FINITE
    assert validate(changed(task="match_text", answer=answer), [], LIMITS) == []
    assert validate(changed(task="chart", answer_type="text", answer=answer), [], LIMITS) == []


def test_integers_beyond_floats_are_left_to_the_check_of_boxes() -> None:
    assert validate(changed(BOXES, boxes=(RawBox(values=(1, 2, 3, 10**400)),)), [], LIMITS) == []


def test_too_many_images_are_refused_before_any_is_opened() -> None:
    error = refusal(ROW, (b"not an image",) * 9)
    assert error.reason is RejectReason.TOO_MANY_IMAGES
    assert "9" in error.detail


def test_a_bad_image_is_named_by_its_place() -> None:
    error = refusal(ROW, (encoded(picture()), b"not an image"))
    assert error.reason is RejectReason.IMAGE_CORRUPT
    assert error.detail.startswith("image 2 of 2: 12 bytes")


@pytest.mark.parametrize("row", [BOXES, changed(BOXES, boxes=()), changed(BOXES, boxes=None, answer="[1, 2, 30, 40]")])
def test_a_turned_image_under_boxes_is_refused_in_every_spelling_of_boxes(row: RawRow) -> None:
    exif = picture().getexif()
    exif[0x0112] = 6
    data, limits = encoded(picture(), "JPEG", exif=exif), LimitsConfig(exif="rotate")
    assert refusal(row, (data,), limits).reason is RejectReason.IMAGE_ROTATED
    turned = validate(changed(images=(RawImage(data=data),)), [data], limits)
    assert turned[0].size == (48, 64)


def test_a_refusal_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(Refused(RejectReason.NOT_FINITE, "box 1 holds nan")))
    assert (error.reason, error.detail) == (RejectReason.NOT_FINITE, "box 1 holds nan")
    assert str(error) == "not_finite: box 1 holds nan"
