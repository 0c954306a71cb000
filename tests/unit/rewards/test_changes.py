"""Changed values of references: what is tried for each function, and that good references survive it."""

import json
from dataclasses import replace

import pytest

from rewards.changes import LESS_THAN_ALL, NOTHING, UNRELATED, changes_of, moved_number
from rewards.core.base import GoldError, RewardRequest
from rewards.core.config import (
    ChartConfig,
    CountingConfig,
    GroundingConfig,
    MatchingConfig,
    OpenEndedConfig,
    PointingConfig,
    RewardConfig,
)
from rewards.functions.grounding import iou
from rewards.proof import ReferenceProof

SIZES = ((640, 480),)


def request(task: str, answer: str, options: tuple[str, ...] = (), answer_type: str = "") -> RewardRequest:
    return RewardRequest(
        task=task,
        question="?",
        response="",
        answer=answer,
        options=options,
        answer_type=answer_type,
        image_sizes=SIZES,
        image_input_sizes=SIZES,
    )


def changed(row: RewardRequest, config: RewardConfig | None = None) -> list[tuple[str, float]]:
    (part,) = (config or RewardConfig()).route(row.task).parts
    return [(change.answer, change.most) for change in changes_of(row, part)]


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        (request("match_mcq", "B", ("cat", "dog", "cow")), ["A", "C"]),
        (request("match_mcq", "dog", ("cat", "dog", "cow")), ["A", "C"]),
        (request("match_mcq", "A, C", ("cat", "dog", "cow")), ["C", "B, C"]),
        (request("match_mcq", "A, B", ("cat", "dog")), ["B"]),
        (request("match_yesno", "no"), ["yes"]),
        (request("match_yesno", "True"), ["no"]),
        (request("match_text", "Route 66"), ["Route 199"]),
        (request("match_text", "Brazil"), ["zebra"]),
        (request("match_text", "the zebra"), ["umbrella"]),
        (request("match_text", '["cat", "zebra"]'), ["umbrella"]),
        (request("match_text", "two dogs"), ["7 dogs"]),
        (request("chart", "45%"), ["136%"]),
        (request("chart", "-0.5"), ["-4"]),
        (request("chart", "$1,200"), ["$3601"]),
        (request("chart", "2015"), ["2016"]),
        (request("chart", "2015", answer_type="number"), ["6046"]),
        (request("chart", "in 950", answer_type="year"), ["in 951"]),
        (request("chart", "2015: 45", answer_type="number"), ["6046"]),
        (request("chart", "twenty"), ["61"]),
        (request("chart", "Yes"), ["no"]),
        (request("chart", "[2015, 2016]"), ['["2017", "2016"]']),
        (request("chart", "[Brazil, India]"), ['["zebra", "India"]']),
        (request("chart", "3, 10", answer_type="list"), ['["31", "10"]']),
        (request("counting", "3"), ["10"]),
        (request("counting", "[3, 10]"), ["31"]),
        (request("counting", '["3", "ten"]'), ["31"]),
        (request("counting", "none"), ["zebra"]),
        (request("math", r"\frac{\sqrt{3}}{2}"), [r"\frac{\sqrt{10}}{2}"]),
        (request("math", "1:3:2"), ["10:3:2"]),
        (request("math", "x"), ["x+1"]),
        (request("math", "2^{0}"), ["2^{0}+1"]),
        (request("math", r"-\infty"), ["7"]),
        (request("iou", "[]"), ["[[0.0, 0.0, 10.0, 10.0]]"]),
        (request("pointing", "[]"), ["[[5.0, 5.0]]"]),
        (request("ocr", '["50% OFF", "SALE"]'), ["151% OFF"]),
        (request("open", "A purple umbrella."), [
            "umbrellas dangle marble staircases frozen volcanoes swallow copper violins"]),
    ],
    ids=lambda value: f"{value.task} {value.answer[:20]}" if isinstance(value, RewardRequest) else "",
)  # fmt: skip
def test_changed_value(row: RewardRequest, answers: list[str]) -> None:
    assert [answer for answer, _ in changed(row)] == answers


