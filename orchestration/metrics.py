"""What is recorded of a step: from tickets and reports to flat dicts; every name is in the README's table.

Two kinds, which never mix. Metrics follow from config and seed: in a synchronous run they are the same, byte for byte,
in every repetition and across a kill. Timings are read off a clock, or count what happened since the process began.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from learner.records import StepReport
from orchestration.buffer import GroupSummary, GroupTicket
from orchestration.weight_sync import SyncReport
from rewards.base import Reason


def step_metrics(tickets: Sequence[GroupTicket], report: StepReport, sync: SyncReport) -> dict[str, float]:
    """What the step was about: rewards, lengths, staleness, the learner's report, the comparison after the sync."""
    summaries = [ticket.summary for ticket in tickets]
    num_completions = max(1, sum(len(s.reasons) for s in summaries))
    num_tokens = _num_tokens(tickets)
    metrics = {
        **reward_metrics(tickets),
        "rollout/num_tokens": float(num_tokens),
        "rollout/completion_tokens_mean": num_tokens / num_completions,
        "rollout/truncated_frac": sum(s.num_truncated for s in summaries) / num_completions,
        "reward/failed_frac": sum(len(s.failures) for s in summaries) / num_completions,
        "staleness/mean": mean(sync.version - 1 - s.weight_version for s in summaries),
        "staleness/max": float(max((sync.version - 1 - s.weight_version for s in summaries), default=0)),
        **report.metrics,
    }
    if sync.mismatch is not None:
        metrics["sync/mismatch"] = sync.mismatch
    if sync.num_compared:
        metrics["sync/num_compared_tensors"] = float(sync.num_compared)
    return metrics


def step_timings(
    tickets: Sequence[GroupTicket],
    report: StepReport,
    sync: SyncReport,
    seconds: Mapping[str, float],
    *,
    counts: Mapping[str, float],
) -> dict[str, float]:
    """How long the step took, and what this process has counted so far.

    Args:
        tickets: Of the step.
        report: Of the learner, with its seconds by phase.
        sync: Of the publication after it.
        seconds: Of the driver's phases; together they are the step.
        counts: Since the process began, by metric name.
    """
    step_s = sum(seconds.values())
    return {
        "rollout/tokens_per_s": _num_tokens(tickets) / step_s,
        "rollout/group_s_mean": mean(ticket.summary.rollout_s for ticket in tickets),
        "reward/score_s_mean": mean(ticket.summary.score_s for ticket in tickets),
        **counts,
        **{f"time/{name}_s": value for name, value in report.seconds.items()},
        **{f"time/{name}_s": value for name, value in seconds.items()},
        "time/transfer_s": sync.transfer_s,
        "time/step_s": step_s,
    }


def _num_tokens(tickets: Sequence[GroupTicket]) -> int:
    return sum(ticket.summary.num_completion_tokens for ticket in tickets)


def reward_metrics(tickets: Sequence[GroupTicket]) -> dict[str, float]:
    """Reward statistics: over all groups, by reward function with the reasons of what earned less, and by source."""
    summaries = [ticket.summary for ticket in tickets]
    metrics = {
        "reward/mean": mean(r for s in summaries for r in s.rewards),
        "reward/format/mean": mean(r for s in summaries for r in s.format_rewards),
        "reward/group_std_mean": mean(pstdev(s.rewards) for s in summaries if s.rewards),
    }
    for family, members in sorted(_grouped(summaries, lambda s: s.family).items()):
        metrics[f"reward/{family}/mean"] = mean(r for s in members for r in s.rewards)
        metrics[f"reward/{family}/task_mean"] = mean(r for s in members for r in s.task_rewards)
        metrics[f"reward/{family}/num_groups"] = float(len(members))
        reasons = Counter(reason for s in members for reason in s.reasons)
        for reason, count in sorted(reasons.items()):
            if reason != Reason.OK:
                metrics[f"reason/{family}/{reason}"] = count / reasons.total()
    for source, members in sorted(_grouped(summaries, lambda s: s.source).items()):
        metrics[f"source/{source}/reward_mean"] = mean(r for s in members for r in s.rewards)
    return metrics


def _grouped(summaries: Iterable[GroupSummary], key: Callable[[GroupSummary], str]) -> dict[str, list[GroupSummary]]:
    groups: dict[str, list[GroupSummary]] = defaultdict(list)
    for summary in summaries:
        groups[key(summary)].append(summary)
    return groups


def mean(values: Iterable[float]) -> float:
    """Mean, 0 for nothing."""
    found = list(values)
    return fmean(found) if found else 0.0
