"""What a process of a run gets from its placement: cores, variables, network interface, log file."""

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestration.cluster.machines import Needs
from orchestration.settings.cluster import ActorRole, ClusterConfig
from orchestration.settings.experiment import ExperimentConfig
from rewards.core.config import RewardConfig

OWN_TO_A_PROCESS = frozenset(
    {"CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "VLLM_HOST_IP", "VLLM_PORT"}
)
"""Variables that are right in one process or on one machine alone; a prefix does not pass them on."""


def actor_environment(cluster: ClusterConfig, driver: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that `cluster.pass_environment` takes from the driver, overridden by `cluster.environment`.

    A name that the driver does not have is left out: most of them are of use on some clusters only.
    """
    passed = {name: value for name, value in driver.items() if _is_passed(name, cluster.pass_environment)}
    return passed | dict(cluster.environment)


def judge_keys(reward: RewardConfig, driver: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with the keys of judges, where the driver has them; whoever asks without one is told."""
    names = {judge.key_variable for judge in reward.judges.values()}
    return {name: driver[name] for name in sorted(names) if name in driver}


def _is_passed(name: str, patterns: tuple[str, ...]) -> bool:
    if name in patterns:
        return True
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return name.startswith(prefixes) and name not in OWN_TO_A_PROCESS


SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of an interface."""

NAME_BYTES = 15


def interface_of(address: str) -> str | None:
    """Return the interface that has an IPv4 address; None where none has.

    Gloo binds to what the machine's own name resolves to, which on many machines is a loopback address that no other
    machine can reach. The address under which Ray knows the machine is reachable, so its interface is.

    Example:
        >>> interface_of("127.0.0.1")
        'lo'
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:NAME_BYTES])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What one actor runs on."""

    num_gpus: float
    """GPUs that Ray reserves for the process and shows it."""
    cores: tuple[int, ...]
    """Cores the process is bound to; empty leaves it to the operating system."""
    threads: int
    """OpenMP threads. Two busy pools on one core make both ten times slower, so these are counted, not guessed."""
    borrows_gpus: bool = False
    """Works on GPUs that learner ranks have reserved, see `colocated_devices`."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment that the user chose. It reaches the process as an argument, not through Ray, which writes down what
    it is given; and it is left out of every message."""

    def actor_options(self) -> dict[str, Any]:
        """Return what Ray reserves and sets for the actor.

        Ray never restarts an actor or repeats a call: an engine that comes back without the weights of
        the step, or a call that is answered twice, is worse than one that is gone. The pools replace and repeat.
        """
        return {
            "num_cpus": 1,
            "num_gpus": self.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": {**self.environment(), **self._devices()}},
        }

    def environment(self) -> dict[str, str]:
        """Return the environment of the actor's process, which OpenMP, torch and vLLM read at import."""
        variables = {
            "HF_HUB_OFFLINE": "1",
            # An engine's own processes start as `python -c`, which would import from the working directory first.
            "PYTHONSAFEPATH": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        if not self._is_on_gpu:
            variables |= {
                "OMP_NUM_THREADS": str(self.threads),
                "OMP_WAIT_POLICY": "PASSIVE",
                "TORCHDYNAMO_DISABLE": "1",  # compiling vLLM's small functions costs half a minute and gains nothing
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                # Keeps the worker inside the engine's process: one process and one import of vLLM less per engine.
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            }
        return variables

    @property
    def _is_on_gpu(self) -> bool:
        return self.num_gpus > 0 or self.borrows_gpus

    def _devices(self) -> dict[str, str]:
        """Return the variables that decide whether Ray or we choose the GPUs that the process sees."""
        if self.num_gpus > 0:
            # Some clusters forbid Ray to: then every process would take the first GPU.
            return {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "0"}
        # Ray must leave alone what is set here, or by the process itself, whatever the environment of its nodes has.
        ours = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        return ours if self.borrows_gpus else {**ours, "CUDA_VISIBLE_DEVICES": ""}


def placements_of(
    config: ExperimentConfig,
    needs: Needs,
    *,
    cores: Sequence[int],
    max_engines: int,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> dict[ActorRole, tuple[Placement, ...]]:
    """Return the placements of every role's actors by index, with the cores and threads of each.

    Engines take cores from the front and learner ranks from the back, so that both sides have cores of their own
    whenever there are enough. Colocated, both sides have all cores, and engines no GPUs beside those of the ranks.
    """
    engine, learner = config.rollout.engine, config.learner
    pinned = config.cluster.pin_cores and bool(cores)
    backwards = tuple(reversed(cores))
    engine_gpus = 0.0 if needs.is_colocated else needs.engine.gpus * needs.engine.share
    engine_cores = len(cores) if needs.is_colocated else engine.threads
    rank_cores = len(cores) if needs.is_colocated else learner.threads_per_rank
    engines = tuple(
        Placement(
            num_gpus=engine_gpus,
            cores=_slice(cores, i, engine_cores) if pinned else (),
            threads=engine.threads,
            borrows_gpus=needs.is_colocated and needs.engine.gpus > 0,
            variables=variables,
        )
        for i in range(max_engines)
    )
    ranks = tuple(
        Placement(
            num_gpus=needs.learner.gpus * needs.learner.share,
            cores=_slice(backwards, i, rank_cores) if pinned else (),
            threads=learner.threads_per_rank,
            variables=variables,
        )
        for i in range(needs.learner.count)
    )
    reward = Placement(num_gpus=0, cores=(), threads=1, variables=variables)
    judges = tuple(
        Placement(num_gpus=need.gpus * need.share, cores=(), threads=engine.threads, variables=variables)
        for need in needs.judges
    )
    return {"engine": engines, "learner": ranks, "reward": (reward,) * needs.reward.count, "judge": judges}


def _slice(cores: Sequence[int], index: int, width: int) -> tuple[int, ...]:
    """Return the `index`-th run of `width` cores, starting over where they end."""
    return tuple(sorted({cores[(index * width + k) % len(cores)] for k in range(width)}))


def settle(role: str, placement: Placement, log_dir: Path, devices: str | None = None) -> None:
    """Set the cores and variables of the process, and redirect its output and its children's to a log file.

    Every actor calls it first: torch, NCCL and vLLM read the variables when they are imported, or later.

    `devices` are GPUs that the process shall see although Ray reserved others, or none, for it.
    """
    import ray

    os.environ.update(placement.variables)
    if (interface := interface_of(ray.util.get_node_ip_address())) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if placement.cores:
        os.sched_setaffinity(0, placement.cores)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    log = os.open(log_dir / f"{role}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)
