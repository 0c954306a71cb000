"""What tests of the whole job share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo artifacts, made once for all tests."""
    return tmp_path_factory.mktemp("cache")
