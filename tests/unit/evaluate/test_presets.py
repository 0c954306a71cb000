"""Every preset against hand-scored rows, one by one, and its metrics against arithmetic by hand."""

from typing import Any

import pytest

from orchestration.evaluate.benchmarks import PRESETS, PresetResult, apply_preset, preset_of, relaxed_match, row_columns
from orchestration.evaluate.publish import check_preset_scored
from orchestration.evaluate.statistics import Resampling
from orchestration.evaluate.summary import SummarySettings
from orchestration.settings.errors import ConfigError, DataError
from orchestration.workers.answers import EvaluatedSample, bare_answer
from rewards import MixedReward, RewardConfig, RewardRequest
from tests.unit.evaluate.builders import completion, golden_rows, sample, tagged

TASKS = {"chartqa": "chart", "refcoco": "iou", "mcq": "match_mcq", "pope": "match_yesno"}
IMAGE = {"image_sizes": ((400, 300),), "image_input_sizes": ((200, 150),)}
FEW = SummarySettings(resampling=Resampling(num_resamples=200))


def scored_by_reward(row: dict[str, Any], task: str, rewards: MixedReward) -> EvaluatedSample:
    """Give the golden row with the rewards that training would pay."""
    text = row.get("text", tagged(row.get("body", "")))
    fields: dict[str, Any] = {
        "task": task,
        "answer": row["answer"],
        "options": ("10", "12", "14", "16") if task == "match_mcq" else (),
        "coord_mode": row.get("coord_mode", "pixel"),
        **(IMAGE if task == "iou" else {}),
    }
    result = rewards.score([RewardRequest(question="?", response=text, **fields)])[0]
    said = completion(
        result.task_reward,
        text=text,
        reward=result.reward,
        format_reward=result.format_reward,
        reason=result.reason.value,
        parsed_answer=result.parsed_answer,
    )
    metadata = {"category": row["category"]} if "category" in row else {}
    return sample(row["id"], greedy=said, metadata=metadata, **fields)


def scored_by_hand(row: dict[str, Any], task: str) -> EvaluatedSample:
    said = completion(
        row["task_reward"],
        text=row.get("text", tagged(row.get("body", ""))),
        reward=row.get("reward", row["task_reward"]),
        format_reward=row.get("format", 1.0),
        reason=row.get("reason", "ok"),
    )
    return sample(row["id"], task=task, answer=row.get("answer", ""), source=row.get("source", "unit/a"), greedy=said)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[tuple[dict[str, Any], EvaluatedSample]]]:
    with MixedReward(RewardConfig()) as rewards:
        found = {
            name: [(row, scored_by_reward(row, task, rewards)) for row in golden_rows(name)]
            for name, task in TASKS.items()
        }
    found["captions"] = [(row, scored_by_hand(row, "open")) for row in golden_rows("captions")]
    return found


def result_of(name: str, rows: dict[str, list[tuple[dict[str, Any], EvaluatedSample]]]) -> PresetResult:
    return apply_preset(PRESETS[name], [row for _, row in rows[name]], FEW)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_golden_row_scores_as_worked_out_by_hand(
    name: str, rows: dict[str, list[tuple[dict[str, Any], EvaluatedSample]]]
) -> None:
    assert len(rows[name]) >= 15
    for row, evaluated in rows[name]:
        columns = row_columns(PRESETS[name], evaluated)
        expected = {key: row[key] for key in ("official", "strict", "hit", "iou", "correct") if key in row}
        if name == "captions":
            expected = {"official": row["task_reward"], "strict": row["task_reward"]}
            expected.update(length_ratio=row["length_ratio"], duplicates=row["duplicates"])
        if None in expected.values():
            assert columns is None, f"{name} {row['id']}: {row['why']}"
            continue
        assert columns is not None
        found = {key: columns[key] for key in expected}
        assert found == pytest.approx(expected, abs=1e-6), f"{name} {row['id']}: {row['why']}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # official: equal, edge_in, year, percent_fraction, case, untagged; strict: ten of 18; unreadable for the
        # reward: hedge, untagged, unclosed, two_blocks.
        ("chartqa", {"relaxed_accuracy": 6 / 18, "strict_accuracy": 10 / 18, "unreadable_frac": 4 / 18}),
        # nine boxes hit; two more first boxes do; untagged is not strict; 8 whole + 1/3 + 0.5 + 0.49.
        (
            "refcoco",
            {
                "accuracy": 9 / 18,
                "first_box_accuracy": 11 / 18,
                "strict_accuracy": 8 / 18,
                "mean_iou": (8 + 1 / 3 + 0.5 + 0.49) / 18,
                "unreadable_frac": 2 / 18,
                "several_boxes_frac": 3 / 18,
            },
        ),
        # B is chosen 8 times and right 14 times; A, C, D as counted in the file.
        (
            "mcq",
            {
                "accuracy": 10 / 18,
                "strict_accuracy": 9 / 18,
                "unreadable_frac": 6 / 18,
                "chosen_frac/A": 2 / 18,
                "chosen_frac/B": 8 / 18,
                "chosen_frac/C": 2 / 18,
                "chosen_frac/D": 1 / 18,
                "right_frac/A": 2 / 18,
                "right_frac/B": 14 / 18,
                "right_frac/C": 2 / 18,
                "right_frac/D": 1 / 18,
            },
        ),
        # 9 of 16 are yes; 4 of them found, 5 missed, 1 invented: 2 x 4 / (2 x 4 + 1 + 5).
        (
            "pope",
            {
                "accuracy": 9 / 16,
                "f1": 8 / 14,
                "precision": 4 / 5,
                "recall": 4 / 9,
                "yes_ratio": 5 / 16,
                "unreadable_frac": 5 / 16,
                "official_accuracy": 9 / 16,
                "strict_accuracy": 8 / 16,
            },
        ),
        # 15 of 16 rows have a reward; 20 + 3/7 + 6/7 lengths.
        (
            "captions",
            {
                "bmas": 6.5 / 15,
                "length_ratio": (20 + 9 / 7) / 15,
                "duplicate_4gram_frac": (4 / 11 + 2 / 3 + 0.2 + 0.5) / 15,
                "unreadable_frac": 3 / 15,
            },
        ),
    ],
)
def test_metrics_are_those_of_the_hand_arithmetic(
    name: str,
    expected: dict[str, float],
    rows: dict[str, list[tuple[dict[str, Any], EvaluatedSample]]],
) -> None:
    result = result_of(name, rows)

    assert {key: estimate.value for key, estimate in result.metrics.items()} == pytest.approx(expected, abs=1e-9)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in result.metrics.values())


