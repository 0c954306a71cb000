"""Learner actors under Ray: two ranks train on while their checkpoint is held up on its way."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from learner import checkpoint
from learner.config import AlgorithmConfig, LearnerConfig, OptimizerConfig
from learner.store import FileEntry, FileStore, open_store
from orchestration.cluster.process import Placement
from orchestration.cluster.session import leave_ray
from orchestration.storage.checkpoints import Checkpoints
from orchestration.workers.learner_actor import LearnerActor
from orchestration.workers.learner_group import LearnerGroup
from tests.unit.learner.tiny_learner import make_group, write_tiny_model
from tests.unit.storage.fault_limits import fault_limits

NUM_RANKS = 2


@pytest.fixture
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local", num_cpus=NUM_RANKS, include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20
    )
    yield
    leave_ray()


class GatedStore(FileStore):
    """Copies the random state of a rank when its gate, a named pipe beside the root, is opened."""

    def put(self, source: Path, name: str) -> FileEntry:
        if source.name.startswith("random_"):
            Path(self.root).with_name(source.stem).read_bytes()
        return super().put(source, name)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_training_goes_on_while_a_checkpoint_is_held_up_and_it_holds_the_state_of_its_staging(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    local = open_store(tmp_path / "kept")
    gates = [tmp_path / f"random_{rank:05d}" for rank in range(NUM_RANKS)]
    for gate in gates:
        os.mkfifo(gate)
    config = LearnerConfig(
        optimizer=OptimizerConfig(learning_rate=1e-3),
        algorithm=AlgorithmConfig(),
        model_path=str(tmp_path / "model"),
        num_ranks=NUM_RANKS,
    )
    placement = Placement(num_gpus=0, cores=(), threads=1)

    def start(rank: int) -> Any:
        return LearnerActor.remote(rank, config, placement, tmp_path, tmp_path / "staging")

    learner = LearnerGroup(start, stop=ray.kill, num_ranks=NUM_RANKS, faults=fault_limits())

    async def train(step: int) -> int:
        payload = [[ray.put(make_group(f"{step}-{rank}"))] for rank in range(NUM_RANKS)]
        calls = [handle.train_step.remote(step, own) for handle, own in zip(learner.handles, payload, strict=True)]
        return (await asyncio.gather(*calls))[0].weight_version

    async def live() -> None:
        await learner.build(0)
        checkpoints = Checkpoints(
            GatedStore(local.filesystem, local.root), learner, keep_last=1, keep_best=False, say=pytest.fail
        )
        assert await train(0) == 1
        await checkpoints.begin(1, extra={})
        assert await train(1) == 2
        assert await train(2) == 3
        assert checkpoint.marked_steps(local) == []

        for gate in gates:
            await asyncio.to_thread(gate.write_bytes, b"open")
        await checkpoints.settle()
        assert checkpoints.latest().weight_version == 1
        assert list((tmp_path / "staging").iterdir()) == []

        await learner.on_each("load", local, 1)
        assert await train(1) == 2
        await learner.close()

    asyncio.run(live())
