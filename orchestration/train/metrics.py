"""What is recorded of a step: from tickets and reports to flat dicts; every name is in the README's table.

Two kinds, which never mix. Metrics follow from config and seed: in a synchronous run they are the same, byte for byte,
in every repetition and across a kill. Timings are read off a clock, or count what happened since the process began.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from learner.records import StepReport
from orchestration.workers.judge_counts import judge_counts
from orchestration.workers.tickets import GroupSummary, GroupTicket, StepGroups
from orchestration.workers.weight_sync import SyncReport
from rewards.core.base import Reason


def step_metrics(
    groups: StepGroups, report: StepReport, sync: SyncReport | None, mismatch: float | None
) -> dict[str, float]:
    """Return rewards, lengths, staleness, the learner's report, and the comparison after the publication of weights."""
    summaries = groups.summaries
    num_completions = max(1, sum(len(s.reasons) for s in summaries))
    num_tokens = _num_tokens(summaries)
    metrics = {
        **reward_metrics(groups.tickets),
        **pipeline_metrics(groups),
        "rollout/num_tokens": float(num_tokens),
        "rollout/completion_tokens_mean": num_tokens / num_completions,
        "rollout/truncated_frac": sum(s.num_truncated for s in summaries) / num_completions,
        "reward/failed_frac": sum(len(s.failures) for s in summaries) / num_completions,
        **report.metrics,
    }
    if mismatch is not None:
        metrics["sync/mismatch"] = mismatch
    if sync is not None and sync.num_compared:
        metrics["sync/num_compared_tensors"] = float(sync.num_compared)
    return metrics


def pipeline_metrics(groups: StepGroups) -> dict[str, float]:
    """Return how old a step's completions are, and what became of the positions that it used up."""
    summaries = groups.summaries
    staleness = [groups.step - s.weight_version for s in summaries]
    metrics = {
        "staleness/mean": mean(staleness),
        "staleness/max": float(max(staleness, default=0)),
        "staleness/spanning_frac": sum(s.num_spanning for s in summaries)
        / max(1, sum(len(s.reasons) for s in summaries)),
        "rollout/num_dropped": float(len(groups.dropped)),
        "rollout/num_replaced": float(len(groups.replaced)),
        "rollout/num_carried": float(groups.num_carried),
    }
    for function, count in sorted(Counter(ticket.summary.function for ticket in groups.replaced).items()):
        metrics[f"rollout/num_replaced/{function}"] = float(count)
    return metrics


def step_timings(
    groups: StepGroups,
    report: StepReport,
    sync: SyncReport,
    seconds: Mapping[str, float],
    *,
    counts: Mapping[str, float],
) -> dict[str, float]:
    """Return how long the step took, and what this process has counted so far.

    `seconds` are those of the driver's phases, which together are the step; `counts` are since the process began.
    """
    step_s = sum(seconds.values())
    return {
        "rollout/tokens_per_s": _num_tokens(groups.summaries) / step_s,
        "rollout/num_aborted_tokens": float(sum(summary.num_aborted_tokens for summary in groups.summaries)),
        "rollout/group_s_mean": mean(summary.rollout_s for summary in groups.summaries),
        "reward/score_s_mean": mean(summary.score_s for summary in groups.summaries),
        **judge_counts(ticket.summary for ticket in (*groups.tickets, *groups.replaced)),
        **counts,
        **{f"time/{name}_s": value for name, value in report.seconds.items()},
        **{f"time/{name}_s": value for name, value in seconds.items()},
        "sync/sent_bytes": float(sync.num_bytes),
        "time/transfer_s": sync.transfer_s,
        "time/step_s": step_s,
    }


def _num_tokens(summaries: Iterable[GroupSummary]) -> int:
    return sum(summary.num_completion_tokens for summary in summaries)


def reward_metrics(tickets: Sequence[GroupTicket]) -> dict[str, float]:
    """Return reward statistics over all groups, by reward function with the reasons of low rewards, and by source."""
    summaries = [ticket.summary for ticket in tickets]
    metrics = {
        "reward/mean": mean(r for s in summaries for r in s.rewards),
        "reward/format/mean": mean(r for s in summaries for r in s.format_rewards),
        "reward/group_std_mean": mean(pstdev(s.rewards) for s in summaries if s.rewards),
    }
    for function, members in sorted(_grouped(summaries, lambda s: s.function).items()):
        metrics[f"reward/{function}/mean"] = mean(r for s in members for r in s.rewards)
        metrics[f"reward/{function}/task_mean"] = mean(r for s in members for r in s.task_rewards)
        metrics[f"reward/{function}/num_groups"] = float(len(members))
        reasons = Counter(reason for s in members for reason in s.reasons)
        for reason, count in sorted(reasons.items()):
            if reason != Reason.OK:
                metrics[f"reason/{function}/{reason}"] = count / reasons.total()
    values: dict[str, list[float]] = defaultdict(list)
    for name, of_group in (part for s in summaries for part in s.parts):
        values[name] += of_group
    for name, found in sorted(values.items()):
        metrics[f"reward/{name}/part_mean"] = mean(found)
    for source, members in sorted(_grouped(summaries, lambda s: s.source).items()):
        metrics[f"source/{source}/reward_mean"] = mean(r for s in members for r in s.rewards)
    return metrics


def _grouped(summaries: Iterable[GroupSummary], key: Callable[[GroupSummary], str]) -> dict[str, list[GroupSummary]]:
    groups: dict[str, list[GroupSummary]] = defaultdict(list)
    for summary in summaries:
        groups[key(summary)].append(summary)
    return groups


def mean(values: Iterable[float]) -> float:
    """Return the mean; 0 for no values."""
    found = list(values)
    return fmean(found) if found else 0.0
