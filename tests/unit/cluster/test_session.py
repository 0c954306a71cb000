"""A run does not outlive the Ray that it was started with."""

import asyncio
import subprocess
from types import SimpleNamespace

import pytest

from orchestration.cluster import session as cluster
from orchestration.settings.errors import RayDiedError


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """Stands for one of Ray's."""
    sleeping = subprocess.Popen(["sleep", "600"])
    node = SimpleNamespace(
        dead_processes=lambda: [(name, sleeping) for name in ("raylet",) if sleeping.poll() is not None]
    )
    monkeypatch.setattr(cluster, "global_worker", SimpleNamespace(node=node))
    monkeypatch.setattr(cluster, "CHECK_S", 0.01)
    return sleeping


def test_work_ends_when_ray_dies_under_it(process: subprocess.Popen[bytes]) -> None:
    ended: list[str] = []

    async def work() -> None:
        process.kill()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    with pytest.raises(RayDiedError, match=r"Ray's raylet on this machine ended with exit code -9.*dmesg"):
        asyncio.run(cluster.while_ray_lives(work()))
    assert ended == ["work"]


def test_work_that_ends_or_fails_by_itself_does_so_while_ray_lives(process: subprocess.Popen[bytes]) -> None:
    async def work(error: Exception | None) -> None:
        await asyncio.sleep(0.03)
        if error is not None:
            raise error

    asyncio.run(cluster.while_ray_lives(work(None)))
    with pytest.raises(KeyError):
        asyncio.run(cluster.while_ray_lives(work(KeyError("bug"))))
    process.kill()
    process.wait()
