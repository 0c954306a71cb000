"""Every case of tests/golden/reward_cases.jsonl: values, bounds, and relations between cases."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest, RewardResult

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "golden" / "reward_cases.jsonl").read_text(encoding="utf-8").splitlines()
    if line
]
COORD_MODES = {"resized": "pixel_resized"}
TOLERANCE = 1e-4
"""The cases print four decimals."""


def request_of(case: dict[str, Any]) -> RewardRequest:
    """Give the request of a case; format cases ride on any task."""
    coord = case.get("coord", "pixel")
    return RewardRequest(
        task="match_text" if case["task"] == "format" else case["task"],
        question="",
        response=case["response"],
        answer="B" if case["task"] == "format" else case["answer"],
        options=tuple(case.get("options", ())),
        image_sizes=(tuple(case["image_size"]),) if "image_size" in case else (),
        image_input_sizes=(tuple(case["input_size"]),) if "input_size" in case else (),
        coord_mode=COORD_MODES.get(coord, coord),
    )


@pytest.fixture(scope="module")
def results(toy: tuple[Any, Any]) -> dict[str, RewardResult]:
    """Score all cases in two batches: guards on, guards off."""
    tokenizer, table = toy
    scored: dict[str, RewardResult] = {}
    for guards in (True, False):
        config = RewardConfig()
        config = dataclasses.replace(config, open_ended=dataclasses.replace(config.open_ended, guards=guards))
        cases = [case for case in CASES if case.get("guards", True) is guards]
        with MixedReward(config, tokenizer, table) as rewards:
            scored.update(
                zip((case["id"] for case in cases), rewards.score([request_of(case) for case in cases]), strict=True)
            )
    return scored


def value_of(case_id: str, results: dict[str, RewardResult]) -> float:
    """Give what a case is about: the format value of format cases, the task value of others."""
    result = results[case_id]
    value = result.format_reward if case_id.startswith("format") else result.task_reward
    assert value is not None, result.failure
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_golden_case(case: dict[str, Any], results: dict[str, RewardResult]) -> None:
    value = value_of(case["id"], results)
    low, high = case["expected"] if isinstance(case["expected"], list) else [case["expected"]] * 2
    assert low - TOLERANCE <= value <= high + TOLERANCE, (case["why"], results[case["id"]].reason)
    for relation, other_id in case.get("relation", {}).items():
        other = value_of(other_id, results)
        holds = {"lt": value < other, "le": value <= other + 1e-9, "eq": value == pytest.approx(other, abs=1e-6)}
        assert holds[relation], (case["id"], relation, other_id, value, other)


def test_identical_text_scores_exactly_one(results: dict[str, RewardResult]) -> None:
    assert results["open_001"].reward == 1.0


def test_all_cases_are_there() -> None:
    assert len(CASES) == 192
