"""Machines and runs for tests of layouts."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from orchestration.cli import compose
from orchestration.cluster.layout import Layout
from orchestration.cluster.machines import Machine
from orchestration.inputs.machine import build_config
from orchestration.settings.experiment import ExperimentConfig

GPU_RUN = (
    "rollout=vllm_gpu",
    "learner=fsdp_gpu",
    "cluster.reward_pool.num_actors=2",
)


def machine(number: int, *, gpus: int = 8, cpus: int = 96, **more: Any) -> Machine:
    gpu = "h100_80gb" if gpus else None
    return Machine(name=f"node {number}", gpus=gpus, gpu=gpu, cpus=cpus, memory_bytes=1 << 40, **more)


def run_on_gpus(
    folder: Path, *, ranks: int, engines: int, width: int = 1, more: tuple[str, ...] = ()
) -> ExperimentConfig:
    """A run of so many learner ranks and engines of `width` GPUs."""
    config = replace(_composed(*more), run_dir=str(folder))
    return resized(config, ranks=ranks, engines=engines, width=width)


@cache
def _composed(*more: str) -> ExperimentConfig:
    """Composing takes long beside what is tested here."""
    return build_config(compose([*GPU_RUN, f"run_dir={tempfile.gettempdir()}", *more]))


def resized(config: ExperimentConfig, *, ranks: int, engines: int, width: int) -> ExperimentConfig:
    """The same run with other numbers, without composing it again."""
    engine = replace(config.rollout.engine, tensor_parallel_size=width)
    rollout = replace(config.rollout, engines=engines, engine=engine)
    return replace(config, rollout=rollout, learner=replace(config.learner, num_ranks=ranks))


def sharing(config: ExperimentConfig, *, rank: float = 1.0, worker: float = 1.0) -> ExperimentConfig:
    """The same run with parts of GPUs, whatever its weight channel."""
    cluster = replace(config.cluster, gpus_per_learner_rank=rank, gpus_per_engine_worker=worker)
    return replace(config, cluster=cluster)


def colocated(config: ExperimentConfig) -> ExperimentConfig:
    """The same run with engines on the GPUs of the ranks."""
    return replace(config, cluster=replace(config.cluster, layout="colocated"))


def gpus_of(layout: Layout, role: Any) -> list[tuple[int, tuple[int, ...]]]:
    """Machine and GPUs of each actor of a role, by index."""
    return [(seat.machine, seat.gpus) for seat in layout.of(role)]
