"""Held-out scores of a run: which samples, which seeds, which mean and which error."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.evaluation.collect import Questioning
from orchestration.evaluation.families import evaluate
from orchestration.evaluation.held_out import choose_samples
from orchestration.tickets import RecordedCompletion
from rewards.base import Reason, RewardResult
from rollout.dataset import SampleTable, write_samples
from rollout.errors import RolloutError
from rollout.records import Sample, SamplingSpec
from tests.unit.orchestration.run_records import SUMMARY

QUESTIONING = Questioning(
    greedy=True,
    sampled=SamplingSpec(group_size=2, temperature=1.0, max_completion_tokens=8),
    max_completion_tokens=8,
    seed=5,
    coord_mode="pixel",
)
FUNCTIONS = {
    ("chart", "unit"): "chart",
    ("match_mcq", "unit"): "matching",
    ("match_yesno", "unit"): "matching",
}
SAMPLES = [
    Sample(sample_id=f"s{i}", source="unit", task=task, question="?", answer="1")
    for i, task in enumerate(["chart", "match_mcq", "chart", "match_yesno", "chart", "match_mcq"])
]


class FakePools:
    """Gives chart samples rewards (0, 1) when sampled and 1 when greedy; refuses the sample named s2."""

    def __init__(self) -> None:
        self.specs: dict[str, list[SamplingSpec]] = {}

    async def generate_group(self, group_id: str, sample: Sample, spec: SamplingSpec) -> Any:
        if sample.sample_id == "s2":
            raise RolloutError("too long")
        self.specs.setdefault(sample.sample_id, []).append(spec)
        return sample, spec

    async def score(self, group: Any, *, keep_texts: bool) -> Any:
        sample, spec = group
        rewards = (1.0,) if spec.greedy else (0.0, 1.0 if sample.sample_id != "s4" else 0.5)
        return None, replace(SUMMARY, completions=tuple(map(completion, rewards)))


def completion(reward: float) -> RecordedCompletion:
    result = RewardResult(
        reward=reward, task_reward=reward, format_reward=1.0, breakdown={}, parsed_answer="1", reason=Reason.OK
    )
    return RecordedCompletion(text="t", result=result, num_tokens=3, truncated=False)


def run(pools: FakePools) -> Any:
    return asyncio.run(
        evaluate(
            SAMPLES,
            generators=pools,  # type: ignore[arg-type]
            rewards=pools,  # type: ignore[arg-type]
            questioning=QUESTIONING,
            function_of=FUNCTIONS,
            step=3,
        )
    )


def test_means_and_errors_are_over_samples() -> None:
    chart = run(FakePools()).families["chart"]
    # s0 has mean 0.5, s4 has 0.25; s2 could not be generated. The standard error of two values is half their distance.
    assert chart.num_samples == 2
    assert chart.sampled == pytest.approx(0.375)
    assert chart.sampled_se == pytest.approx(0.125)
    assert (chart.greedy, chart.greedy_se) == (1.0, 0.0)


def test_two_evaluations_draw_the_same_random_numbers_and_samples_differ() -> None:
    first, second = FakePools(), FakePools()
    run(first)
    run(second)
    assert first.specs == second.specs
    assert first.specs["s0"][1].seed != first.specs["s1"][1].seed
    assert [spec.greedy for spec in first.specs["s0"]] == [True, False]


def test_chosen_samples_are_the_first_of_each_function(tmp_path: Path) -> None:
    write_samples(tmp_path / "h.parquet", SAMPLES)
    chosen = choose_samples(SampleTable(tmp_path / "h.parquet"), FUNCTIONS, 2)
    assert [s.sample_id for s in chosen] == ["s0", "s2", "s1", "s3"]
