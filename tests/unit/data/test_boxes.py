import dataclasses
import json
from typing import Any

import pytest

from orchestration.data.normalise import normalise
from orchestration.data.rows import RawBox, Refused, RejectReason
from orchestration.settings.recipe import LimitsConfig
from tests.unit.data.rows import IMAGE, IOU, LIMITS, PLAIN, boxes, candidate, refusal


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
