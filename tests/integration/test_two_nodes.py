"""A run over two Ray nodes: its actors stand on both, and it outlives the second one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray

from orchestration.cli import compose
from orchestration.cluster.process import Placement
from orchestration.cluster.ray_errors import translating
from orchestration.cluster.reservations import actors_reserved
from orchestration.cluster.session import leave_ray
from orchestration.inputs.machine import build_config
from orchestration.settings.errors import ConfigError, PayloadLostError, RewardLostError
from orchestration.storage.faults import Role
from orchestration.workers.learner_actor import lost_among
from tests.integration.driver import Driver
from tests.integration.two_nodes import ENVIRONMENT, TwoNodes, two_nodes

CLASSES = ("EngineActor", "RewardActor", "LearnerActor")
NUM_STEPS = 6
GROUPS_PER_STEP = 4


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoNodes]:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    with two_nodes(head_cpus=6, second_cpus=6) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo artifacts, made once for the module."""
    return tmp_path_factory.mktemp("cache")


def drive(folder: Path, cache: Path, nodes: TwoNodes, *more: str) -> Driver:
    """Two engines, two reward actors and one learner rank on both nodes, with rollout a step ahead."""
    return Driver(
        folder,
        "train",
        "experiment=cpu_smoke",
        f"run_dir={folder / 'run'}",
        f"cache_dir={cache}",
        f"cluster.address={nodes.address}",
        "rollout.engines=2",
        "cluster.reward_pool.num_actors=2",
        "cluster.faults.heartbeat_s=1",
        f"training.num_steps={NUM_STEPS}",
        f"training.groups_per_step={GROUPS_PER_STEP}",
        *more,
    )


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def positions_of(ledger: list[dict]) -> list[int]:
    """Every position that a step used up, whatever became of it."""
    return [entry[0] for line in ledger for part in ("trained", "replaced", "dropped") for entry in line[part]]


@pytest.mark.slow
def test_actors_stand_on_both_nodes_and_the_learner_beside_the_driver(
    tmp_path: Path, cache: Path, nodes: TwoNodes
) -> None:
    driver = drive(tmp_path, cache, nodes)
    driver.wait_for(tmp_path / "run" / "metrics.jsonl", 1)
    for name in ("EngineActor", "RewardActor"):
        assert [len(node.actors(name)) for node in (nodes.head, nodes.second)] == [1, 1]
    assert [len(node.actors("LearnerActor")) for node in (nodes.head, nodes.second)] == [1, 0]
    assert driver.finish() == 0, driver.output
    assert driver.leftovers() == []
    assert [node.actors(name) for node in (nodes.head, nodes.second) for name in CLASSES] == [[]] * 6


@pytest.mark.slow
def test_a_run_outlives_a_node_and_misses_no_position(tmp_path: Path, cache: Path, nodes: TwoNodes) -> None:
    driver = drive(tmp_path, cache, nodes)
    driver.wait_for(tmp_path / "run" / "metrics.jsonl", 2)
    assert nodes.second.actors("EngineActor")
    nodes.second.kill()
    assert driver.finish() == 0, driver.output
    assert driver.leftovers() == []
    assert [step["step"] for step in lines_of(tmp_path / "run" / "metrics.jsonl")] == list(range(NUM_STEPS))
    used = positions_of(lines_of(tmp_path / "run" / "ledger.jsonl"))
    assert sorted(used) == list(range(NUM_STEPS * GROUPS_PER_STEP))
    roles = {fault["role"] for fault in lines_of(tmp_path / "run" / "faults.jsonl")}
    assert Role.ENGINE in roles
    assert Role.LEARNER not in roles


@ray.remote
class Maker:
    """Makes what is large enough to stay on the node where it is made."""

    @ray.method(num_returns=2)
    def make(self) -> tuple[NDArray[np.uint8], int]:
        return np.zeros(1 << 20, np.uint8), os.getpid()

    def size(self, array: NDArray[np.uint8]) -> int:
        return array.nbytes

    def lost(self, payloads: list[ray.ObjectRef]) -> list[int]:
        return lost_among(payloads)


def options(node: str) -> dict:
    """An actor as a run starts it, but on one node."""
    return {**Placement(num_gpus=0, cores=(), threads=1).actor_options(), "resources": {node: 0.01}}


@pytest.mark.slow
def test_with_a_node_go_its_actors_and_what_only_it_held(nodes: TwoNodes) -> None:
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        here, there = (Maker.options(**options(name)).remote() for name in ("head", "second"))
        lost, made_there = there.make.remote()
        kept, made_here = here.make.remote()
        ray.get([made_there, made_here])
        nodes.second.kill()
        with pytest.raises(RewardLostError), translating(Role.REWARD, 1):
            ray.get(there.size.remote(kept))
        with pytest.raises(PayloadLostError) as caught, translating(Role.REWARD, 0):
            ray.get(here.size.remote(lost))
        assert caught.value.object_id == lost.hex()
        assert ray.get(here.size.remote(kept)) == 1 << 20
        assert ray.get(here.lost.remote([kept, lost, kept])) == [1]
        assert ray.get(here.lost.remote([])) == []
    finally:
        leave_ray()


@pytest.mark.slow
def test_a_cluster_with_too_few_cores_is_refused_at_once(tmp_path: Path, nodes: TwoNodes) -> None:
    settings = [f"cluster.address={nodes.address}", "cluster.reward_pool.num_actors=20", f"run_dir={tmp_path}"]
    config = build_config(compose(settings))
    refusal = r"no room for 10 of 20 reward actors.*each actor reserves a core.*Lower cluster.reward_pool.num_actors"
    with pytest.raises(ConfigError, match=refusal), actors_reserved(config, tmp_path / "logs"):
        pass
