"""The reward pool on real Ray actors: an actor that is killed, one that hangs, and a table that nobody copies."""

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

from orchestration.config import RewardPoolConfig
from orchestration.errors import ScoringError
from orchestration.pools.rewards import RewardPool

TABLE_ROWS, TABLE_WIDTH = 40_000, 512


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20)
    yield
    ray.shutdown()


@ray.remote
class Scorer:
    """Stands where a reward actor stands; a group is (name, what happens, folder of marks)."""

    def ready(self) -> int:
        return os.getpid()

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


def score_all(groups: list[tuple[str, str, Path]], **settings: Any) -> tuple[list[Any], int]:
    """Give the summary or the error of every group, and how many actors were replaced."""

    async def scenario() -> tuple[list[Any], int]:
        pool = RewardPool(lambda _: Scorer.remote(), RewardPoolConfig(**settings))
        await pool.ready()
        calls = (pool.score(ray.put(group), keep_texts=False) for group in groups)
        done = await asyncio.gather(*calls, return_exceptions=True)
        pool.close()
        return [one if isinstance(one, BaseException) else one[1] for one in done], pool.num_restarts

    return asyncio.run(scenario())


@pytest.mark.parametrize("event", ["dies_once", "hangs_once"])
def test_a_lost_actor_is_replaced_and_its_group_scored_all_the_same(cluster: None, tmp_path: Path, event: str) -> None:
    groups = [(f"g{i}", event if i == 3 else "fine", tmp_path) for i in range(12)]
    done, num_restarts = score_all(groups, num_actors=2, calls_per_actor=2, timeout_s=15.0)
    assert done == [f"summary of g{i}" for i in range(12)]
    assert num_restarts == 1


def test_a_group_that_always_kills_is_given_up_and_the_others_are_scored(cluster: None, tmp_path: Path) -> None:
    groups = [(f"g{i}", "always_dies" if i == 2 else "fine", tmp_path) for i in range(8)]
    done, num_restarts = score_all(groups, num_actors=2, calls_per_actor=2, timeout_s=60.0)
    assert isinstance(done.pop(2), ScoringError)
    assert done == [f"summary of g{i}" for i in range(8) if i != 2]
    assert num_restarts == 2


@ray.remote
class Reader:
    """Maps the table as a reward actor does and reads all of it."""

    def growth_kib(self, folder: Path) -> int:
        """Memory of the process's own that reading every row costs; pages of the file are not its own."""
        from rewards.embedding_table import EmbeddingTable

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
