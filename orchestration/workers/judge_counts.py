"""What judges were asked and what it cost: summed over groups, and as lines for the user."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from orchestration.workers.tickets import GroupSummary


def judge_counts(summaries: Iterable[GroupSummary]) -> dict[str, float]:
    """Return what judges were asked about some groups and what it cost, `judge/NAME/num_requests` and so on."""
    return sum_counts(dict(summary.counts) for summary in summaries)


def sum_counts(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sums of counts by name, names in order."""
    total: dict[str, float] = defaultdict(float)
    for one in counts:
        for name, count in one.items():
            total[name] += count
    return dict(sorted(total.items()))


def judge_lines(counts: Mapping[str, float]) -> list[str]:
    """Return a line for the user on what each judge was asked and what it cost.

    Example:
        >>> judge_lines({"judge/wise/num_requests": 8.0, "judge/wise/num_prompt_tokens": 1900.0,
        ...              "judge/wise/num_votes": 12.0, "judge/wise/num_cached": 4.0})
        ['judge wise: 8 requests, 1,900 prompt and 0 completion tokens; of 12 votes 4 were known and 0 failed']
    """
    found = []
    for name in sorted({key.split("/")[1] for key in counts}):
        of_name = defaultdict(float, {key.split("/")[2]: count for key, count in counts.items() if f"/{name}/" in key})
        found.append(
            f"judge {name}: {of_name['num_requests']:,.0f} requests, {of_name['num_prompt_tokens']:,.0f} prompt and "
            f"{of_name['num_completion_tokens']:,.0f} completion tokens; of {of_name['num_votes']:,.0f} votes "
            f"{of_name['num_cached']:,.0f} were known and {of_name['num_failed_votes']:,.0f} failed"
        )
    return found
