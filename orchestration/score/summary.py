"""The summary of a scored file: one line a task, with what earned nothing and why."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from rewards.base import Reason, RewardResult

NUM_REASONS = 3


@dataclass(slots=True)
class TaskCounts:
    """Counts of one task."""

    num_rows: int = 0
    num_failed: int = 0
    """Rows whose reference or grader failed: they have no reward and enter no mean."""
    num_zero: int = 0
    num_parse_failures: int = 0
    reward_sum: float = 0.0
    task_sum: float = 0.0
    format_sum: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, result: RewardResult) -> None:
        """Count one row."""
        self.num_rows += 1
        self.format_sum += result.format_reward
        if result.reason is not Reason.OK:
            self.reasons[result.reason.value] += 1
        self.num_parse_failures += result.reason.is_parse_failure
        if result.reward is None or result.task_reward is None:
            self.num_failed += 1
            return
        self.reward_sum += result.reward
        self.task_sum += result.task_reward
        self.num_zero += result.task_reward == 0.0

    def cells(self, name: str) -> list[str]:
        """One line of the table."""
        graded = self.num_rows - self.num_failed
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common(NUM_REASONS))
        return [
            name,
            str(self.num_rows),
            _share(self.reward_sum, graded),
            _share(self.task_sum, graded),
            _share(self.format_sum, self.num_rows),
            _share(self.num_zero, graded),
            str(self.num_parse_failures),
            str(self.num_failed),
            reasons,
        ]


HEAD = ["task", "rows", "reward", "task reward", "format", "zero share", "parse failures", "failed", "reasons"]


class Summary:
    """Counts by task, and the table of them."""

    def __init__(self) -> None:
        """Start empty."""
        self._tasks: defaultdict[str, TaskCounts] = defaultdict(TaskCounts)

    def add(self, task: str, result: RewardResult) -> None:
        """Count one row."""
        self._tasks[task].add(result)

    def table(self) -> str:
        """Lines of equal columns, one a task, tasks in order of name."""
        lines = [HEAD, *(counts.cells(name) for name, counts in sorted(self._tasks.items()))]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: list[str], widths: list[int]) -> str:
    first, *middle, last = line
    numbers = (cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True))
    return "  ".join([first.ljust(widths[0]), *numbers, last]).rstrip()


def _share(total: float, count: int) -> str:
    return f"{total / count:.3f}" if count else "-"