def test_every_other_letter_is_tried() -> None:
    options = tuple(f"option {number}" for number in range(26))
    assert [answer for answer, _ in changed(request("match_mcq", "E", options))] == list("ABCDFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize(
    "answer",
    [
        "[10, 10, 20, 20]", "[0, 0, 320, 480]", "[[0, 0, 300, 200], [340, 280, 640, 480]]",
        '[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}, {"bbox_2d": [5, 6, 7, 8], "label": "cat"}]',
        "[[0, 0, 320, 240], [320, 240, 640, 480]]",
    ],
)  # fmt: skip
def test_boxes_and_points_are_moved_off_all_boxes(answer: str) -> None:
    read = json.loads(answer)
    gold = [entry["bbox_2d"] if isinstance(entry, dict) else entry for entry in (read if len(read) != 4 else [read])]
    ((boxes, most),) = changed(request("iou", answer))
    moved = [entry["bbox_2d"] if isinstance(entry, dict) else entry for entry in json.loads(boxes)]
    assert most == NOTHING
    assert len(moved) == len(gold)
    for (x1, y1, x2, y2), (left, top, right, bottom) in zip(moved, gold, strict=True):
        assert (x2 - x1, y2 - y1) == (right - left, bottom - top)
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 480
        assert all(iou((x1, y1, x2, y2), tuple(box)) == 0.0 for box in gold)
    ((points, most),) = changed(request("pointing", answer))
    assert most == NOTHING
    assert not any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in json.loads(points) for box in gold)


def test_box_without_room_elsewhere_loses_most_of_its_area() -> None:
    assert changed(request("iou", "[0, 0, 640, 480]")) == [("[[0.0, 0.0, 160.0, 120.0]]", LESS_THAN_ALL)]
    assert changed(request("pointing", "[0, 0, 640, 480]")) == [("[[650.0, 490.0]]", NOTHING)]


@pytest.mark.parametrize(
    ("config", "row", "most"),
    [
        (RewardConfig(), request("chart", "Brazil"), NOTHING),
        (RewardConfig(chart=ChartConfig(anls=True)), request("chart", "Brazil"), LESS_THAN_ALL),
        (RewardConfig(chart=ChartConfig(graded=True)), request("chart", "45"), NOTHING),
        (RewardConfig(counting=CountingConfig(graded=True)), request("counting", "45"), NOTHING),
        (RewardConfig(matching=MatchingConfig(vqa_accuracy=True)), request("match_text", "Brazil"), NOTHING),
        (RewardConfig(pointing=PointingConfig(distance=True)), request("pointing", "[0, 0, 9, 9]"), LESS_THAN_ALL),
        (RewardConfig(), request("ocr", "STOP"), LESS_THAN_ALL),
        (RewardConfig(), request("open", "A dog."), UNRELATED),
    ],
)  # fmt: skip
def test_soft_rewards_may_pay_a_part(config: RewardConfig, row: RewardRequest, most: float) -> None:
    assert [value for _, value in changed(row, config)] == [most]


def test_reference_without_boxes_has_no_changed_value() -> None:
    with pytest.raises(GoldError):
        changed(request("iou", "somewhere"))


def test_moved_number_is_larger_than_three_times_all_others() -> None:
    assert moved_number("2 of 30", [2.0, 30.0]) == "91 of 30"
    assert moved_number(".5", [0.5]) == "4"
    assert moved_number("1 200 km", [1200.0]) == "3601 km"
    assert moved_number("9" * 400, []) == "1"  # overflows, and is replaced all the same


