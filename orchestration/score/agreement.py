"""How a file's rewards agree with a verdict that stands in one of its columns: another scorer's, or a reader's."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.base import RewardResult

NUM_EXAMPLES = 3
RIGHT_FROM = 0.5
"""Values from here on, of either side, say right."""


@dataclass(slots=True)
class Agreement:
    """Counts rows by both verdicts, and keeps examples of each kind of disagreement.

    Rows whose column holds neither a truth value nor a number in [0, 1] state nothing; they are counted apart.
    """

    column: str
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
        task, is_right = str(fields["task"]), verdict >= RIGHT_FROM
        self._num_rows[task] += 1
        value = result.task_reward
        if value is not None and (value >= RIGHT_FROM) == is_right:
            self._num_agree[task] += 1
            return
        said = "no reward" if value is None else "paid" if value >= RIGHT_FROM else "not paid"
        kind = f"{said}, {self.column} says {'right' if is_right else 'wrong'}"
        response = str(fields["response"]).rpartition("<answer>")[2].removesuffix("</answer>")
        example = f"{row_id}: {_shortened(response)} against {_shortened(str(fields.get('answer', '')))}"
        self._disagreements[task, kind, result.reason.value].append(example)

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
