"""Memory and disk of a run: the counts of the modules beside this one, put together."""

from dataclasses import dataclass

from orchestration.cluster.machines import Layout
from orchestration.models.shapes import ModelShape
from orchestration.plan.checkpoint_size import checkpoint_bytes, export_bytes
from orchestration.plan.colocated import colocated_memory
from orchestration.plan.engine_memory import engine_memory
from orchestration.plan.gpus import memory_limit
from orchestration.plan.host_memory import DEFAULT_IMAGE_BYTES, host_memory
from orchestration.plan.learner_memory import learner_memory
from orchestration.plan.records import MemoryUse
from orchestration.plan.widths import undivided
from orchestration.settings.experiment import ExperimentConfig
from rewards.config import FUNCTION_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """Key-value cache of an engine, its workers together.

    Example:
        >>> CachePlan(num_tokens=800_000, num_whole_sequences=97).num_whole_sequences
        97
    """

    num_tokens: int
    num_whole_sequences: int
    """Of max_model_len tokens, were nothing shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What is held where."""

    devices: tuple[MemoryUse, ...]
    """GPU (or process) of a learner rank and of an engine worker; colocated, a shared GPU in each phase."""
    cache: CachePlan | None
    """None where the engine's GPU is not known, or cannot be cut as the settings say."""
    hosts: tuple[MemoryUse, ...]
    """Host memory, one a machine; none where there is no layout."""
    checkpoint_bytes: int
    num_checkpoints: int
    """On disk at once, the one that is being written included."""
    export_bytes: int

    @property
    def disk_bytes(self) -> int:
        """All checkpoints and the exported model."""
        return self.num_checkpoints * self.checkpoint_bytes + self.export_bytes


def plan_memory(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, image_bytes: float | None
) -> MemoryPlan:
    """Count what every place holds at its fullest.

    Args:
        config: of the run.
        shape: of its model.
        layout: where its actors stand; None where that is not known.
        image_bytes: encoded pictures of a prompt; None where the dataset is not there.

    Raises:
        ConfigError: settings of the learner that do not fit the model.
    """
    training = config.training
    best = 1 + len(FUNCTION_NAMES) if training.keep_best else 0  # by macro mean, and by each reward function
    weighed = DEFAULT_IMAGE_BYTES if image_bytes is None else image_bytes
    has_engine = knows_engine(config, shape, layout)
    return MemoryPlan(
        devices=device_memory(config, shape, layout),
        cache=cache_of(config, shape, layout) if has_engine else None,
        hosts=host_memory(config, shape, layout, image_bytes=weighed) if layout and has_engine else (),
        checkpoint_bytes=checkpoint_bytes(config, shape),
        num_checkpoints=training.keep_last + best + 1,
        export_bytes=export_bytes(config, shape),
    )


def device_memory(config: ExperimentConfig, shape: ModelShape, layout: Layout | None) -> tuple[MemoryUse, ...]:
    """Give what stands on a learner's device and on an engine's; on a shared GPU, what stands there in each phase."""
    learner_limit, engine_limit = memory_limit(config, layout, "learner"), memory_limit(config, layout, "engine")
    if not knows_engine(config, shape, layout):
        return (learner_memory(config, shape, learner_limit),)
    if config.cluster.layout == "colocated" and config.learner.device == "cuda":
        return colocated_memory(config, shape, learner_limit)
    return learner_memory(config, shape, learner_limit), engine_memory(config, shape, engine_limit).use


def cache_of(config: ExperimentConfig, shape: ModelShape, layout: Layout | None) -> CachePlan:
    """Give the cache of an engine."""
    found = engine_memory(config, shape, memory_limit(config, layout, "engine"))
    return CachePlan(num_tokens=found.num_cache_tokens, num_whole_sequences=found.num_whole_sequences)


def knows_engine(config: ExperimentConfig, shape: ModelShape, layout: Layout | None) -> bool:
    """Whether an engine can be counted: it divides the model, and its cache has a size or its GPU is known."""
    engine = config.rollout.engine
    is_sized = engine.kv_cache_bytes is not None or memory_limit(config, layout, "engine") is not None
    return is_sized and not undivided(shape, engine.tensor_parallel_size)
