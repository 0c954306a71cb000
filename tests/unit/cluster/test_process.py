"""What actors' processes run with: cores, variables of the driver, and the network interface of an address."""

from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.cluster.machines import needs_of
from orchestration.cluster.process import Placement, actor_environment, interface_of, placements_of
from orchestration.inputs.machine import build_config
from orchestration.settings.cluster import ActorRole, ClusterConfig
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from tests.unit.cluster.machines import colocated, run_on_gpus


def processes(config: ExperimentConfig, cores: tuple[int, ...] = ()) -> dict[ActorRole, tuple[Placement, ...]]:
    return placements_of(config, needs_of(config), cores=cores, max_engines=config.rollout.most_engines)


def test_ray_restarts_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    engine = processes(build_config(compose([f"run_dir={tmp_path}"])))["engine"][0].actor_options()
    assert (engine["max_restarts"], engine["max_task_retries"]) == (0, 0)


def test_engines_take_cores_from_the_front_and_ranks_from_the_back(tmp_path: Path) -> None:
    config = build_config(compose(["rollout.engines=2", "learner.num_ranks=2", f"run_dir={tmp_path}"]))
    found = processes(config, cores=(0, 1, 2, 3))
    assert [placement.cores for placement in (*found["engine"], *found["learner"])] == [(0,), (1,), (3,), (2,)]


def test_engines_that_may_come_later_have_placements_too(tmp_path: Path) -> None:
    config = build_config(compose(["rollout.engines=1", "rollout.max_engines=3", f"run_dir={tmp_path}"]))
    assert len(processes(config)["engine"]) == 3


def test_process_without_gpus_sees_none_and_has_the_settings_of_a_cpu(tmp_path: Path) -> None:
    variables = processes(build_config(compose([f"run_dir={tmp_path}"])))["engine"][0].actor_options()["runtime_env"]
    assert variables["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""
    assert variables["env_vars"]["TORCHDYNAMO_DISABLE"] == "1"


def test_ray_shows_gpus_where_it_reserves_them(tmp_path: Path) -> None:
    engine = processes(run_on_gpus(tmp_path, ranks=2, engines=1, width=2))["engine"][0].actor_options()
    assert engine["num_gpus"] == 2
    variables = engine["runtime_env"]["env_vars"]
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "TORCHDYNAMO_DISABLE" not in variables
    assert variables["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] == "0"


def test_colocated_engine_reserves_no_gpu_and_is_no_cpu_engine(tmp_path: Path) -> None:
    config = colocated(run_on_gpus(tmp_path, ranks=2, engines=1, width=2))
    engine = processes(config)["engine"][0].actor_options()
    assert engine["num_gpus"] == 0
    variables = engine["runtime_env"]["env_vars"]
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "TORCHDYNAMO_DISABLE" not in variables
    assert variables["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"


def test_loopback_has_its_interface() -> None:
    assert interface_of("127.0.0.1") == "lo"


def test_address_of_another_machine_has_none() -> None:
    assert interface_of("192.0.2.77") is None


DRIVER = {
    "NCCL_SOCKET_IFNAME": "ib0",
    "GLOO_SOCKET_IFNAME": "eth0",
    "VLLM_USE_V2": "1",
    "VLLM_HOST_IP": "10.0.0.1",
    "HF_HOME": "/data/hf",
    "HF_TOKEN": "hf_sesame",
    "PATH": "/bin",
}


def cluster_of(folder: Path, *more: str) -> ClusterConfig:
    return run_on_gpus(folder, ranks=1, engines=1, more=more).cluster


def test_names_and_prefixes_pass_and_what_is_true_of_one_machine_does_not(tmp_path: Path) -> None:
    assert actor_environment(cluster_of(tmp_path), DRIVER) == {
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "eth0",
        "VLLM_USE_V2": "1",
        "HF_HOME": "/data/hf",
    }


def test_secret_passes_by_its_name(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, "cluster.pass_environment=[HF_TOKEN]")
    assert actor_environment(cluster, DRIVER) == {"HF_TOKEN": "hf_sesame"}


def test_settings_win_over_the_driver(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, "+cluster.environment.NCCL_SOCKET_IFNAME=eth1")
    assert actor_environment(cluster, DRIVER)["NCCL_SOCKET_IFNAME"] == "eth1"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "GOOGLE_CREDENTIALS", "my_Secret"]
)
def test_secret_in_the_settings_is_refused_without_its_value(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} looks like a secret.*cluster\.pass_environment") as refused:
        cluster_of(tmp_path, f"+cluster.environment.{name}=sesame")
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "VLLM_MAX_TOKENS_PER_STEP", "NCCL_DEBUG", "PYTHONPATH"])
def test_ordinary_names_are_no_secrets(tmp_path: Path, name: str) -> None:
    assert cluster_of(tmp_path, f"+cluster.environment.{name}='1'").environment == {name: "1"}


@pytest.mark.parametrize("pattern", ["'*'", "NC*L", "'A B'"])
def test_pattern_without_a_name_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.pass_environment has"):
        cluster_of(tmp_path, f"cluster.pass_environment=[{pattern}]")


def test_values_stand_in_no_message_and_not_in_what_ray_writes_down() -> None:
    placement = Placement(num_gpus=0, cores=(), threads=1, variables={"HF_TOKEN": "hf_sesame"})
    assert "sesame" not in f"{placement!r} {placement.actor_options()!r}"
