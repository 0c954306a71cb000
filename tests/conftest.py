"""How the suite is spread over processes."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """Keep the tests of a file in one process, for its fixtures, and those that start Ray in one, for their memory."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "integration" if file.startswith("tests/integration/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Return what hands out tests under `pytest -n`."""
    return ByFile(config, log)
