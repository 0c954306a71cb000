"""Steps and held-out scores as a run hands them to its record."""

from dataclasses import replace
from typing import Any

from learner.records import StepReport
from orchestration.train.held_out import Evaluation, FamilyScore
from orchestration.workers.tickets import GroupTicket, RecordedCompletion, StepGroups
from orchestration.workers.weight_sync import SyncReport
from rewards.core.base import Reason, RewardResult
from rollout.records import Sample
from tests.unit.train.run_records import SUMMARY

RESULT = RewardResult(
    reward=1.0, task_reward=1.0, format_reward=1.0, breakdown={"chart": 1.0}, parsed_answer="4", reason=Reason.OK
)
SAMPLE = Sample(sample_id="7f", source="plots", task="chart", question="How tall?", answer="4")
SUMMARIES = [
    replace(
        SUMMARY,
        completions=(RecordedCompletion(text="4", result=RESULT, num_tokens=8, truncated=False),) * 2,
        sample=SAMPLE,
    ),
    SUMMARY,
]


def step_of(step: int, clock: float) -> dict[str, Any]:
    """All that is known of a step that took `clock` seconds a phase."""
    summaries = [
        replace(summary, rollout_s=clock, score_s=clock, num_aborted_tokens=int(clock)) for summary in SUMMARIES
    ]
    return {
        "groups": StepGroups(
            step=step,
            tickets=tuple(
                GroupTicket(position=2 * step + i, group_id=str(i), sample_id="7f", payload=None, summary=summary)
                for i, summary in enumerate(summaries)
            ),
        ),
        "report": StepReport(
            step=step, weight_version=step + 1, metrics={"policy/loss": 0.1 * step}, seconds={"plan": clock}
        ),
        "sync": SyncReport(version=step + 1, transfer_s=clock, num_compared=3, num_bytes=int(80 * clock)),
        "mismatch": 1e-6,
        "seconds": {"wait_rollout": clock, "train": clock},
        "counts": {"reward/num_actor_restarts": clock},
    }


def scored(step: int, sampled: float) -> Evaluation:
    score = FamilyScore(
        num_samples=4,
        sampled=sampled,
        sampled_se=0.1,
        sampled_task=sampled,
        greedy=0.5,
        greedy_se=0.1,
        greedy_task=0.5,
        format=1.0,
    )
    both = {"plots": score, "maps": score}
    return Evaluation(step=step, rows="", families={"chart": score}, sources=both, examples=[], failure=None)
