"""Completions without a reward: what a run keeps of them, and what its end says; none of them is scored 0."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from orchestration.storage.files import read_json_lines
from orchestration.workers.tickets import StepGroups
from rewards.core.base import Reason

MOST_CAUSES = 5
"""Causes that are kept of one step, function and reason; a cause may hold a traceback of thousands of characters."""
_FAILURES = frozenset(reason.value for reason in Reason if reason.is_failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCompletions:
    """Completions of a step for which one reward function has no value, for one reason; a line of failures.jsonl.

    Example:
        >>> failed = FailedCompletions(step=3, function="mine", reason="not_finite", num_completions=2,
        ...                            sample_id="7f", causes=("mine: returned nan; return a number in [0, 1]",))
        >>> failed_text(count_failed([failed]))
        'mine 2 not_finite'
    """

    step: int
    """Counted from 0."""
    function: str
    """As metrics call it; those of a sum are joined: chart+mine."""
    reason: str
    """A word of rewards.core.base.Reason."""
    num_completions: int
    sample_id: str
    """The row of the first of them."""
    causes: Sequence[str]
    """The first MOST_CAUSES different ones, with tracebacks of functions of the user's."""


def failed_completions(groups: StepGroups) -> list[FailedCompletions]:
    """Return the completions of a step's groups that have no reward, replaced groups among them."""
    causes: dict[tuple[str, str], list[str]] = defaultdict(list)
    rows: dict[tuple[str, str], str] = {}
    for ticket in (*groups.tickets, *groups.replaced):
        summary = ticket.summary
        reasons = [reason for reason in summary.reasons if reason in _FAILURES]
        for reason, cause in zip(reasons, summary.failures, strict=True):
            rows.setdefault((summary.function, reason), ticket.sample_id)
            causes[summary.function, reason].append(cause)
    return [
        FailedCompletions(
            step=groups.step,
            function=function,
            reason=reason,
            num_completions=len(found),
            sample_id=rows[function, reason],
            causes=tuple(dict.fromkeys(found))[:MOST_CAUSES],
        )
        for (function, reason), found in sorted(causes.items())
    ]


def read_failed(path: Path) -> list[FailedCompletions]:
    """Return what a run has kept of all its steps, in order; empty where every completion has a reward."""
    names = [field.name for field in fields(FailedCompletions)]
    return [FailedCompletions(**record) for record in read_json_lines(path, *names)]


def count_failed(failed: Iterable[FailedCompletions]) -> Counter[tuple[str, str]]:
    """Return the number of completions by reward function and reason."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in failed:
        counts[one.function, one.reason] += one.num_completions
    return counts


def failed_text(counts: Mapping[tuple[str, str], int]) -> str:
    """Return the counts in words.

    Example:
        >>> failed_text({("mine", "function_raised"): 7, ("mine", "not_finite"): 1, ("math", "grader_failed"): 2})
        'math 2 grader_failed; mine 7 function_raised, 1 not_finite'
    """
    by_function: dict[str, list[str]] = defaultdict(list)
    for (function, reason), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        by_function[function].append(f"{count} {reason}")
    return "; ".join(f"{function} {', '.join(found)}" for function, found in by_function.items())
