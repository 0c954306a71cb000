"""Counting, reading and pointing: values worked by hand, hedges, and how a row comes to them."""

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.core.base import RewardError
from rewards.core.config import CountingConfig, GroundingConfig, PointingConfig, ReadingConfig, RewardRule

TWO = "[[0, 0, 100, 100], [200, 0, 300, 100]]"


def value(task: str, answer: str, gold: str, config: RewardConfig | None = None) -> float | None:
    request = RewardRequest(
        task=task, question="", response=f"<think>a</think><answer>{answer}</answer>", answer=gold,
        image_sizes=((400, 300),),
    )  # fmt: skip
    with MixedReward(config or RewardConfig()) as rewards:
        return rewards.score([request])[0].task_reward


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("3", "3", 1.0), ("three", "3", 1.0), ("There are three dogs.", "3", 1.0), ("There are 3 dogs.", "3", 1.0),
        ("4", "3", 0.0), ("3.0", "3", 1.0), ("3.5", "3", 0.0), ("3 or 4", "3", 0.0), ("at least 3", "3", 0.0),
        ("none", "0", 1.0), ("-3", "3", 0.0), ("3%", "3", 0.0), ("The answer is 3.", "3", 1.0), ("5", "[4, 5]", 1.0),
        ("6", "[4, 5]", 0.0), ("3", "many", None), ("3", "[]", None), ("21", "twenty-one", 1.0), ("", "3", 0.0),
        ("three dogs", "3", 1.0), ("two or three", "3", 0.0), ("three or more dogs", "3", 0.0),
        ("more than three", "3", 0.0),
        ("two dogs and three cats", "3", 0.0), ("not three", "3", 0.0), ("one hundred and five people", "105", 1.0),
    ],
)  # fmt: skip
def test_a_count_is_exact_in_digits_or_words(answer: str, gold: str, expected: float | None) -> None:
    assert value("counting", answer, gold) == expected


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("minus two", "2"), ("-two", "2"), ("there are minus two dogs", "2"), ("two and a half", "2"),
        ("2 and a half", "2"), ("two thirds", "2"), ("two hundredths", "2"), ("three quarters", "3"),
        ("one half", "1"), ("one third of the dogs", "1"), ("2 dozen", "2"), ("two dozen eggs", "2"), ("2 score", "2"),
        ("two pairs", "2"), ("7 pairs", "7"), ("two thousand dogs", "2"), ("half of two", "2"), ("2nd", "2"),
        ("the 2nd one", "2"), ("none of the 2", "2"), ("neither of the two", "2"), ("I don't see 2", "2"),
        ("I can't see two", "2"), ("page 2", "2"), ("see figure 2", "2"), ("2!", "2"), ("2 unless hidden", "2"),
        ("two if hidden ones count", "2"), ("no idea", "0"), ("There is no way to tell", "0"),
        ("no fewer than two", "0"), ("There are no other dogs", "0"), ("No, there are dogs", "0"),
        ("no dogs but cats", "0"), ("no dogs and two cats", "0"), ("none of the above", "0"),
    ],
)  # fmt: skip
def test_words_that_make_another_count_of_it(answer: str, gold: str) -> None:
    assert value("counting", answer, gold) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("There are no dogs.", "0"), ("no dogs", "0"), ("There are none.", "0"), ("none of them", "0"),
        ("I see no dogs in this picture of a beach.", "0"),
        ("There's none", "0"), ("There aren't any dogs", "0"), ("There is no dog under the table.", "0"),
        ("no dogs or cats", "0"),
        ("two dozen", "24"), ("2 dozen eggs", "24"), ("a pair of dogs", "2"), ("14", "7 pairs"), ("one of them", "1"),
        ("In the picture 2 dogs are visible", "2"), ("there are two of them", "2"), ("three third graders", "3"),
    ],
)  # fmt: skip
def test_nothing_and_counts_by_the_dozen(answer: str, gold: str) -> None:
    assert value("counting", answer, gold) == 1.0


def test_a_graded_count_falls_with_the_relative_error() -> None:
    config = RewardConfig(counting=CountingConfig(graded=True))
    # |3 - 4| / 4 and |9 - 4| / 4; a reference of 0 counts as 1 in the denominator.
    assert value("counting", "3", "4", config) == 0.75
    assert value("counting", "9", "4", config) == 0.0
    assert value("counting", "1", "0", config) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("STOP", "stop", 1.0), ("stob", "stop", 0.75), ("stxx", "stop", 0.5), ("sxxx", "stop", 0.0),
        ("halt", '["stop", "halt"]', 1.0), ("s t o p", "stop", 4 / 7), ("x", "stop", 0.0), ("stop", "!!!", None),
        ("stop halt", '["stop", "halt"]', 0.0), ("stop", "[]", None),
    ],
)  # fmt: skip
def test_a_text_earns_its_similarity_to_the_best_reference_from_one_half_on(
    answer: str, gold: str, expected: float | None
) -> None:
    assert value("ocr", answer, gold) == (expected if expected is None else pytest.approx(expected))


