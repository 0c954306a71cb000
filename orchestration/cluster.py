"""The machines under a run: which core or GPU each actor gets, and Ray's start and stop."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.config.cluster import ClusterConfig
from orchestration.config.experiment import ExperimentConfig
from orchestration.errors import ConfigError, InfrastructureError
from orchestration.loopback import on_loopback
from orchestration.pools.lost import cause_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What one actor runs on."""

    num_gpus: int
    cores: tuple[int, ...]
    """Cores the process is bound to; empty leaves it to the operating system."""
    threads: int
    """OpenMP threads. Two busy pools on one core make both ten times slower, so these are counted, not guessed."""
    beside_driver: bool = False
    """Ask for the driver's node first; else over all nodes in turn, so that no node takes every actor with it."""

    def actor_options(self) -> dict[str, Any]:
        """What Ray reserves and sets for the actor, once Ray runs.

        Ray is never told to restart an actor or to repeat a call: an engine that comes back without the weights of
        the step, or a call that is answered twice, is worse than one that is gone. The pools replace and repeat.
        """
        return {
            "num_cpus": 1,
            "num_gpus": self.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": self.environment()},
            "scheduling_strategy": self._strategy(),
        }

    def _strategy(self) -> str | NodeAffinitySchedulingStrategy:
        if not self.beside_driver:
            return "SPREAD"
        # Soft: a driver's node without a free GPU or core sends the rank to another node.
        return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)

    def environment(self) -> dict[str, str]:
        """Environment of the actor's process; read by OpenMP, torch and vLLM at import."""
        variables = {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        if self.num_gpus == 0:
            variables |= {
                "OMP_NUM_THREADS": str(self.threads),
                "OMP_WAIT_POLICY": "PASSIVE",
                "TORCHDYNAMO_DISABLE": "1",  # compiling vLLM's small functions costs half a minute and gains nothing
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                # Keeps the worker inside the engine's process: one process and one import of vLLM less per engine.
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            }
        return variables


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """Where every actor of a run goes."""

    engines: tuple[Placement, ...]
    learner_ranks: tuple[Placement, ...]
    rewards: tuple[Placement, ...]

    @property
    def num_gpus(self) -> int:
        """GPUs of the whole run."""
        return sum(placement.num_gpus for placement in (*self.engines, *self.learner_ranks))

    @property
    def num_cpus(self) -> int:
        """Cores that Ray must be able to reserve: one an actor."""
        return len(self.engines) + len(self.learner_ranks) + len(self.rewards)


def plan(config: ExperimentConfig, *, cores: tuple[int, ...]) -> ClusterPlan:
    """Count what each actor needs and hand out cores; pure, nothing is reserved.

    Engines take cores from the front and learner ranks from the back, so that both sides have cores of their own
    whenever there are enough.
    """
    engine, learner = config.rollout.engine, config.learner
    pinned = config.cluster.pin_cores and bool(cores)
    engine_gpus = engine.tensor_parallel_size if engine.device == "cuda" else 0
    learner_gpus = 1 if learner.device == "cuda" else 0
    engines = tuple(
        Placement(
            num_gpus=engine_gpus, cores=_slice(cores, i, engine.threads) if pinned else (), threads=engine.threads
        )
        for i in range(config.rollout.engines)
    )
    backwards = tuple(reversed(cores))
    ranks = tuple(
        Placement(
            num_gpus=learner_gpus,
            cores=_slice(backwards, i, learner.threads_per_rank) if pinned else (),
            threads=learner.threads_per_rank,
            beside_driver=True,
        )
        for i in range(learner.num_ranks)
    )
    rewards = tuple(Placement(num_gpus=0, cores=(), threads=1) for _ in range(config.cluster.reward_pool.num_actors))
    return ClusterPlan(engines=engines, learner_ranks=ranks, rewards=rewards)


def _slice(cores: tuple[int, ...], index: int, width: int) -> tuple[int, ...]:
    """The `index`-th run of `width` cores, starting over where they end."""
    return tuple(sorted({cores[(index * width + k) % len(cores)] for k in range(width)}))


def available_cores() -> tuple[int, ...]:
    """Cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


@contextmanager
def ray_session(config: ClusterConfig, needed: ClusterPlan, log_dir: Path) -> Iterator[None]:
    """Join the cluster, or start one on this machine, for the length of the block.

    Raises:
        ConfigError: the cluster has fewer GPUs or cores than the plan needs.
        InfrastructureError: an actor died that nobody replaced.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's default of 15 leaves its workers 4% of a core that anything else wants.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Without an address Ray would join whatever cluster was last started on this machine.
    options: dict[str, Any] = {"address": config.address or "local"}
    if config.address is None:
        options |= {
            "num_cpus": max(needed.num_cpus, len(available_cores())),
            "include_dashboard": False,
            "object_store_memory": config.object_store_bytes,
        }
    with nullcontext() if config.address else on_loopback():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        _check_resources(needed)
        yield
    except RayError as error:
        cause = cause_of(error)
        if isinstance(cause, RayActorError):
            raise InfrastructureError(
                f"an actor of the run died: {_last_line(cause)}; its last words are in {log_dir}"
            ) from error
        if isinstance(error, RayTaskError):
            raise cause from error
        raise
    finally:
        ray.shutdown()


def _check_resources(needed: ClusterPlan) -> None:
    """An actor for which there is no room would be waited for without end."""
    found = ray.cluster_resources()
    if found.get("GPU", 0) < needed.num_gpus:
        raise ConfigError(
            f"the run needs {needed.num_gpus} GPUs and the cluster has {found.get('GPU', 0):g}; lower rollout.engines, "
            "rollout.engine.tensor_parallel_size or learner.num_ranks, or join a larger cluster"
        )
    if found.get("CPU", 0) < needed.num_cpus:
        raise ConfigError(
            f"the run has {needed.num_cpus} actors, which reserve a core each, and the cluster has "
            f"{found.get('CPU', 0):g}; lower rollout.engines, cluster.reward_pool.num_actors or learner.num_ranks, or "
            "join a larger cluster"
        )


def _last_line(error: Exception) -> str:
    """Ray's errors of actors end with the reason."""
    return str(error).strip().splitlines()[-1].strip()
