"""What of the driver's environment reaches every actor, and what is refused."""

from pathlib import Path

import pytest

from orchestration.cluster.process import Placement, actor_environment
from orchestration.settings.cluster import ClusterConfig
from orchestration.settings.errors import ConfigError
from tests.unit.cluster.machines import run_on_gpus

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
