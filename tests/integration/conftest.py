"""What tests of the whole job share."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.driver import STARTED

# Ray settles once a process whether it wants a token; this one joins clusters of tests that have none. Processes that
# tests start are told what they shall have: see `token`.
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Demo artifacts, made once for all tests of all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Token in the home folder of all processes that a test starts, as `ray get-auth-token --generate` leaves it."""
    made = secrets.token_hex(32)
    file = tmp_path / "home" / ".ray" / "auth_token"
    file.parent.mkdir(parents=True)
    file.write_text(made)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    return made


@pytest.fixture(autouse=True)
def _end_commands() -> Iterator[None]:
    """A test that fails half-way leaves no command running."""
    yield
    while STARTED:
        STARTED.pop().end()
