"""Summary of a scored file: counts by task, misses of expected values, agreement with another verdict."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestration.page.formatting import NO_NAME
from rewards.core.base import Reason, RewardResult
from rewards.core.config import DEFAULT_FORMAT, FormatConfig
from rewards.core.envelope import extract_answer

NUM_REASONS = 3
HEAD = ["task", "rows", "reward", "task reward", "format", "zero share", "parse failures", "failed", "reasons"]
TOLERANCE = 1e-4
"""Case files print four decimals."""
EQUAL_WITHIN = 1e-6
RELATIONS = {
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other + EQUAL_WITHIN,
    "eq": lambda value, other: abs(value - other) <= EQUAL_WITHIN,
}
NUM_EXAMPLES = 3
RIGHT_FROM = 0.5
"""Values from here on, of either side, mean right."""


class Summary:
    """Counts by task, and the table of them."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, task: str, result: RewardResult) -> None:
        """Count one row; one whose reference or grader failed has no reward and enters no mean."""
        sums = self._sums[task]
        sums["rows"] += 1
        sums["format"] += result.format_reward
        sums["parse failures"] += result.reason.is_parse_failure
        if result.reason is not Reason.OK:
            self._reasons[task][result.reason.value] += 1
        if result.reward is None or result.task_reward is None:
            sums["failed"] += 1
            return
        sums["graded"] += 1
        sums["reward"] += result.reward
        sums["task reward"] += result.task_reward
        sums["zero share"] += result.task_reward == 0.0

    def table(self) -> str:
        """Return aligned lines, one a task, tasks in order of name."""
        lines = [HEAD, *(self._cells(task) for task in sorted(self._sums))]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        return "\n".join(_aligned(line, widths) for line in lines)

    def _cells(self, task: str) -> list[str]:
        sums, reasons = self._sums[task], self._reasons[task].most_common(NUM_REASONS)
        return [
            task or NO_NAME,
            f"{sums['rows']:.0f}",
            *(_share(sums[name], sums["graded"]) for name in ("reward", "task reward")),
            _share(sums["format"], sums["rows"]),
            _share(sums["zero share"], sums["graded"]),
            *(f"{sums[name]:.0f}" for name in ("parse failures", "failed")),
            ", ".join(f"{reason} {count}" for reason, count in reasons),
        ]


def _aligned(line: list[str], widths: list[int]) -> str:
    first, *middle, last = line
    numbers = (cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True))
    return "  ".join([first.ljust(widths[0]), *numbers, last]).rstrip()


def _share(total: float, count: float) -> str:
    return f"{total / count:.3f}" if count else "-"


@dataclass(slots=True)
class Expectations:
    """Checks rows that have `expected` (a number or [low, high]) or `relation` ({lt | le | eq: id}).

    A row with `policy: true` may differ: it is listed, and does not count as a miss.
    """

    num_checked: int = 0
    """Rows with either."""
    misses: list[str] = field(default_factory=list)
    policy_differences: list[str] = field(default_factory=list)
    _values: dict[str, float | None] = field(default_factory=dict)
    _repeated: set[str] = field(default_factory=set)
    """Ids of several rows, which no relation can name."""
    _relations: list[tuple[Mapping[str, Any], str, float | None]] = field(default_factory=list)

    def check(self, row_id: str, fields: Mapping[str, Any], value: float | None) -> bool | None:
        """Return whether the value is within the bounds of its row; None if the row has none."""
        if row_id in self._values:
            self._repeated.add(row_id)
        self._values[row_id] = value
        if fields.get("relation"):
            self._relations.append((fields, row_id, value))
        expected = fields.get("expected")
        if expected is not None or fields.get("relation"):
            self.num_checked += 1
        if expected is None:
            return None
        bounds = expected if isinstance(expected, list) else [expected]
        low, high = bounds[0], bounds[-1]
        holds = value is not None and low - TOLERANCE <= value <= high + TOLERANCE
        if not holds:
            self._report(fields, f"{row_id}: {_format(value)}, expected {_format_bounds(low, high)}")
        return holds

    def check_relations(self) -> None:
        """Check the relations, once all rows are known."""
        for fields, row_id, value in self._relations:
            for name, other_id in fields["relation"].items():
                other = self._values.get(other_id)
                if other_id in self._repeated:
                    self._report(fields, f"{row_id}: relation {name} {other_id} names several rows; give each its id")
                elif value is None or other is None:
                    self._report(fields, f"{row_id}: relation {name} {other_id} cannot be judged")
                elif not RELATIONS[name](value, other):
                    self._report(fields, f"{row_id}: {_format(value)} is not {name} {other_id}'s {_format(other)}")
        self._relations.clear()

    def report(self) -> str:
        """Return how many rows state what they expect, and which differ; empty where none does."""
        if not self.num_checked:
            return ""
        policy = f", {len(self.policy_differences)} policy differences" if self.policy_differences else ""
        lines = [f"{self.num_checked} rows state what they expect: {len(self.misses)} misses{policy}"]
        lines += [f"  miss    {line}" for line in self.misses]
        lines += [f"  policy  {line}" for line in self.policy_differences]
        return "\n".join(lines) + "\n"

    def _report(self, fields: Mapping[str, Any], text: str) -> None:
        why = fields.get("why")
        line = f"{text} ({why})" if why else text
        (self.policy_differences if fields.get("policy") else self.misses).append(line)


