"""Memory and disk of a run: learner, engine, machines, and a GPU that a learner rank and an engine worker share.

On a shared GPU, an engine sleeps with weights and cache freed while the learner trains, and the learner's tensors are
in host memory while the engine generates; what neither process can free (CUDA context, CUDA graphs) stays. During a
weight transfer both hold their weights, and the cache is not allocated yet.
"""

from dataclasses import dataclass

from orchestration.cluster.layout import Layout
from orchestration.models.shapes import ModelShape
from orchestration.plan.engine_memory import GRAPH_BYTES, CachePlan, EngineMemory, engine_memory, undivided
from orchestration.plan.host_memory import DEFAULT_IMAGE_BYTES, checkpoint_bytes, export_bytes, host_memory
from orchestration.plan.learner_memory import TRANSFER, learner_memory, learner_parts, reserve
from orchestration.plan.records import CONTEXT_BYTES, MemoryItem, MemoryUse, make_item
from orchestration.settings.cluster import ActorRole
from orchestration.settings.commands import GpuConfig
from orchestration.settings.experiment import ExperimentConfig
from rewards.core.config import FUNCTION_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Peak memory by place, and disk."""

    devices: tuple[MemoryUse, ...]
    """GPU (or process) of a learner rank and of an engine worker; colocated, a shared GPU in each phase."""
    cache: CachePlan | None
    """None if the engine's GPU is unknown, or its workers cannot split the model as the settings say."""
    hosts: tuple[MemoryUse, ...]
    """Host memory per machine; empty without a layout."""
    checkpoint_bytes: int
    num_checkpoints: int
    """Checkpoints on disk at once, including the one being written."""
    export_bytes: int

    @property
    def disk_bytes(self) -> int:
        """All checkpoints and the exported model."""
        return self.num_checkpoints * self.checkpoint_bytes + self.export_bytes


def plan_memory(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, image_bytes: float | None
) -> MemoryPlan:
    """Count the peak memory of each device and machine; `image_bytes` are the encoded images of a prompt, if known.

    Raises:
        ConfigError: settings of the learner that do not fit the model.
    """
    training = config.training
    functions = {*FUNCTION_NAMES, *(route.function for route in config.reward.every_route())}
    by_each = 1 + len(functions)  # and by the macro mean
    best = (by_each if training.keep_best is True else 1) if training.keep_best else 0
    weighed = DEFAULT_IMAGE_BYTES if image_bytes is None else image_bytes
    engine = engine_of(config, shape, layout)
    return MemoryPlan(
        devices=device_memory(config, shape, layout),
        cache=engine.cache if engine else None,
        hosts=host_memory(config, shape, layout, image_bytes=weighed) if layout and engine else (),
        checkpoint_bytes=checkpoint_bytes(config, shape),
        num_checkpoints=training.keep_last + best + 1,
        export_bytes=export_bytes(config, shape),
    )


def device_memory(config: ExperimentConfig, shape: ModelShape, layout: Layout | None) -> tuple[MemoryUse, ...]:
    """Return the memory of a learner's and an engine's device; of a shared GPU in each phase."""
    limit, engine = memory_limit(config, layout, "learner"), engine_of(config, shape, layout)
    if engine is not None and config.cluster.layout == "colocated" and config.learner.device == "cuda":
        return colocated_memory(config, shape, limit)
    learner = learner_memory(config, shape, limit)
    return (learner,) if engine is None else (learner, engine.use)


def engine_of(config: ExperimentConfig, shape: ModelShape, layout: Layout | None) -> EngineMemory | None:
    """Count an engine; None if its workers cannot split the model, or the size of cache and GPU is unknown."""
    engine, limit = config.rollout.engine, memory_limit(config, layout, "engine")
    if undivided(shape, engine.tensor_parallel_size) or (engine.kv_cache_bytes is None and limit is None):
        return None
    return engine_memory(config, shape, limit)


def colocated_memory(config: ExperimentConfig, shape: ModelShape, limit_bytes: int | None) -> tuple[MemoryUse, ...]:
    """Return the memory of a shared GPU in each phase: rollout, training, weight transfer. All must fit."""
    engine = engine_memory(config, shape, limit_bytes)
    learner = learner_memory(config, shape, limit_bytes)
    parts = learner_parts(config, shape)
    weights = tuple(item for item in engine.use.items if item.name.startswith("weights"))
    arriving = [item for item in engine.use.items if item.name in ("weight channel", "layer being reloaded")]
    kept = (*parts.kept, *parts.phases[TRANSFER])
    moved = [make_item(f"engine's {item.name}", item.bytes, item.formula) for item in (*weights, *arriving)]
    phases = {
        "engines generate": (*engine.use.items, _residue("sleeping learner", config, has_graphs=False)),
        f"the learner trains ({parts.fullest[0]})": (
            *learner.items, _residue("sleeping engine", config, has_graphs=True),
        ),
        "weights are transferred": (
            *kept, *reserve(sum(item.bytes for item in kept)), *moved, _residue("engine", config, has_graphs=True),
        ),
    }  # fmt: skip
    return tuple(
        MemoryUse(place=f"shared GPU while {phase}", items=items, limit_bytes=limit_bytes)
        for phase, items in phases.items()
    )


def _residue(who: str, config: ExperimentConfig, *, has_graphs: bool) -> MemoryItem:
    graphs = GRAPH_BYTES if has_graphs and not config.rollout.engine.enforce_eager else 0
    what = "CUDA context and graphs" if graphs else "CUDA context"
    return make_item(f"{who}: {what}", CONTEXT_BYTES + graphs, "not freed; assumed")


def kinds_under(config: ExperimentConfig, layout: Layout | None, role: ActorRole) -> tuple[GpuConfig, ...]:
    """Return the kinds of GPU that a role runs on; empty if one is unknown, or it uses no GPU."""
    if layout is None:
        return ()
    names = {layout.machines[actor.machine].gpu for actor in layout.of(role) if actor.gpus}
    kinds = [config.plan.gpus[name] for name in sorted(filter(None, names)) if name in config.plan.gpus]
    return tuple(kinds) if len(kinds) == len(names) else ()


def memory_limit(config: ExperimentConfig, layout: Layout | None, role: ActorRole) -> int | None:
    """Return the bytes of the smallest GPU that a role runs on; None if unknown."""
    kinds = kinds_under(config, layout, role)
    return min((round(kind.memory_gib * (1 << 30)) for kind in kinds), default=None)
