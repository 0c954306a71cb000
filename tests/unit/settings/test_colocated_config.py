"""What a colocated run asks of its settings, and what its actors get."""

import pytest

from orchestration.cli import compose
from orchestration.cluster.machines import needs_of
from orchestration.cluster.process import placements_of
from orchestration.plan.plan import plan_run
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, check_layout, settings_errors
from orchestration.settings.strict import build
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


def test_engines_that_may_come_later_have_no_place() -> None:
    with pytest.raises(ConfigError, match=r"max_engines is 2 with cluster\.layout=colocated"):
        checked(*COLOCATED, "rollout.max_engines=2")


def test_both_sides_have_all_cores_and_take_turns_at_them() -> None:
    def cores_of(*overrides: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        config = checked(*overrides)
        processes = placements_of(config, needs_of(config), cores=(0, 1, 2), max_engines=1)
        return processes["engine"][0].cores, processes["learner"][0].cores

    assert cores_of(*COLOCATED) == ((0, 1, 2), (0, 1, 2))
    assert cores_of() == ((0,), (2,))


def test_command_without_a_learner_gives_engines_gpus_of_their_own() -> None:
    config = checked(*SHARED)
    needs = needs_of(config).only("engine", "reward")
    processes = placements_of(config, needs, cores=(), max_engines=4)
    assert [engine.num_gpus for engine in processes["engine"]] == [1.0] * 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("cluster.gpus_per_engine_worker=0.5",),
            "cluster.gpus_per_engine_worker is 0.5 with rollout.weight_channel.backend=nccl: NCCL cannot have two "
            "ranks on one GPU; set it to 1, or cluster.layout=colocated",
        ),
        (
            ("cluster.gpus_per_learner_rank=0.5", "learner.num_ranks=1"),
            "cluster.gpus_per_learner_rank is 0.5 with rollout.weight_channel.backend=nccl: NCCL cannot",
        ),
        (
            ("cluster.gpus_per_learner_rank=0.25", "rollout.weight_channel.backend=gloo"),
            "cluster.gpus_per_learner_rank is 0.25 with learner.num_ranks=4: NCCL cannot",
        ),
    ],
)
def test_two_ranks_of_nccl_on_one_gpu_are_refused_by_plan_and_train_alike(
    overrides: tuple[str, ...], words: str
) -> None:
    config = build(ExperimentConfig, compose([*GPU, *overrides, "run_dir=/tmp/run", "cache_dir=/tmp/cache"]))
    [error] = settings_errors(config)
    assert str(error).startswith(words)
    [finding] = [finding for finding in plan_run(config).findings if finding.message == str(error)]
    assert (finding.severity, finding.key) == ("error", words.split(" ")[0])


@pytest.mark.parametrize(
    "overrides",
    [
        ("cluster.gpus_per_engine_worker=0.5", "rollout.weight_channel.backend=gloo"),
        ("cluster.gpus_per_learner_rank=0.5", "learner.num_ranks=1", "rollout.weight_channel.backend=gloo"),
    ],
)
def test_parts_of_a_gpu_without_nccl_are_taken(overrides: tuple[str, ...]) -> None:
    config = build(ExperimentConfig, compose([*GPU, *overrides, "run_dir=/tmp/run", "cache_dir=/tmp/cache"]))
    assert list(settings_errors(config)) == []


def test_an_evaluation_may_take_parts_of_gpus() -> None:
    config = build(ExperimentConfig, compose([*GPU, "cluster.gpus_per_engine_worker=0.5", "run_dir=/tmp/run"]))
    assert list(settings_errors(config, is_for_training=False)) == []