def _format(value: float | None) -> str:
    return "no value" if value is None else f"{value:.4f}"


def _format_bounds(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


@dataclass(slots=True)
class Agreement:
    """Compares rewards with the verdict in a column: another scorer's, or a reader's.

    Rows whose column holds neither a truth value nor a number in [0, 1] have no verdict; they are counted apart.
    """

    column: str
    form: FormatConfig = DEFAULT_FORMAT
    """Form of the responses."""
    num_silent: int = 0
    _num_rows: Counter[str] = field(default_factory=Counter)
    _num_agree: Counter[str] = field(default_factory=Counter)
    _disagreements: defaultdict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row_id: str, fields: Mapping[str, Any], result: RewardResult) -> None:
        """Count one row."""
        verdict = fields.get(self.column)
        if not isinstance(verdict, (bool, int, float)) or not 0 <= verdict <= 1:
            self.num_silent += 1
            return
        task, is_right = str(fields["task"]) or NO_NAME, verdict >= RIGHT_FROM
        self._num_rows[task] += 1
        value = result.task_reward
        if value is not None and (value >= RIGHT_FROM) == is_right:
            self._num_agree[task] += 1
            return
        said = "no reward" if value is None else "paid" if value >= RIGHT_FROM else "not paid"
        kind = f"{said}, {self.column} says {'right' if is_right else 'wrong'}"
        answer = self._answer(str(fields["response"]))
        example = f"{row_id}: {_shortened(answer)} against {_shortened(str(fields.get('answer', '')))}"
        self._disagreements[task, kind, result.reason.value].append(example)

    def _answer(self, response: str) -> str:
        if self.form.style == "tags":  # also of a response that has no closed block
            return response.rpartition(self.form.answer_open)[2].removesuffix(self.form.answer_close)
        return extract_answer(response, self.form).text or response

    @property
    def num_stated(self) -> int:
        """Number of rows with a verdict."""
        return self._num_rows.total()

    def report(self) -> str:
        """Return the shares of agreement by task, then the disagreements by kind and reason, most frequent first."""
        lines = [
            f"{task}: {self._num_agree[task]} of {num_rows} rows agree with {self.column}"
            f" ({self._num_agree[task] / num_rows:.1%})"
            for task, num_rows in sorted(self._num_rows.items())
        ]
        if self.num_silent:
            lines.append(f"{self.num_silent} rows state no {self.column} (true, false, or a number from 0 to 1)")
        for (task, kind, reason), examples in sorted(
            self._disagreements.items(), key=lambda item: (-len(item[1]), item[0])
        ):
            lines.append(f"  {len(examples):5d}  {task}: {kind} (reason {reason})")
            lines.extend(f"           {example}" for example in examples[:NUM_EXAMPLES])
        return "\n".join(lines)


def _shortened(text: str, limit: int = 80) -> str:
    return repr(text) if len(text) <= limit else f"{text[:limit]!r} ..."
