"""Tiny model folders of every family, and a table of the largest differences that the numerics tests met."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_scenarios import live_case
from tiny_learner import FAMILIES, write_tiny_model


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
        """Return a line for each row of the table."""
        width = max((len(what) for what, _ in self.rows), default=0)
        return [
            f"{what:<{width}}  {model:<11}  {row.largest:8.1e}  of {row.tolerance:.0e}  ({row.num_compared:,} numbers)"
            for (what, model), row in self.rows.items()
        ]


DIFFERENCES = Differences()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By family: a folder with configuration, random weights and image processor."""
    folders = {family: tmp_path_factory.mktemp(f"tiny_{family}") for family in FAMILIES}
    for family, folder in folders.items():
        write_tiny_model(folder, family)
    return folders


@pytest.fixture(scope="session")
def model_path(model_paths: dict[str, Path]) -> Path:
    """The Qwen2.5-VL."""
    return model_paths["qwen2_5_vl"]


@pytest.fixture(scope="session")
def one_rank(model_paths: dict[str, Path]) -> Callable[[str], dict]:
    """A case of learner_scenarios on one rank of FSDP in this process, lived once for all tests."""
    return cache(lambda name: live_case(0, 1, 0, model_paths, name, {}))


@pytest.fixture
def differences() -> Differences:
    """Compares and remembers; the table stands at the end of the run."""
    return DIFFERENCES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of largest differences."""
    if DIFFERENCES.rows:
        terminalreporter.section("largest differences, float32")
        for line in DIFFERENCES.lines():
            terminalreporter.write_line(line)
