"""The groups of a run in a real Ray cluster whose GPUs are numbers only: who stands where, and with what."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from orchestration.cluster.layout import RankDevices, colocated_devices, ranks_under
from orchestration.cluster.reservations import Reservations, actors_reserved, reserved
from orchestration.cluster.session import leave_ray
from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import ConfigError, InfrastructureError
from orchestration.settings.experiment import ExperimentConfig
from tests.integration.gpu_nodes import GPUS, gpu_nodes
from tests.integration.probe import Place, Probe
from tests.integration.two_nodes import ENVIRONMENT
from tests.unit.cluster.machines import colocated, run_on_gpus, sharing

KINDS = "cluster.nodes=[" + ",".join(
    f"{{count:1,gpus:{gpus},gpu:null,cpus:4,memory_gib:1,roles:[{role}],resource:{mark}}}"
    for mark, role, gpus in (("fast", "learner", GPUS), ("cheap", "engine", GPUS), ("plain", "reward", 0))
) + "]"  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in ENVIRONMENT.items():
            patch.setenv(key, value)
        with gpu_nodes() as cluster:
            yield cluster


def configure(cluster: Cluster, folder: Path, *more: str, **sizes: int) -> ExperimentConfig:
    return run_on_gpus(folder, **sizes, more=(f"cluster.address={cluster.address}", *more))


def probe(reservations: Reservations, role: ActorRole, index: int) -> Any:
    variables = reservations.placements[role][index].variables
    return Probe.options(**reservations.options(role, index)).remote(variables)


def places(reservations: Reservations, role: ActorRole) -> list[Place]:
    actors = [probe(reservations, role, index) for index in range(len(reservations.placements[role]))]
    return ray.get([actor.place.remote() for actor in actors])


def node_of(mark: str) -> str:
    return next(node["NodeID"] for node in ray.nodes() if mark in node["Resources"])


def until_all_is_free() -> None:
    """Ray gives back what was reserved soon after it is told to."""
    totals = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    deadline = time.monotonic() + 30.0
    while any(
        free.get(kind, 0) != totals[node].get(kind, 0)
        for node, free in available_resources_per_node().items()
        for kind in ("CPU", "GPU")
    ):
        assert time.monotonic() < deadline, available_resources_per_node()
        time.sleep(0.1)


def test_every_actor_lands_where_the_layout_says_and_nothing_remains(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    config = configure(cluster, tmp_path, KINDS, ranks=4, engines=2, width=2)
    with actors_reserved(config, tmp_path / "logs") as reservations:
        ranks, engines, rewards = (places(reservations, role) for role in ("learner", "engine", "reward"))
        fast, cheap, plain = (node_of(mark) for mark in ("fast", "cheap", "plain"))
        assert [(rank.node_id, rank.gpus) for rank in ranks] == [(fast, (str(gpu),)) for gpu in range(4)]
        assert [(engine.node_id, engine.gpus) for engine in engines] == [(cheap, ("0", "1")), (cheap, ("2", "3"))]
        assert [(reward.node_id, reward.gpus) for reward in rewards] == [(plain, ())] * 2
        assert {place.variable for place in (*ranks, *engines, *rewards)} == {"ib0"}
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
        until_all_is_free()
    finally:
        leave_ray()


def test_groups_are_given_back_on_errors_too(tmp_path: Path, cluster: Cluster) -> None:
    config = configure(cluster, tmp_path, ranks=4, engines=1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with pytest.raises(KeyError), reserved(config, roles=("learner", "engine", "reward")):
            raise KeyError("a bug of the run")
        assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
        until_all_is_free()
    finally:
        leave_ray()


def test_run_that_can_never_fit_is_refused_at_once(tmp_path: Path, cluster: Cluster) -> None:
    config = configure(cluster, tmp_path, ranks=4, engines=3, width=2)
    refusal = r"no room for 1 of 3 engines.*4 learner ranks.*3 engines of 2 GPUs.*with 4 GPUs and 8 cores each"
    with pytest.raises(ConfigError, match=refusal), actors_reserved(config, tmp_path / "logs"):
        pass


def test_room_that_others_hold_is_waited_for_and_then_named(tmp_path: Path, cluster: Cluster) -> None:
    first = configure(cluster, tmp_path, ranks=4, engines=1)
    second = configure(cluster, tmp_path, "cluster.faults.start_timeout_s=0.5", ranks=4, engines=1)
    with actors_reserved(first, tmp_path / "logs"):
        with (
            pytest.raises(InfrastructureError) as refused,
            reserved(second, roles=("learner", "engine")),
        ):
            pass
        message = str(refused.value)
    assert message.startswith("no room within cluster.faults.start_timeout_s=0.5: learner ranks 0 to 3 (4 CPU")
    assert "4 CPU, 4 GPU" in message
    assert "with 0 GPUs and 4 cores" in message  # the learner's node
    assert "with 3 GPUs and 5 cores" in message  # one engine and two reward actors


def test_halves_of_a_gpu_are_shared(tmp_path: Path, cluster: Cluster) -> None:
    config = sharing(configure(cluster, tmp_path, ranks=1, engines=1), rank=0.5, worker=0.5)
    with actors_reserved(config, tmp_path / "logs", roles=("learner", "engine")) as reservations:
        learner, engine = places(reservations, "learner")[0], places(reservations, "engine")[0]
        seat = reservations.layout.of("engine")[0]
        assert (engine.node_id == learner.node_id) == (seat.machine == reservations.layout.of("learner")[0].machine)
        assert len(engine.gpus) == len(learner.gpus) == 1


def test_colocated_engine_sees_the_gpus_of_its_ranks(tmp_path: Path, cluster: Cluster) -> None:
    config = colocated(configure(cluster, tmp_path, ranks=4, engines=2, width=2))
    with actors_reserved(config, tmp_path / "logs", roles=("learner", "engine")) as reservations:
        ranks = places(reservations, "learner")
        under = ranks_under(reservations.layout, 1)
        told = [RankDevices(node_id=ranks[rank].node_id, visible=",".join(ranks[rank].gpus)) for rank in under]
        engine = Probe.options(**reservations.options("engine", 1)).remote(
            {"CUDA_VISIBLE_DEVICES": colocated_devices(told)}
        )
        found = ray.get(engine.place.remote())
    assert under == (2, 3)
    assert found.node_id == ranks[2].node_id
    assert found.gpus == ("2", "3")


def test_replacement_stands_elsewhere_at_once_when_a_node_is_gone(tmp_path: Path, cluster: Cluster) -> None:
    config = configure(cluster, tmp_path, ranks=2, engines=1)
    with actors_reserved(config, tmp_path / "logs", roles=("learner", "engine")) as reservations:
        rank, engine = (ray.get(probe(reservations, role, 0).place.remote()) for role in ("learner", "engine"))
        assert rank.node_id != engine.node_id
        lost = next(node for node in cluster.list_all_nodes() if node.node_id == engine.node_id)
        cluster.remove_node(lost, allow_graceful=False)
        replacement = ray.get(probe(reservations, "engine", 0).place.remote(), timeout=60.0)
        assert replacement.node_id == rank.node_id
        assert replacement.gpus == ("2",)
        # The ranks' own machine is there: their group stays as it is.
        assert ray.get(probe(reservations, "learner", 1).place.remote()).gpus == ("1",)
