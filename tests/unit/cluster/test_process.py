"""What actors' processes run with, before any cluster is there."""

from pathlib import Path

from orchestration.cli import compose
from orchestration.cluster.needs import needs_of
from orchestration.cluster.process import Processes, processes_of
from orchestration.inputs.machine import build_config
from orchestration.settings.experiment import ExperimentConfig
from tests.unit.cluster.machines import colocated, run_on_gpus


def processes(config: ExperimentConfig, cores: tuple[int, ...] = ()) -> Processes:
    return processes_of(config, needs_of(config), cores=cores, max_engines=config.rollout.most_engines)


def test_ray_restarts_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    engine = processes(build_config(compose([f"run_dir={tmp_path}"]))).engines[0].actor_options()
    assert (engine["max_restarts"], engine["max_task_retries"]) == (0, 0)


def test_engines_take_cores_from_the_front_and_ranks_from_the_back(tmp_path: Path) -> None:
    config = build_config(compose(["rollout.engines=2", "learner.num_ranks=2", f"run_dir={tmp_path}"]))
    found = processes(config, cores=(0, 1, 2, 3))
    assert [placement.cores for placement in (*found.engines, *found.learner_ranks)] == [(0,), (1,), (3,), (2,)]


def test_engines_that_may_come_later_have_placements_too(tmp_path: Path) -> None:
    config = build_config(compose(["rollout.engines=1", "rollout.max_engines=3", f"run_dir={tmp_path}"]))
    assert len(processes(config).engines) == 3


def test_process_without_gpus_sees_none_and_has_the_settings_of_a_cpu(tmp_path: Path) -> None:
    variables = processes(build_config(compose([f"run_dir={tmp_path}"]))).engines[0].actor_options()["runtime_env"]
    assert variables["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""
    assert variables["env_vars"]["TORCHDYNAMO_DISABLE"] == "1"


def test_ray_shows_gpus_where_it_reserves_them(tmp_path: Path) -> None:
    engine = processes(run_on_gpus(tmp_path, ranks=2, engines=1, width=2)).engines[0].actor_options()
    assert engine["num_gpus"] == 2
    variables = engine["runtime_env"]["env_vars"]
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "TORCHDYNAMO_DISABLE" not in variables
    assert variables["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] == "0"


def test_colocated_engine_reserves_no_gpu_and_is_no_cpu_engine(tmp_path: Path) -> None:
    config = colocated(run_on_gpus(tmp_path, ranks=2, engines=1, width=2))
    engine = processes(config).engines[0].actor_options()
    assert engine["num_gpus"] == 0
    variables = engine["runtime_env"]["env_vars"]
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "TORCHDYNAMO_DISABLE" not in variables
    assert variables["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"
