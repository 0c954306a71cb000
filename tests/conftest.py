"""How the suite is spread over processes."""

import pytest


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, for its fixtures, and those that start Ray in one, for their memory."""
    for item in items:
        place = "integration" if "integration" in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(place))
