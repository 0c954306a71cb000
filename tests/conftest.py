"""The garbage collector rests while tests are collected; largest differences are printed at the end."""

import gc
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import pytest

from tests.differences import Differences, collect, table
from tests.families.matrix import COLUMNS, matrix

# Collecting imports torch, transformers and vLLM, and rewrites every assertion: nearly all of it stays, and looking
# through it for garbage again and again took two fifths of the time.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside what is there for good, and collect what tests leave."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def differences(request: pytest.FixtureRequest) -> Differences:
    """Compares and remembers; the tables stand at the end of the run."""
    return Differences(request.node.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix of families, and a table of all other comparisons."""
    rows = collect(chain.from_iterable(terminalreporter.stats.values()))
    in_matrix = {what for column in COLUMNS.values() for what in column}
    families = dict.fromkeys(model for what, model in rows if what in in_matrix)
    if lines := matrix(rows, list(families)):
        terminalreporter.section("families, largest differences")
        for line in lines:
            terminalreporter.write_line(line)
    if others := [row for row in rows.values() if row.what not in in_matrix]:
        terminalreporter.section("largest differences, float32")
        for line in table(others):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def _facts_of_models_in_this_process() -> Iterator[None]:
    """Read sizes of models here, where transformers is imported anyway, instead of in a child process each."""
    from orchestration.models import facts

    def compute(configs: list[Mapping[str, Any]]) -> list[facts.Facts]:
        from orchestration.models.meta_model import describe

        return [describe(json.loads(json.dumps(config))) for config in configs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "compute", compute)
        yield