CONFIGS = [
    RewardConfig(),
    RewardConfig(grounding=GroundingConfig(shaping="f1")),
    RewardConfig(grounding=GroundingConfig(shaping="threshold", label_aware=True)),
    RewardConfig(pointing=PointingConfig(distance=True)),
    RewardConfig(chart=ChartConfig(anls=True, graded=True)),
    RewardConfig(chart=ChartConfig(tolerance=0.99)),
    RewardConfig(counting=CountingConfig(graded=True)),
    RewardConfig(matching=MatchingConfig(vqa_accuracy=True)),
    RewardConfig(open_ended=OpenEndedConfig(guards=False)),
]
GOOD = [
    *(request("match_mcq", "A", options) for options in (("B", "A"), ("28\u00b0", "28"), ("Both A and B", "A", "B"))),
    *(request("match_text", text) for text in (
        "1. Brazil", "- 5", "(1) red", "No. 5", "\u2163", "\u4e09", "\u00bd", "007", "#1", '["1", "4"]', "-3", "1st",
    )),
    *(request("chart", text) for text in (
        "0", "0.5%", "1e6", "1.2 million", "1999-2000", "Q1 2015", "12/31/2015", "3:45", "\u00bd", "3/4", "1 1/2",
        "two thirds", "zero", "5 dozen", "1 score", "\u226565", "1 200", "1.200,5", "5 April 2015", "15\u00b0C", "1/3",
        "9" * 24, "0.000000001", "12:30 PM", "[1.2 million, 3%]", "[10, 10.4, 10.8, 11.2, 31]", "[yes, no]", "[1, 1]",
    )),
    *(request("counting", text) for text in ("0", "three", "no dogs", "\u4e09", "[4, 13]")),
    *(request("math", text) for text in (
        "0", "2^{0}", "x^0", r"\infty", r"(-\infty, 3)", "1:3:2", "8:40", "12:00", "10!", r"\binom{5}{2}", r"\log_2 8",
        r"0.\overline{3}", r"\{1,2\}", r"\emptyset", "x>3", "x=1 \\text{ or } x=2", r"x=\pm 2", r"\vec{a}", "ABC",
        "51\u00b019'", "9\u7c73", "16\u03c0\u5e73\u65b9\u7c73", "6\u221a{3}\u6d77\u91cc", r"\frac{3}{2}\u221a{3}",
        "no solution", "2x=4", r"\frac{0}{5}", r"2n\pi", "x-y=0", "27cm^{2}", "96\n376", "Equal",
    )),
    request("iou", "[[0, 0, 320, 240], [320, 0, 640, 240], [0, 240, 320, 480], [320, 240, 640, 480]]"),
    request("iou", "[[0, 0, 640, 480], [0, 0, 160, 120]]"),
    request("pointing", "[100, 0, 110, 480]"),
    request("ocr", "1"),
    request("open", "a the of"),
    request("open", "Frozen volcanoes swallow copper violins; purple umbrellas dangle from marble staircases."),
    request("open", "\u4e00\u53ea\u72d7"),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_good_references_are_not_refused_for_their_changed_value(config: RewardConfig) -> None:
    with ReferenceProof(config) as proof:
        faults = [proof.fault(row) for row in (GOOD if config == CONFIGS[0] else [r for r in GOOD if r.task != "math"])]
    assert [fault for fault in faults if fault is not None and fault.kind == "unselective"] == []


@pytest.mark.parametrize("answer", ["[10, 10, 20, 20]", "[0, 0, 640, 480]", "[[0, 0, 9, 9], [20, 20, 30, 30]]"])
def test_reward_that_pays_any_box_is_refused(answer: str) -> None:
    with ReferenceProof(RewardConfig(grounding=GroundingConfig(shaping="f1", threshold=0.0))) as proof:
        fault = proof.fault(request("iou", answer))
    assert fault is not None
    assert fault.kind == "unselective"
    assert fault.detail.startswith(f"for {answer!r} the answer '[[0.0, ")
    assert fault.detail.endswith("scores 1")


def test_other_changed_values_are_tried_where_a_source_has_other_settings() -> None:
    config = RewardConfig(grounding=GroundingConfig(shaping="f1", threshold=0.0))
    row = replace(request("iou", "[0, 0, 9, 9]"), task="chart", answer="45")
    with ReferenceProof(config) as proof:
        assert proof.fault(row) is None


def test_statement_that_is_true_of_any_number_is_refused() -> None:
    with ReferenceProof(RewardConfig()) as proof:
        fault = proof.fault(request("math", "1=1"))
    assert fault is not None
    assert (fault.kind, fault.detail) == ("unselective", "for '1=1' the answer '4=1' scores 1")
