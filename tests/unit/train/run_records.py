"""Records of a small run: settings, tickets."""

from dataclasses import replace
from typing import Any

from orchestration.settings.experiment import TrainingConfig
from orchestration.workers.tickets import GroupSummary, GroupTicket

SUMMARY = GroupSummary(
    function="chart",
    source="plots",
    rewards=(0.1, 1.0),
    task_rewards=(0.0, 1.0),
    format_rewards=(1.0, 1.0),
    num_prompt_tokens=20,
    num_completion_tokens=16,
    num_truncated=0,
    failures=(),
    reasons=("ok", "ok"),
    weight_version=0,
    num_spanning=0,
    rollout_s=0.1,
    score_s=0.01,
)

TRAINING = TrainingConfig(
    num_steps=5,
    groups_per_step=2,
    max_staleness=1,
    run_ahead=None,
    straggler_deadline_s=None,
    oversampling=1.0,
    checkpoint_every=2,
    checkpoint_dir=None,
    staging_dir=None,
    keep_last=2,
    keep_best=False,
    time_limit_s=None,
    checkpoint_before_s=0.0,
    weight_check_every=10,
    max_mismatch=0.02,
    max_drop_frac=0.5,
    max_failed_frac=0.25,
    recorded_groups_per_step=1,
)


def training(**changes: Any) -> TrainingConfig:
    return replace(TRAINING, **changes)


def ticket(position: int, *, payload: Any = None, **summary: Any) -> GroupTicket:
    return GroupTicket(
        position=position,
        group_id=f"0-{position}",
        sample_id=f"sample {position}",
        payload=payload,
        summary=replace(SUMMARY, **summary),
    )


def ticket_without_signal(position: int) -> GroupTicket:
    return ticket(position, rewards=(0.5, 0.5))
