"""What a file of cases expects of its rows, and whether it came so: values, bounds, and relations between rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 1e-4
"""Case files print four decimals."""
EQUAL_WITHIN = 1e-6

RELATIONS = {
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other + EQUAL_WITHIN,
    "eq": lambda value, other: abs(value - other) <= EQUAL_WITHIN,
}


@dataclass(slots=True)
class Expectations:
    """Collects rows that have `expected` (a number or [low, high]) or `relation` ({lt | le | eq: id}), and judges them.

    A row with `policy: true` may differ: it is listed, and does not count as a miss.
    """

    num_checked: int = 0
    misses: list[str] = field(default_factory=list)
    policy_differences: list[str] = field(default_factory=list)
    _values: dict[str, float | None] = field(default_factory=dict)
    _relations: list[tuple[Mapping[str, Any], str, float | None]] = field(default_factory=list)

    def check(self, row_id: str, fields: Mapping[str, Any], value: float | None) -> bool | None:
        """Judge one row by its own bounds; None if it states none."""
        self._values[row_id] = value
        if fields.get("relation"):
            self._relations.append((fields, row_id, value))
        expected = fields.get("expected")
        if expected is None:
            return None
        bounds = expected if isinstance(expected, list) else [expected]
        low, high = bounds[0], bounds[-1]
        self.num_checked += 1
        holds = value is not None and low - TOLERANCE <= value <= high + TOLERANCE
        if not holds:
            self._report(fields, f"{row_id}: {_spell(value)}, expected {_spell_bounds(low, high)}")
        return holds

    def check_relations(self) -> None:
        """Judge the relations, once all rows are known."""
        for fields, row_id, value in self._relations:
            for name, other_id in fields["relation"].items():
                other = self._values.get(other_id)
                if value is None or other is None:
                    self._report(fields, f"{row_id}: relation {name} {other_id} cannot be judged")
                elif not RELATIONS[name](value, other):
                    self._report(fields, f"{row_id}: {_spell(value)} is not {name} {other_id}'s {_spell(other)}")
        self._relations.clear()

    def _report(self, fields: Mapping[str, Any], text: str) -> None:
        why = fields.get("why")
        line = f"{text} ({why})" if why else text
        (self.policy_differences if fields.get("policy") else self.misses).append(line)


def _spell(value: float | None) -> str:
    return "no value" if value is None else f"{value:.4f}"


def _spell_bounds(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
