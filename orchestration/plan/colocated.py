"""A GPU that a learner rank and an engine worker share, in each of their turns.

Between its turns an engine sleeps with weights and cache given up, and a learner's tensors wait in host memory; what
either process cannot give back (CUDA context, graphs) stays. In between, weights go from one to the other: then both
hold theirs, and the cache is not there yet.
"""

from orchestration.models.shapes import ModelShape
from orchestration.plan.engine_memory import GRAPH_BYTES, engine_memory
from orchestration.plan.learner_memory import CONTEXT_BYTES, learner_memory, learner_parts, reserve
from orchestration.plan.records import MemoryItem, MemoryUse
from orchestration.plan.stream_load import StreamLoad
from orchestration.plan.texts import make_item
from orchestration.settings.experiment import ExperimentConfig

TRANSFER = "weights to engines"


def colocated_memory(
    config: ExperimentConfig, shape: ModelShape, limit_bytes: int | None, *, load: StreamLoad | None = None
) -> tuple[MemoryUse, ...]:
    """Give what stands on a shared GPU in each phase: rollout, training, weight transfer. All must fit.

    Args:
        config: of the run.
        shape: of its model.
        limit_bytes: memory of the GPU; None where unknown.
        load: of the learner's largest micro-batch; None assumes `largest_load`.
    """
    engine = engine_memory(config, shape, limit_bytes)
    learner = learner_memory(config, shape, limit_bytes, load=load)
    parts = learner_parts(config, shape, load=load)
    weights = tuple(item for item in engine.use.items if item.name.startswith("weights"))
    arriving = [item for item in engine.use.items if item.name in ("weight channel", "a layer loaded anew")]
    kept = (*parts.kept, *parts.phases[TRANSFER])
    return (
        MemoryUse(
            place="shared GPU while engines generate",
            items=(*engine.use.items, _residue("sleeping learner", config, has_graphs=False)),
            limit_bytes=limit_bytes,
        ),
        MemoryUse(
            place=f"shared GPU while the learner trains ({parts.fullest[0]})",
            items=(*learner.items, _residue("sleeping engine", config, has_graphs=True)),
            limit_bytes=limit_bytes,
        ),
        MemoryUse(
            place="shared GPU while weights travel",
            items=(
                *kept,
                *reserve(sum(item.bytes for item in kept)),
                *(make_item(f"engine's {item.name}", item.bytes, item.formula) for item in (*weights, *arriving)),
                _residue("engine", config, has_graphs=True),
            ),
            limit_bytes=limit_bytes,
        ),
    )


def fullest(uses: tuple[MemoryUse, ...]) -> MemoryUse:
    """Give the phase that takes most: what the limit must hold."""
    return max(uses, key=lambda use: use.total_bytes)


def _residue(who: str, config: ExperimentConfig, *, has_graphs: bool) -> MemoryItem:
    graphs = GRAPH_BYTES if has_graphs and not config.rollout.engine.enforce_eager else 0
    what = "CUDA context and graphs" if graphs else "CUDA context"
    return make_item(f"{who}: {what}", CONTEXT_BYTES + graphs, "not given back; assumed")
