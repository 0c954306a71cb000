"""Grounding: IoU, matching, frames, and replies that broke other graders."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.core.base import GoldError, Reason, RewardRequest
from rewards.core.config import GroundingConfig
from rewards.functions.grounding import GroundingReward, iou
from rewards.text.boxes import BoxEntry, parse_boxes

SIZE = ((400, 300),)
coordinate = st.integers(0, 300)
box_strategy = st.tuples(coordinate, coordinate, st.integers(1, 300), st.integers(1, 300)).map(
    lambda corner: (float(corner[0]), float(corner[1]), float(corner[0] + corner[2]), float(corner[1] + corner[3]))
)


def grade(answer: str, gold: str, *, settings: dict[str, object] | None = None, **fields: object):
    request = RewardRequest(
        **({"task": "iou", "question": "", "response": "", "answer": gold, "image_sizes": SIZE} | fields)  # type: ignore[arg-type]
    )
    config = dataclasses.replace(GroundingConfig(), **(settings or {}))  # type: ignore[arg-type]
    return GroundingReward(config).grade(request, [answer])[0]


@pytest.mark.parametrize(
    "answer",
    [
        "[0, 0, 100, 100]",
        "(0,0,100,100)",
        "The dog is at [0, 0, 100, 100].",
        '{"bbox_2d": [0, 0, 100, 100], "label": "dog"}',
        "[{'bbox_2d': [0, 0, 100, 100], 'label': 'dog'}]",
        '```json\n{"bbox_2d": [0, 0, 100, 100]}\n```',
        "```\n[0, 0, 100, 100]\n```",
        '{"bbox_2d": [[0, 0, 100, 100]]}',
        "\uff3b0\uff0c0\uff0c100\uff0c100\uff3d",
        "[-5, -3, 100, 1e2]",
        "<ref>the dog</ref><box>[[0, 0, 100, 100]]</box>",
        "<|box_start|>(0,0),(100,100)<|box_end|>",
        "(0, 0), (100, 100)",
        "the dog: (0, 0) (100, 100)",
        "[[0, 0], [100, 100]]",
        "[0 0 100 100]",
        "[[000, 000, 100, 100]]",
        '{"dog": [0, 0, 100, 100]}',
        "{'dog': [0, 0, 100, 100]}",
        '{"dog": [[0, 0, 100, 100]]}',
        '{"objects": [{"bbox_2d": [0, 0, 100, 100], "label": "dog"}]}',
        '{"bboxes": [[0, 0, 100, 100]]}',
        '{"result": {"box": [0, 0, 100, 100]}}',
        '{"boxes": [[0, 0, 100, 100]], "labels": ["dog"]}',
        '{"x1": 0, "y1": 0, "x2": 100, "y2": 100}',
        '{"label": "dog", "score": 0.9, "bbox": [[0, 0], [100, 100]]}',
    ],
)
def test_a_box_is_found_however_wrapped(answer: str) -> None:
    assert grade(answer, "[0, 0, 100, 100]").value == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "[100, 100, 0, 0]", "[100, 0, 0, 100]", "[0, 0, 0, 100]", "[nan, nan, nan, nan]", "[NaN, 0, 1, 1]",
        "[0, 0, Infinity, 1e999]", "[true, true, true, true]", '["0","0","100","100"]', "[0, 0, 100]",
        "[[[0, 0, 100, 100]]]",
        "0 0 100 100", "[500, 400, 600, 500]", "{}", "[{}]", "[null]", "5", '"x"', "top left", "[" * 5000, "{" * 5000,
        f"[{'9' * 5000}, 0, 1, 1]", "[x1, y1, x2, y2]", '{"dog": 5}', '{"dog": [0, 0, 100]}',
        "[[0, 0], [100, 100], [1, 2]]",
    ],
)  # fmt: skip
def test_malformed_boxes_earn_exactly_nothing(answer: str) -> None:
    assert grade(answer, "[0, 0, 100, 100]").value == 0.0


@pytest.mark.parametrize("answer", ["[]", "None", "none.", "null", "```json\n[]\n```", "No objects"])
def test_explicit_emptiness_is_right_only_where_there_is_nothing(answer: str) -> None:
    assert grade(answer, "[]").value == 1.0
    assert grade(answer, "[0, 0, 100, 100]").value == 0.0


@pytest.mark.parametrize("answer", ["banana", "[[]]", "{}", "[0, 0, 1, 1]", "[", "0"])
def test_unparseable_is_not_empty(answer: str) -> None:
    assert grade(answer, "[]").value == 0.0


@pytest.mark.parametrize("gold", ["", "banana", "[5, 5, 1, 1]", "[0, 0, 1]", "[500, 500, 600, 600]"])
def test_unusable_reference_is_a_failure(gold: str) -> None:
    with pytest.raises(GoldError):
        grade("[0, 0, 1, 1]", gold)


def test_two_perfect_boxes_and_a_far_one_keep_their_credit() -> None:
    # Greedy matching with reused loop variables scored this 0, or gave the far box another pair's IoU of 1.
    answer = "[[0, 0, 100, 100], [200, 200, 300, 300], [380, 280, 390, 290]]"
    assert grade(answer, "[[200, 200, 300, 300], [0, 0, 100, 100]]").value == pytest.approx(2 / 3)


def test_matching_is_optimal_not_greedy() -> None:
    answer = "[[0, 0, 90, 100], [10, 0, 100, 100]]"
    # 0.9 + 60 / 90 beats the greedy 0.9 + 50 / 100.
    assert grade(answer, "[[0, 0, 100, 100], [0, 0, 60, 100]]").value == pytest.approx((0.9 + 2 / 3) / 2)


def test_shotgun_earns_at_most_its_share() -> None:
    grid = [[x, y, x + 50, y + 50] for x in range(0, 400, 50) for y in range(0, 150, 50)]
    assert len(grid) == 24
    assert grade(json.dumps(grid), "[0, 0, 50, 50]").value == pytest.approx(1 / 24)
    assert grade(json.dumps(grid * 5), "[0, 0, 50, 50]").reason is Reason.TOO_LONG


@pytest.mark.parametrize(
    ("coord_mode", "answer"),
    [
        ("pixel", "[1000, 750, 3000, 2250]"),
        ("pixel_resized", "[287, 210, 861, 630]"),
        ("norm1000", "[250, 250, 750, 750]"),
        ("norm1", "[0.25, 0.25, 0.75, 0.75]"),
    ],
)
def test_every_frame_maps_to_original_pixels(coord_mode: str, answer: str) -> None:
    frame = {"image_sizes": ((4000, 3000),), "image_input_sizes": ((1148, 840),), "coord_mode": coord_mode}
    assert grade(answer, "[1000, 750, 3000, 2250]", **frame).value == pytest.approx(1.0)


def test_a_frame_without_its_sizes_is_a_failure() -> None:
    with pytest.raises(GoldError, match="image_input_sizes"):
        grade("[0, 0, 1, 1]", "[0, 0, 1, 1]", coord_mode="pixel_resized")
    with pytest.raises(GoldError, match="image_sizes"):
        grade("[0, 0, 1, 1]", "[0, 0, 1, 1]", coord_mode="norm1000", image_sizes=())


def test_labels_count_only_when_asked() -> None:
    gold = '[{"bbox_2d": [0, 0, 100, 100], "label": "dog\'s bowl"}]'
    right, wrong = gold.replace("dog", "Dog"), gold.replace("bowl", "ball")
    assert grade(wrong, gold).value == 1.0
    assert grade(right, gold, settings={"label_aware": True}).value == 1.0
    assert grade(wrong, gold, settings={"label_aware": True}).value == 0.0
    assert grade("[0, 0, 100, 100]", gold, settings={"label_aware": True}).value == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "dogs [[0,0,100,100;200,0,300,100]] on the lawn", "[[0,0,100,100;200,0,300,100]]",
        '{"dog": [[0, 0, 100, 100], [200, 0, 300, 100]]}', '{"dog": [0, 0, 100, 100], "cat": [200, 0, 300, 100]}',
        '{"bbox_2d": [0, 0, 100, 100]}\n{"bbox_2d": [200, 0, 300, 100]}', '{"answer": [[0,0,100,100],[200,0,300,100]]}',
        '[{"dog": [0, 0, 100, 100]}, {"dog": [200, 0, 300, 100]}]', "[0, 0, 100, 100]; [200, 0, 300, 100]",
    ],
)  # fmt: skip
def test_several_boxes_are_found_however_wrapped(answer: str) -> None:
    assert grade(answer, "[[0, 0, 100, 100], [200, 0, 300, 100]]").value == 1.0


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"dog": [0, 0, 100, 100], "cat": [200, 0, 300, 100]}', 1.0),
        ('{"cat": [0, 0, 100, 100], "dog": [200, 0, 300, 100]}', 0.0),
        ("a dog [[0,0,100,100]] and a cat [[200,0,300,100]]", 1.0),
        ("a cat [[0,0,100,100]] and a dog [[200,0,300,100]]", 0.0),
        ("dog: [0, 0, 100, 100]\ncat: [200, 0, 300, 100]", 1.0),
        ("The dog is at [0, 0, 100, 100], and the cat is at [200, 0, 300, 100].", 1.0),
        ("hot dog: [0, 0, 100, 100], cat: [200, 0, 300, 100]", 0.5),
        ("dog [0, 0, 100, 100] [200, 0, 300, 100]", 0.5),
        ("[{'bbox': [0, 0, 100, 100], 'label': 'dog'}, {'bbox': [200, 0, 300, 100], 'label': 'cat'}]", 1.0),
        ('{"boxes": [[0, 0, 100, 100], [200, 0, 300, 100]], "labels": ["dog", "cat"]}', 1.0),
        ('{"bboxes": [[0, 0, 100, 100], [200, 0, 300, 100]]}', 0.0),
        ('{"objects": [{"name": "dog", "bbox": [0,0,100,100]}, {"category": "cat", "box": [200,0,300,100]}]}', 1.0),
    ],
)
def test_labels_are_read_wherever_they_stand(answer: str, value: float) -> None:
    gold = '[{"bbox_2d": [0, 0, 100, 100], "label": "dog"}, {"bbox_2d": [200, 0, 300, 100], "label": "cat"}]'
    assert grade(answer, gold, settings={"label_aware": True}).value == value


def test_an_empty_list_under_one_key_is_emptiness_and_objects_without_boxes_are_not() -> None:
    assert grade('{"objects": []}', "[]").value == 1.0
    assert grade('{"a": "x"}', "[]").value == 0.0
    assert grade('{"a":' * 50 + "[0, 0, 100, 100]" + "}" * 50, "[0, 0, 100, 100]").value == 0.0


@given(
    st.lists(
        st.one_of(st.integers(-10, 2000), st.floats(-10, 2000, allow_nan=False).map(lambda x: round(x, 3))),
        min_size=4,
        max_size=4,
    ),
    st.sampled_from(["[%s]", "[[%s]]", " [ %s ]\n"]),
)
def test_the_short_way_reads_one_box_as_json_does(numbers, form: str) -> None:
    text = form % ", ".join(map(str, numbers))
    value = json.loads(text)
    box = tuple(map(float, value[0] if isinstance(value[0], list) else value))
    assert parse_boxes(text) == [BoxEntry(box)]


def test_shaping_options() -> None:
    half = ("[0, 0, 200, 100]", "[0, 0, 100, 100]")
    assert grade(*half, settings={"shaping": "power"}).value == 0.25
    assert grade(*half, settings={"shaping": "threshold", "threshold": 0.6}).value == 0.0
    assert grade(*half, settings={"shaping": "threshold", "threshold": 0.5}).value == 0.5
    two = "[[0, 0, 100, 100], [200, 200, 300, 300]]"
    assert grade(two, "[0, 0, 100, 100]", settings={"shaping": "soft_f1"}).value == pytest.approx(2 / 3)


def test_truncated_list_keeps_its_complete_boxes_but_counts_the_broken_one() -> None:
    result = grade('[{"bbox_2d": [0, 0, 100, 100], "label": "o"}, {"bbox_2d": [1, 2', "[0, 0, 100, 100]")
    assert (result.value, result.reason) == (0.5, Reason.BAD_BOX)


@given(box_strategy, box_strategy)
def test_iou_is_symmetric_and_bounded(left, right) -> None:
    assert iou(left, right) == iou(right, left)
    assert 0.0 <= iou(left, right) <= 1.0
    assert iou(left, left) == 1.0


@given(box_strategy, st.integers(1, 100), st.integers(1, 100))
def test_iou_falls_as_a_box_moves_away(box, near, further) -> None:
    def moved(by: int):
        return (box[0] + by, box[1], box[2] + by, box[3])

    assert iou(box, moved(near)) >= iou(box, moved(near + further))


@given(st.lists(box_strategy, min_size=1, max_size=5), st.lists(box_strategy, min_size=1, max_size=5), st.randoms())
def test_order_of_boxes_does_not_matter(predicted, gold, random) -> None:
    frame = {"image_sizes": ((600, 600),)}
    value = grade(json.dumps(predicted), json.dumps(gold), **frame).value
    shuffled, shuffled_gold = random.sample(predicted, len(predicted)), random.sample(gold, len(gold))
    again = grade(json.dumps(shuffled), json.dumps(shuffled_gold), **frame).value
    assert again == pytest.approx(value, abs=1e-12)
    assert 0.0 <= value <= 1.0
    assert grade(json.dumps(shuffled_gold), json.dumps(gold), **frame).value == pytest.approx(1.0)


@given(st.text(alphabet="[](){}0123456789.,-eE \"'abnif:\n", max_size=60))
def test_no_text_crashes_the_parser(text: str) -> None:
    entries = parse_boxes(text)
    assert entries is None or isinstance(entries, list)
    assert 0.0 <= grade(text, "[0, 0, 100, 100]").value <= 1.0


def test_corner_points_pair_up_and_a_lone_point_is_a_wrong_guess() -> None:
    assert len(parse_boxes("(0,0),(10,10) and (20,20),(30,30)") or []) == 2
    assert grade("(0, 0), (100, 100), (5, 5)", "[0, 0, 100, 100]").value == 0.5
    assert grade("(0, 0) is not (100, 100)", "[0, 0, 100, 100]").value == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "[[0,0],[100,100]],[[200,0],[300,100]]", "[[0, 0], [100, 100]] and [[200, 0], [300, 100]]",
        "[[[0,0],[100,100]],[[200,0],[300,100]]]", "[ [0,0], [100,100] ]\n[ [200,0], [300,100] ]",
        '{"dog": [[0, 0], [100, 100]], "cat": [[200, 0], [300, 100]]}',
        '[{"left": 0, "top": 0, "right": 100, "bottom": 100}, {"top": 0, "left": 200, "bottom": 100, "right": 300}]',
        '[{"top_left": [0, 0], "bottom_right": [100, 100]}, {"top_left": [200, 0], "bottom_right": [300, 100]}]',
        '[{"x0": 0, "y0": 0, "x1": 100, "y1": 100}, {"bbox": {"left": 200, "top": 0, "right": 300, "bottom": 100}}]',
    ],
)  # fmt: skip
def test_corners_are_read_as_lists_of_points_and_by_name(answer: str) -> None:
    assert grade(answer, "[[0, 0, 100, 100], [200, 0, 300, 100]]").value == 1.0


@pytest.mark.parametrize("answer", ["none", "There is none.", "There are no objects", "nothing"])
def test_emptiness_may_be_said_in_a_sentence(answer: str) -> None:
    assert grade(answer, "[]").value == 1.0
    assert grade(f"{answer} [0, 0, 1, 1]", "[]").value == 0.0


def test_ref_names_the_box_behind_it() -> None:
    gold = '[{"bbox_2d": [0, 0, 100, 100], "label": "dog"}, {"bbox_2d": [200, 0, 300, 100], "label": "cat"}]'
    answer = "<ref>{}</ref><box>[[0, 0, 100, 100]]</box><ref>{}</ref><box>[[200, 0, 300, 100]]</box>"
    aware = {"label_aware": True}
    assert grade(answer.format("Dog", "cat"), gold, settings=aware).value == 1.0
    assert grade(answer.format("cat", "dog"), gold, settings=aware).value == 0.0
    assert grade(answer.format("cat", "dog"), gold).value == 1.0


def test_an_explanation_names_labels_that_differ() -> None:
    gold = '[{"bbox_2d": [0, 0, 100, 100], "label": "dog"}]'
    request = RewardRequest(task="iou", question="", response="", answer=gold, image_sizes=((400, 300),))
    answer = '[{"bbox_2d": [0, 0, 100, 100], "label": "cat"}]'
    lines = [
        GroundingReward(GroundingConfig(label_aware=is_aware)).explain(request, answer)[-1]
        for is_aware in (True, False)
    ]
    assert lines[0].endswith("IoU 1.0000 (label 'cat', not 'dog': 0)")
    assert lines[1].endswith("IoU 1.0000")
