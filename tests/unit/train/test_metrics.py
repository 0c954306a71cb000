"""Step metrics of rewards: by function with reasons, by source."""

from dataclasses import replace

import pytest

from orchestration.train.metrics import reward_metrics
from orchestration.workers.tickets import GroupTicket
from tests.unit.train.run_records import SUMMARY


def test_rewards_are_summed_up_by_function_reason_and_source() -> None:
    summaries = [
        replace(SUMMARY, rewards=(0.1, 1.0), reasons=("not_a_number", "ok"), source="plots"),
        replace(SUMMARY, rewards=(0.5,), reasons=("ok", "grader_failed"), failures=("crash",), source="bars"),
        replace(SUMMARY, function="grounding", rewards=(0.2, 0.2), reasons=("bad_box", "bad_box"), source="bars"),
    ]
    tickets = [
        GroupTicket(position=i, group_id=str(i), sample_id=str(i), payload=None, summary=s)
        for i, s in enumerate(summaries)
    ]
    metrics = reward_metrics(tickets)
    assert metrics["reward/mean"] == pytest.approx((0.1 + 1.0 + 0.5 + 0.2 + 0.2) / 5)
    assert metrics["reward/chart/mean"] == pytest.approx(1.6 / 3)
    assert metrics["reason/chart/not_a_number"] == pytest.approx(1 / 4)
    assert metrics["reason/chart/grader_failed"] == pytest.approx(1 / 4)
    assert metrics["reason/grounding/bad_box"] == 1.0
    assert "reason/chart/ok" not in metrics
    assert metrics["source/bars/reward_mean"] == pytest.approx(0.9 / 3)
    assert metrics["reward/group_std_mean"] == pytest.approx((0.45 + 0.0 + 0.0) / 3)
