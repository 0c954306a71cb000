"""Largest differences that numerics tests met: compared in tests, and printed in tables at the end of a run.

What a test compares goes into its report, so that the tables are whole when several processes run the tests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PROPERTY = "differences"
"""Name under which the rows of a test stand in its report."""


@dataclass(kw_only=True)
class Row:
    """One comparison: what is compared and of which model, or a fact that is no difference."""

    what: str
    model: str
    tolerance: float = 0.0
    largest: float = 0.0
    num_compared: int = 0
    fact: str = ""


class Differences:
    """Compares, fails where a difference is above its tolerance, and remembers the largest."""

    def __init__(self, properties: list[tuple[str, Any]]) -> None:
        """Start with nothing compared; rows are appended to the properties of a test."""
        self._properties = properties
        self._rows: dict[tuple[str, str], Row] = {}

    def check(self, what: str, model: str, found: object, expected: object, *, atol: float) -> None:
        """Compare arrays, tensors, numbers, or mappings of them by name."""
        if isinstance(expected, Mapping):
            assert isinstance(found, Mapping)
            assert found.keys() == expected.keys()
            for name in expected:
                self.check(what, model, found[name], expected[name], atol=atol)
            return
        one, other = (_array(value) for value in (found, expected))
        assert one.shape == other.shape, f"{what}, {model}: {one.shape} against {other.shape}"
        difference = float(np.abs(one - other).max()) if one.size else 0.0
        row = self._rows.setdefault((what, model), Row(what=what, model=model, tolerance=atol))
        row.num_compared += one.size
        # A NaN must not pass: it is not at most the tolerance.
        row.largest = difference if not difference <= row.largest else row.largest
        self._write()
        assert difference <= atol, f"{what}, {model}: differs by {difference:.2e}, allowed is {atol:.0e}"

    def state(self, what: str, model: str, fact: str) -> None:
        """Show a fact that a test has asserted, say "63 tensors equal"."""
        self._rows[what, model] = Row(what=what, model=model, fact=fact)
        self._write()

    def _write(self) -> None:
        self._properties[:] = [entry for entry in self._properties if entry[0] != PROPERTY]
        self._properties.append((PROPERTY, [asdict(row) for row in self._rows.values()]))


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if hasattr(value, "detach") else value, np.float64)


def collect(reports: Iterable[Any]) -> dict[tuple[str, str], Row]:
    """Return the rows in reports of pytest, those of one comparison and model as one: the largest of them."""
    rows: dict[tuple[str, str], Row] = {}
    for report in reports:
        for name, found in getattr(report, "user_properties", []):
            for values in found if name == PROPERTY and report.when == "call" else []:
                new = Row(**values)
                row = rows.setdefault((new.what, new.model), new)
                if row is not new:
                    row.num_compared += new.num_compared
                    row.largest = new.largest if not new.largest <= row.largest else row.largest
                    row.fact = new.fact or row.fact
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Return a line for each row."""
    width = max((len(row.what) for row in rows), default=0)
    return [
        f"{row.what:<{width}}  {row.model:<11}  {row.largest:8.1e}  of {row.tolerance:.0e}  "
        f"({row.num_compared:,} numbers)"
        for row in rows
    ]
