"""Step metrics: from tickets and reports to one flat dict; every name is in the README's table."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev

from learner.records import StepReport
from orchestration.buffer import GroupTicket
from orchestration.weight_sync import SyncReport


def step_metrics(
    tickets: Sequence[GroupTicket],
    report: StepReport,
    sync: SyncReport,
    seconds: dict[str, float],
    *,
    counts: dict[str, float],
) -> dict[str, float]:
    """Join everything known of a step into path-like names."""
    summaries = [ticket.summary for ticket in tickets]
    num_completions = max(1, sum(len(s.reasons) for s in summaries))
    num_tokens = sum(s.num_completion_tokens for s in summaries)
    step_s = sum(seconds.values())
    metrics = {
        **reward_metrics(tickets),
        "rollout/num_tokens": float(num_tokens),
        "rollout/tokens_per_s": num_tokens / step_s,
        "rollout/completion_tokens_mean": num_tokens / num_completions,
        "rollout/truncated_frac": sum(s.num_truncated for s in summaries) / num_completions,
        "rollout/group_s_mean": mean(s.rollout_s for s in summaries),
        "reward/failed_frac": sum(len(s.failures) for s in summaries) / num_completions,
        "staleness/mean": mean(sync.version - 1 - s.weight_version for s in summaries),
        "staleness/max": float(max((sync.version - 1 - s.weight_version for s in summaries), default=0)),
        **counts,
        **report.metrics,
        **{f"time/{name}_s": value for name, value in report.seconds.items()},
        **{f"time/{name}_s": value for name, value in seconds.items()},
        "time/transfer_s": sync.transfer_s,
        "time/step_s": step_s,
    }
    if sync.mismatch is not None:
        metrics["sync/mismatch"] = sync.mismatch
    if sync.num_compared:
        metrics["sync/num_compared_tensors"] = float(sync.num_compared)
    return metrics


def reward_metrics(tickets: Sequence[GroupTicket]) -> dict[str, float]:
    """Reward statistics, over all groups and by reward function."""
    by_family: dict[str, list[GroupTicket]] = defaultdict(list)
    for ticket in tickets:
        by_family[ticket.summary.family].append(ticket)
    metrics = {
        "reward/mean": mean(r for t in tickets for r in t.summary.rewards),
        "reward/format/mean": mean(r for t in tickets for r in t.summary.format_rewards),
        "reward/group_std_mean": mean(pstdev(t.summary.rewards) for t in tickets if t.summary.rewards),
    }
    for family, members in sorted(by_family.items()):
        metrics[f"reward/{family}/mean"] = mean(r for t in members for r in t.summary.rewards)
        metrics[f"reward/{family}/task_mean"] = mean(r for t in members for r in t.summary.task_rewards)
        metrics[f"reward/{family}/num_groups"] = float(len(members))
    return metrics


def mean(values: Iterable[float]) -> float:
    """Mean, 0 for nothing."""
    found = list(values)
    return fmean(found) if found else 0.0
