"""What judges cost is a timing, as it depends on what is cached; it is summed over all groups of a step."""

from learner.records import StepReport
from orchestration.train.metrics import step_metrics, step_timings
from orchestration.workers.tickets import StepGroups
from orchestration.workers.weight_sync import SyncReport
from tests.unit.train.run_records import ticket

GROUPS = StepGroups(
    step=0,
    tickets=(
        ticket(0, counts=(("judge/wise/num_requests", 4.0), ("judge/wise/num_cached", 1.0))),
        ticket(1, counts=(("judge/wise/num_requests", 2.0), ("judge/strict/num_requests", 8.0))),
        ticket(2),
    ),
    replaced=(ticket(3, counts=(("judge/wise/num_requests", 1.0),)),),
)


def test_requests_are_summed_over_the_groups_of_a_step_and_are_no_metric() -> None:
    report, sync = (
        StepReport(step=0, weight_version=1),
        SyncReport(version=1, transfer_s=0.1, num_compared=0, num_bytes=8),
    )
    timings = step_timings(GROUPS, report, sync, {"train": 1.0}, counts={})
    assert {name: value for name, value in timings.items() if name.startswith("judge/")} == {
        "judge/strict/num_requests": 8.0,
        "judge/wise/num_cached": 1.0,
        "judge/wise/num_requests": 7.0,
    }
    assert not any(name.startswith("judge/") for name in step_metrics(GROUPS, report, sync, None))
