"""A table of the largest differences that the numerics tests met, printed at the end of their run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Row:
    """One comparison over all its tests."""

    tolerance: float
    largest: float = 0.0
    num_compared: int = 0


@dataclass
class Differences:
    """Compares, fails where a difference is above its tolerance, and remembers the largest."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)

    def check(self, what: str, model: str, found: object, expected: object, *, atol: float) -> None:
        """Compare arrays, tensors, numbers, or mappings of them by name."""
        if isinstance(expected, Mapping):
            assert isinstance(found, Mapping)
            assert found.keys() == expected.keys()
            for name in expected:
                self.check(what, model, found[name], expected[name], atol=atol)
            return
        one, other = (
            np.asarray(v.detach() if isinstance(v, torch.Tensor) else v, np.float64) for v in (found, expected)
        )
        assert one.shape == other.shape, f"{what}, {model}: {one.shape} against {other.shape}"
        difference = float(np.abs(one - other).max()) if one.size else 0.0
        row = self.rows.setdefault((what, model), Row(tolerance=atol))
        row.num_compared += one.size
        # A NaN must not pass: it is not at most the tolerance.
        row.largest = difference if not difference <= row.largest else row.largest
        assert difference <= atol, f"{what}, {model}: differs by {difference:.2e}, allowed is {atol:.0e}"

    def lines(self) -> list[str]:
        """Give the table."""
        width = max((len(what) for what, _ in self.rows), default=0)
        return [
            f"{what:<{width}}  {model:<11}  {row.largest:8.1e}  of {row.tolerance:.0e}  ({row.num_compared:,} numbers)"
            for (what, model), row in self.rows.items()
        ]


DIFFERENCES = Differences()