def test_the_threshold_of_reading_is_a_setting() -> None:
    assert value("ocr", "stob", "stop", RewardConfig(reading=ReadingConfig(threshold=0.8))) == 0.0
    assert value("ocr", "sxxx", "stop", RewardConfig(reading=ReadingConfig(threshold=0.0))) == 0.25


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("(50, 50)", 0.5), ("(50, 50), (250, 50)", 1.0), ("[[50, 50], [250, 50]]", 1.0), ("50, 50", 0.5),
        ('[{"point_2d": [50, 50]}, {"point_2d": [250, 50]}]', 1.0), ('{"points": [[50, 50], [250, 50]]}', 1.0),
        ('{"x": 50, "y": 50}', 0.5), ("(50, 50) (60, 60)", 0.5), ("(150, 50)", 0.0), ("[50, 50, 60]", 0.0),
        ("[NaN, 50]", 0.0), ("[true, true]", 0.0), ("banana", 0.0), ("[]", 0.0), ("(100, 100)", 0.5),
        ("(50, 50), (250, 50), (1, 1), (2, 2)", 0.5), ("the dog (50, 50) and the cat (250, 50)", 1.0),
    ],
)  # fmt: skip
def test_a_point_meets_one_box_and_every_guess_costs(answer: str, expected: float) -> None:
    assert value("pointing", answer, TWO) == expected


def test_a_distance_falls_to_nothing_at_half_the_diagonal() -> None:
    config = RewardConfig(pointing=PointingConfig(distance=True))
    # The box 60 x 80 has its centre at (30, 40) and half a diagonal of 50; (30, 65) is 25 away.
    assert value("pointing", "(30, 40)", "[0, 0, 60, 80]", config) == 1.0
    assert value("pointing", "(30, 65)", "[0, 0, 60, 80]", config) == pytest.approx(0.5)
    assert value("pointing", "(80, 40)", "[0, 0, 60, 80]", config) == 0.0


def test_detection_f1_counts_pairs_above_the_threshold_with_the_right_label() -> None:
    config = RewardConfig(grounding=GroundingConfig(shaping="f1", label_aware=True))
    gold = '[{"bbox": [0, 0, 100, 100], "label": "dog"}, {"bbox": [200, 0, 300, 100], "label": "cat"}]'
    # One of two guesses is right and one of two boxes is found: 2 x 1 / 4. A third guess: 2 x 1 / 5.
    assert value("iou", '{"dog": [0, 0, 100, 100], "cow": [200, 0, 300, 100]}', gold, config) == 0.5
    assert value("iou", '{"dog": [0, 0, 90, 100], "a": [1, 1, 2, 2], "b": [3, 3, 4, 4]}', gold, config) == 0.4
    assert value("iou", '{"dog": [0, 0, 90, 100], "cat": [200, 0, 290, 100]}', gold, config) == 1.0
    assert value("iou", '{"dog": [0, 0, 40, 100]}', gold, config) == 0.0


def test_a_rule_sends_the_rows_of_a_source_to_counting_and_its_parameters_are_checked() -> None:
    rule = RewardRule(source="tally", function="counting", parameters={"graded": True})
    route = RewardConfig(rules=(rule,)).route("chart", "tally")
    assert (route.function, route.parameters) == ("counting", CountingConfig(graded=True))
    with pytest.raises(RewardError, match="threshold"):
        RewardConfig(rules=(RewardRule(task="ocr", parameters={"threshold": 2.0}),))


@pytest.mark.parametrize("answer", ["[]", "none", "There is none.", "no points"])
def test_no_point_is_right_where_nothing_is_to_be_found(answer: str) -> None:
    assert value("pointing", answer, "[]") == 1.0
    assert value("pointing", answer, TWO) == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("50,50; 250,50", 1.0), ("50, 50\n250, 50", 1.0), ("50.5,50;\n250,50.", 1.0), ("50,50; 350,250", 0.5),
        ('{"dog":[50,50],"cat":[250,50]}', 1.0), ('{"dog": {"x": 50, "y": 50}, "cat": {"point": [250, 50]}}', 1.0),
        ('[{"dog": [50, 50]}, {"cat": [250, 50]}]', 1.0), ('{"dog": [50, 50], "label": "a"}', 0.5),
        ("50,50; 250,50; 350,250", 2 / 3), ('{"dog": [50, 50], "cat": [250, 50], "cow": [250]}', 2 / 3),
    ],
)  # fmt: skip
def test_several_points_are_found_however_wrapped(answer: str, expected: float) -> None:
    assert value("pointing", answer, TWO) == pytest.approx(expected)
