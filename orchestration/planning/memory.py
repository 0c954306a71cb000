"""Memory and disk of a run: the counts of the modules beside this one, put together."""

from dataclasses import dataclass

from orchestration.config.experiment import ExperimentConfig
from orchestration.placement.machines import Layout
from orchestration.planning.checkpoint_size import checkpoint_bytes, export_bytes
from orchestration.planning.engine_memory import EngineMemory, engine_memory
from orchestration.planning.gpus import memory_limit
from orchestration.planning.host_memory import host_memory
from orchestration.planning.learner_memory import learner_memory
from orchestration.planning.records import MemoryUse
from orchestration.planning.shapes import ModelShape
from rewards.config import FUNCTION_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What is held where."""

    learner: MemoryUse
    """GPU of a rank, or its process on CPU."""
    engine: EngineMemory
    hosts: tuple[MemoryUse, ...]
    """Host memory, one a machine."""
    checkpoint_bytes: int
    num_checkpoints: int
    """On disk at once, the one that is being written included."""
    export_bytes: int

    @property
    def disk_bytes(self) -> int:
        """All checkpoints and the exported model."""
        return self.num_checkpoints * self.checkpoint_bytes + self.export_bytes


def plan_memory(config: ExperimentConfig, shape: ModelShape, layout: Layout | None) -> MemoryPlan:
    """Count what every place holds at its fullest.

    Raises:
        ConfigError: settings of the learner that do not fit the model.
    """
    training = config.training
    best = 1 + len(FUNCTION_NAMES) if training.keep_best else 0  # by macro mean, and by each reward function
    return MemoryPlan(
        learner=learner_memory(config, shape, memory_limit(config, layout, "learner")),
        engine=engine_memory(config, shape, memory_limit(config, layout, "engine")),
        hosts=host_memory(config, shape, layout) if layout else (),
        checkpoint_bytes=checkpoint_bytes(config, shape),
        num_checkpoints=training.keep_last + best + 1,
        export_bytes=export_bytes(config, shape),
    )
