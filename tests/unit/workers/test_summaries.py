"""Groups wanted for their summary alone are sampled again when they vanish, but not for ever."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.settings.errors import PayloadLostError, ScoringError
from orchestration.workers.summaries import TRIES, summary_of
from rollout.records import Sample, SamplingSpec
from tests.unit.train.run_records import SUMMARY

SAMPLE = Sample(sample_id="7f", source="plots", task="chart", question="How tall?", answer="4")
SPEC = SamplingSpec(group_size=2, temperature=1.0, max_completion_tokens=8)


def ask(num_losses: int, at: str = "score") -> tuple[Any, list[str]]:
    sampled: list[str] = []

    async def generate_group(group_id: str, sample: Sample, spec: SamplingSpec) -> str:
        sampled.append(group_id)
        if at == "engine" and len(sampled) <= num_losses:
            raise PayloadLostError("its node is gone")
        return group_id

    async def score(group: str, *, keep_texts: bool) -> tuple[str, Any]:
        if at == "score" and len(sampled) <= num_losses:
            raise PayloadLostError("its node is gone")
        return group, SUMMARY

    pools = SimpleNamespace(generate_group=generate_group), SimpleNamespace(score=score)
    return asyncio.run(summary_of(*pools, "g", SAMPLE, SPEC)), sampled


@pytest.mark.parametrize("at", ["engine", "score"])
def test_a_group_that_vanishes_is_sampled_again(at: str) -> None:
    assert ask(num_losses=TRIES - 1, at=at) == (SUMMARY, ["g"] * TRIES)


def test_a_group_that_vanishes_every_time_is_given_up_with_the_reason() -> None:
    with pytest.raises(ScoringError, match=rf"lost {TRIES} times: its node is gone"):
        ask(num_losses=TRIES)
