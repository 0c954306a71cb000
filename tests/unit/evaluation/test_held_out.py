"""Held-out scores: which samples, which seeds, which mean and which error."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.evaluate import choose_samples, evaluate
from rollout.dataset import SampleTable, write_samples
from rollout.errors import RolloutError
from rollout.records import Sample, SamplingSpec
from tests.unit.orchestration.test_buffer import SUMMARY

SPEC = SamplingSpec(group_size=2, temperature=1.0, max_completion_tokens=8)
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
        family = "chart" if sample.task == "chart" else "matching"
        return None, replace(
            SUMMARY, family=family, rewards=rewards, task_rewards=rewards, format_rewards=rewards, texts=("t",) * 2
        )


def run(pools: FakePools) -> Any:
    return asyncio.run(
        evaluate(SAMPLES, generators=pools, rewards=pools, sampled=SPEC, seed=5, step=3)  # type: ignore[arg-type]
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
    assert first.specs["s0"][0].seed != first.specs["s1"][0].seed
    assert [spec.greedy for spec in first.specs["s0"]] == [False, True]


def test_chosen_samples_are_the_first_of_each_function(tmp_path: Path) -> None:
    write_samples(tmp_path / "h.parquet", SAMPLES)
    names = {"chart": "chart", "match_mcq": "matching", "match_yesno": "matching"}
    family_of = {(s.task, s.source): names[s.task] for s in SAMPLES}
    chosen = choose_samples(SampleTable(tmp_path / "h.parquet"), family_of, 2)
    assert [s.sample_id for s in chosen] == ["s0", "s2", "s1", "s3"]
