"""What tests of the whole job share."""

import os
from pathlib import Path

import pytest

# Ray settles once a process whether it wants a token, which it does where one lies in the home folder; tests that start
# nodes by hand have none.
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo artifacts, made once for all tests."""
    return tmp_path_factory.mktemp("cache")
