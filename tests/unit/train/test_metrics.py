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


def test_each_part_of_a_sum_has_its_own_mean() -> None:
    summaries = [
        replace(SUMMARY, function="chart+mine", parts=(("chart", (1.0, 0.5)), ("mine", (0.0, 0.2)))),
        replace(SUMMARY, function="mine+math", parts=(("mine", (0.1,)), ("math", (1.0,)))),
        replace(SUMMARY, function="chart", reasons=("function_timeout", "ok")),
    ]
    tickets = [
        GroupTicket(position=i, group_id=str(i), sample_id=str(i), payload=None, summary=s)
        for i, s in enumerate(summaries)
    ]
    metrics = reward_metrics(tickets)
    assert metrics["reward/chart/part_mean"] == pytest.approx(0.75)
    assert metrics["reward/mine/part_mean"] == pytest.approx(0.1)
    assert metrics["reward/chart+mine/num_groups"] == 1.0
    assert metrics["reason/chart/function_timeout"] == 0.5
    assert "reward/mine/mean" not in metrics