def test_pope_reports_every_category_of_a_row(
    rows: dict[str, list[tuple[dict[str, Any], EvaluatedSample]]],
) -> None:
    groups = result_of("pope", rows).groups

    # adversarial: eyes, unknown, late_yes wrong, bold right; popular: no, no_sentence, bold right, invented wrong.
    assert {name: metrics["accuracy"].value for name, metrics in groups.items()} == {
        "category adversarial": 1 / 4,
        "category popular": 3 / 4,
        "category random": pytest.approx(2 / 3),
    }


def test_rows_of_other_tasks_are_skipped_and_failed_ones_counted() -> None:
    samples = [
        sample("a"),
        sample("b", task="iou", answer="[0, 0, 1, 1]"),
        sample("c", greedy=None, failure="engine died"),
        sample("d", None, greedy=completion(None, reason="bad_gold")),
    ]

    result = apply_preset(PRESETS["chartqa"], samples, FEW)

    assert (result.num_rows, result.num_skipped, result.num_failed) == (1, 1, 2)


def test_an_evaluation_of_nothing_has_no_metrics() -> None:
    result = apply_preset(PRESETS["pope"], [sample("a")])

    assert (result.num_rows, result.num_skipped, result.metrics, result.groups) == (0, 1, {}, {})


def test_refcoco_takes_rows_with_one_reference_box_alone() -> None:
    answers = {"[0, 0, 9, 9]": True, "[[0, 0, 9, 9], [1, 1, 5, 5]]": False, "[]": False, "none at all": False}

    assert {a: PRESETS["refcoco"].takes(sample("a", task="iou", answer=a)) for a in answers} == answers


def test_without_a_greedy_completion_the_sampled_ones_are_averaged() -> None:
    said = (completion(1.0, text=tagged("4")), completion(0.0, text=tagged("9")), completion(None, reason="bad_gold"))

    columns = row_columns(PRESETS["chartqa"], sample("a", greedy=None, sampled=said))

    assert columns is not None
    assert (columns["official"], columns["strict"], columns["rows"]) == (0.5, 0.5, 1.0)


@pytest.mark.parametrize(
    ("prediction", "target", "right"),
    [
        ("nan", "5", False),
        ("inf", "5", False),
        ("5", "nan", False),
        ("\u0664\u0665", "45", True),  # Python's float reads digits of any script
        ("1e999", "45", False),
        ("", "", True),
        ("5%", "0.05", True),
    ],
)
def test_the_public_chart_rule_keeps_its_oddities(prediction: str, target: str, right: bool) -> None:
    assert relaxed_match(prediction, target) is right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer>B</answer><|im_end|>", "B"),
        ("<think>a</think>B", "B"),
        ("<think>a</think><answer>A</answer><answer>B</answer>", "A  B"),
        ("<think>a</think><answer>B", "B"),
        ("<answer>B</answer>", "B"),
        ("<think>the <answer>B</answer>", "[unanswered]"),
        ("<think>a</think>  ", "[unanswered]"),
        ("", "[unanswered]"),
    ],
)
def test_tags_never_reach_another_scorer(text: str, answer: str) -> None:
    assert bare_answer(text) == answer


@pytest.mark.parametrize(("typed", "meant"), [("chartq", "chartqa"), ("ChartQA", "chartqa"), ("refcoc", "refcoco")])
def test_a_misspelt_preset_names_the_one_that_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"evaluate\.preset={typed} is not a preset; did you mean {meant}\?$"):
        preset_of(typed)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"preset=mmmu is not a preset; use one of mixed: .*chartqa: "):
        preset_of("mmmu")


def test_mixed_is_no_benchmark() -> None:
    assert preset_of("mixed") is None


def test_a_preset_that_scores_no_row_is_refused() -> None:
    found = apply_preset(PRESETS["refcoco"], [sample("a")])
    with pytest.raises(DataError, match="preset=refcoco scored no row: 1 are of other tasks and 0 failed"):
        check_preset_scored(found)
