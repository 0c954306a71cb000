"""What a colocated run asks of its settings, and what its actors get."""

import pytest

from orchestration import cluster
from orchestration.cli import compose
from orchestration.cluster import RankDevices
from orchestration.config.experiment import ExperimentConfig, check_layout
from orchestration.errors import ConfigError, InfrastructureError
from orchestration.strict import build
from rollout.errors import RolloutError

COLOCATED = ("cluster.layout=colocated", "training.max_staleness=0")
GPU = ("learner=fsdp_gpu", "rollout=vllm_gpu", "cluster=ray")
SHARED = (*GPU, *COLOCATED, "rollout.weight_channel.backend=ipc")


def checked(*overrides: str) -> ExperimentConfig:
    config = build(ExperimentConfig, compose([*overrides, "run_dir=/tmp/run", "cache_dir=/tmp/cache"]))
    check_layout(config)
    return config


@pytest.mark.parametrize(
    "overrides",
    [COLOCATED, SHARED, (*SHARED, "rollout.engines=2", "rollout.engine.tensor_parallel_size=2"), GPU],
)
def test_settings_that_go_together_are_taken(overrides: tuple[str, ...]) -> None:
    checked(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (*COLOCATED, "training.max_staleness=1"),
            r"max_staleness is 1 with cluster\.layout=colocated.*set training\.max_staleness=0",
        ),
        ((*GPU, "rollout.weight_channel.backend=ipc"), r"is ipc, .*set nccl, or cluster\.layout=colocated"),
        ((*GPU, *COLOCATED), r"is nccl .*; NCCL cannot have two ranks on one GPU; set ipc"),
        ((*GPU, *COLOCATED, "rollout.weight_channel.backend=gloo"), r"is gloo with .*device=cuda; set ipc"),
        ((*SHARED, "learner=fsdp_cpu"), r"rollout\.engine\.device=cuda and learner\.device=cpu"),
        (
            (*SHARED, "rollout.engines=3"),
            r"engines=3 x .*=1 is 3 and learner\.num_ranks is 4; set learner\.num_ranks=3",
        ),
    ],
)
def test_settings_that_do_not_are_refused_with_the_remedy(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(*overrides)


def test_ipc_without_a_gpu_is_refused_by_the_rollout_itself() -> None:
    with pytest.raises((RolloutError, ConfigError), match=r"backend is ipc with rollout\.engine\.device=cpu; use gloo"):
        checked(*COLOCATED, "rollout.weight_channel.backend=ipc")


def test_colocated_engines_reserve_no_gpu_and_are_no_cpu_engines() -> None:
    planned = cluster.plan(checked(*SHARED), cores=())
    assert planned.num_gpus == 4
    for engine in planned.engines:
        assert (engine.num_gpus, engine.borrows_gpus) == (0, True)
        assert "TORCHDYNAMO_DISABLE" not in engine.environment()


def test_both_sides_have_all_cores_and_take_turns_at_them() -> None:
    planned = cluster.plan(checked(*COLOCATED), cores=(0, 1, 2))
    assert {placement.cores for placement in (*planned.engines, *planned.learner_ranks)} == {(0, 1, 2)}
    apart = cluster.plan(checked(), cores=(0, 1, 2))
    assert (apart.engines[0].cores, apart.learner_ranks[0].cores) == ((0,), (2,))


def test_command_without_a_learner_gives_engines_gpus_of_their_own() -> None:
    planned = cluster.plan_without_learner(checked(*SHARED), cores=())
    assert (planned.num_gpus, planned.learner_ranks) == (4, ())


def test_engine_stands_on_the_node_of_its_ranks_and_nowhere_else() -> None:
    engine = cluster.plan(checked(*SHARED), cores=()).engines[0]
    here, there = RankDevices(node_id="a" * 56, visible="0"), RankDevices(node_id="b" * 56, visible="0")
    strategy = engine.beside([here, here])["scheduling_strategy"]
    assert (strategy.node_id, strategy.soft) == (here.node_id, False)
    with pytest.raises(InfrastructureError, match=r"2 learner ranks, and they stand on 2 nodes"):
        engine.beside([here, there])
