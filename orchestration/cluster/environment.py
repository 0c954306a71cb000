"""Which variables of the driver's environment, and which of the settings, every actor gets: pure."""

from collections.abc import Mapping

from orchestration.settings.cluster import ClusterConfig

OWN_TO_A_PROCESS = frozenset(
    {"CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "VLLM_HOST_IP", "VLLM_PORT"}
)
"""What is true of one process or machine and wrong on every other; a prefix does not take it along."""


def actor_environment(cluster: ClusterConfig, driver: Mapping[str, str]) -> dict[str, str]:
    """Give what `cluster.pass_environment` takes from the driver's environment, and `cluster.environment` over it.

    A name that the driver does not have is left out: most of them are of use on some clusters only.
    """
    passed = {name: value for name, value in driver.items() if _is_passed(name, cluster.pass_environment)}
    return passed | dict(cluster.environment)


def _is_passed(name: str, patterns: tuple[str, ...]) -> bool:
    if name in patterns:
        return True
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return name.startswith(prefixes) and name not in OWN_TO_A_PROCESS
