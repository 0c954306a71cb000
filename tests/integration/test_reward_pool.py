"""The reward pool on real Ray actors: actors that are killed or hang, at work or idle, and a table nobody copies."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from safetensors.numpy import save_file

from orchestration.cluster.session import leave_ray
from orchestration.settings.cluster import RewardPoolConfig
from orchestration.settings.errors import ScoringError
from orchestration.storage.faults import FaultLog
from orchestration.workers.reward_pool import RewardPool
from tests.unit.storage.fault_limits import fault_limits

TABLE_ROWS, TABLE_WIDTH = 40_000, 512


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20)
    yield
    leave_ray()


@ray.remote(concurrency_groups={"health": 1})
class Scorer:
    """Stands where a reward actor stands; a group is (name, what happens, folder of marks)."""

    def ready(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        pass

    @ray.method(num_returns=2)
    def score(self, group: tuple[str, str, Path], keep_texts: bool) -> tuple[str, str]:
        name, event, folder = group
        mark = folder / name
        if event == "always_dies" or (event == "dies_once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "hangs_once" and not mark.exists():
            mark.touch()
            threading.Event().wait()
        return f"payload of {name}", f"summary of {name}"


def new_pool(settings: dict[str, Any], **limits: float) -> tuple[RewardPool, FaultLog]:
    faults = fault_limits(**limits)
    log = FaultLog(faults)
    return RewardPool(lambda _: Scorer.remote(), RewardPoolConfig(**settings), faults, log), log


def score_all(groups: list[tuple[str, str, Path]], **settings: Any) -> tuple[list[Any], float]:
    """Give the summary or the error of every group, and how many actors were replaced."""

    async def scenario() -> tuple[list[Any], float]:
        pool, log = new_pool(settings)
        await pool.ready()
        calls = (pool.score(ray.put(group), keep_texts=False) for group in groups)
        done = await asyncio.gather(*calls, return_exceptions=True)
        pool.close()
        return [one if isinstance(one, BaseException) else one[1] for one in done], log.counts()["faults/reward"]

    return asyncio.run(scenario())


@pytest.mark.parametrize("event", ["dies_once", "hangs_once"])
def test_a_lost_actor_is_replaced_and_its_group_scored_all_the_same(cluster: None, tmp_path: Path, event: str) -> None:
    groups = [(f"g{i}", event if i == 3 else "fine", tmp_path) for i in range(12)]
    done, num_faults = score_all(groups, num_actors=2, calls_per_actor=2, timeout_s=5.0)
    assert done == [f"summary of g{i}" for i in range(12)]
    assert num_faults == 1


def test_a_group_that_always_kills_is_given_up_and_the_others_are_scored(cluster: None, tmp_path: Path) -> None:
    groups = [(f"g{i}", "always_dies" if i == 2 else "fine", tmp_path) for i in range(8)]
    done, num_faults = score_all(groups, num_actors=2, calls_per_actor=2, timeout_s=60.0)
    assert isinstance(done.pop(2), ScoringError)
    assert done == [f"summary of g{i}" for i in range(8) if i != 2]
    # An answer that is on its way when the actor dies is lost with it, and its group looks as if it had killed once.
    assert num_faults in (2, 3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_idle_actor_that_dies_or_stops_is_replaced_before_anyone_needs_it(
    cluster: None, tmp_path: Path, number: signal.Signals
) -> None:
    async def scenario() -> None:
        pool, log = new_pool({"num_actors": 2}, heartbeat_s=0.1, heartbeat_timeout_s=2.0)
        pids = await pool.ready()
        os.kill(pids[0], number)
        async with asyncio.timeout(60.0):
            while not log.counts()["faults/reward"]:
                await asyncio.sleep(0.05)
        group = ray.put(("g", "fine", tmp_path))
        assert (await pool.score(group, keep_texts=False))[1] == "summary of g"
        pool.close()
        assert log.counts()["faults/reward"] == 1

    asyncio.run(scenario())


def test_an_actor_beats_while_it_scores(cluster: None, tmp_path: Path) -> None:
    async def scenario() -> None:
        scorer = Scorer.remote()
        await scorer.ready.remote()
        busy = scorer.score.remote(ray.put(("g", "hangs_once", tmp_path)), False)
        while not (tmp_path / "g").exists():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(30.0):
            await scorer.beat.remote()
        ray.kill(scorer)
        del busy

    asyncio.run(scenario())


@ray.remote
class Reader:
    """Maps the table as a reward actor does and reads all of it."""

    def growth_kib(self, folder: Path) -> int:
        """Memory of the process's own that reading every row costs; pages of the file are not its own."""
        from rewards.functions.embedding_table import EmbeddingTable

        table = EmbeddingTable.from_checkpoint(folder)
        before = self._own_kib()
        assert all(np.isfinite(table.rows(np.arange(i, i + 1000))).all() for i in range(0, TABLE_ROWS, 1000))
        return self._own_kib() - before

    def _own_kib(self) -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def test_actors_share_the_pages_of_one_embedding_table(cluster: None, tmp_path: Path) -> None:
    table = {"model.embed_tokens.weight": np.zeros((TABLE_ROWS, TABLE_WIDTH), np.float16)}
    save_file(table, tmp_path / "model.safetensors")
    readers = [Reader.remote(), Reader.remote()]
    growth_kib = ray.get([reader.growth_kib.remote(tmp_path) for reader in readers])
    assert max(growth_kib) < TABLE_ROWS * TABLE_WIDTH * 2 // 1024 / 4
