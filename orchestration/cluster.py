"""The machines under a run: which core or GPU each actor gets, and Ray's start and stop."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from orchestration.config import ClusterConfig, ExperimentConfig
from orchestration.errors import ConfigError, InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What one actor runs on."""

    num_gpus: int
    cores: tuple[int, ...]
    """Cores the process is bound to; empty leaves it to the operating system."""
    threads: int
    """OpenMP threads. Two busy pools on one core make both ten times slower, so these are counted, not guessed."""

    def actor_options(self) -> dict[str, Any]:
        """What Ray reserves and sets for the actor."""
        return {"num_cpus": 1, "num_gpus": self.num_gpus, "runtime_env": {"env_vars": self.environment()}}

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
        ConfigError: the cluster has fewer GPUs than the plan needs.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's default of 15 leaves its workers 4% of a core that anything else wants.
    os.environ.setdefault("RAY_worker_niceness", "0")
    options: dict[str, object] = {}
    if config.address is None:
        actors = len(needed.engines) + len(needed.learner_ranks) + len(needed.rewards)
        options = {
            "num_cpus": max(actors, len(available_cores())),
            "include_dashboard": False,
            "object_store_memory": config.object_store_bytes,
        }
    ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR, **options)  # type: ignore[arg-type]
    try:
        _check_gpus(needed)
        yield
    except RayTaskError as error:
        raise _cause_of(error) from error
    except RayActorError as error:
        raise InfrastructureError(
            f"an actor of the run died: {_first_line(error)}; its last words are in {log_dir}"
        ) from error
    finally:
        ray.shutdown()


def _check_gpus(needed: ClusterPlan) -> None:
    found = int(ray.cluster_resources().get("GPU", 0))
    if found < needed.num_gpus:
        raise ConfigError(
            f"the run needs {needed.num_gpus} GPUs and the cluster has {found}; lower rollout.engines, "
            "rollout.engine.tensor_parallel_size or learner.num_ranks, or join a larger cluster"
        )


def _cause_of(error: RayTaskError) -> BaseException:
    """What was raised in the actor, without Ray's wrapping around it."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError) and cause.cause is not None:
        cause = cause.cause
    return cause


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
