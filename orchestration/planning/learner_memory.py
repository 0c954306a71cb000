"""Memory of a learner rank at its fullest, item by item."""

from dataclasses import replace

from learner.config import LearnerConfig
from orchestration.config.experiment import ExperimentConfig
from orchestration.planning.deepspeed_memory import deepspeed_parts
from orchestration.planning.fsdp_memory import fsdp_parts
from orchestration.planning.image_tokens import vision_rows
from orchestration.planning.learner_parts import LearnerParts
from orchestration.planning.parameters import count_parameters
from orchestration.planning.records import MemoryItem, MemoryUse
from orchestration.planning.shapes import ModelShape, PatchTower
from orchestration.planning.stream_load import StreamLoad, largest_load
from orchestration.planning.texts import make_item

CONTEXT_BYTES = 1_200 * 2**20
"""CUDA context, NCCL's buffers and the libraries' workspaces: an assumption, to be measured on the card at hand."""
FRAGMENTATION_FRAC = 0.05
"""Of what torch allocates: blocks that its allocator holds and cannot use. An assumption."""
FLOAT32 = 4
WIRE_BYTES = {"float32": 4, "bfloat16": 2}
SENDER_BUFFERS = {
    "nccl": (3, "two packed buffers on their way, and what fills the next"),
    "ipc": (3, "what fills a buffer, the packed buffer, and the one that the engine sees"),
    "gloo": (2, "what fills a bucket, and the bucket"),
}
"""Of the weight channel's backends."""


def learner_memory(
    config: ExperimentConfig, shape: ModelShape, limit_bytes: int | None, *, load: StreamLoad | None = None
) -> MemoryUse:
    """Give what one learner rank holds on its device in the fullest phase of a training step.

    Args:
        config: of the run.
        shape: of its model.
        limit_bytes: memory of the device; None where unknown.
        load: of the largest micro-batch; None assumes `largest_load`.
    """
    learner = algorithm_of(config)
    parts = learner_parts(config, shape, load=load)
    phase, items = parts.fullest
    everything = (*parts.kept, *items)
    if learner.device == "cpu":
        everything += (*parts.host_kept, step_pictures(config, shape, load or largest_load(config, shape)))
    else:
        everything += reserve(sum(item.bytes for item in everything))
    device = "GPU" if learner.device == "cuda" else "process"
    return MemoryUse(place=f"{device} of a learner rank ({phase})", items=everything, limit_bytes=limit_bytes)


def learner_parts(config: ExperimentConfig, shape: ModelShape, *, load: StreamLoad | None = None) -> LearnerParts:
    """Give what a learner rank keeps and what every phase adds, without reserves."""
    learner = algorithm_of(config)
    count = fsdp_parts if learner.backend == "fsdp" else deepspeed_parts
    return count(learner, shape, load or largest_load(config, shape), transfer=sender_items(config, shape))


def reserve(used: int) -> tuple[MemoryItem, ...]:
    """Give what a process holds on a GPU beside its tensors."""
    return (
        make_item("CUDA context", CONTEXT_BYTES, "assumed"),
        make_item("fragmentation", FRAGMENTATION_FRAC * used, f"{FRAGMENTATION_FRAC:.0%} of the above, assumed"),
    )


def sender_items(config: ExperimentConfig, shape: ModelShape) -> tuple[MemoryItem, ...]:
    """Give the buffers in which rank 0 packs weights."""
    channel = config.rollout.weight_channel
    size = min(channel.bucket_bytes, WIRE_BYTES[config.rollout.engine.dtype] * count_parameters(shape).total)
    copies, what = SENDER_BUFFERS.get(channel.backend, SENDER_BUFFERS["nccl"])
    return (make_item("weight channel", copies * size, f"{copies} x {size:,} B: {what}"),)


def step_pictures(config: ExperimentConfig, shape: ModelShape, load: StreamLoad) -> MemoryItem:
    """Give the processed pictures of a rank's share of a step; they wait in host memory for their micro-batch."""
    groups = -(-config.training.groups_per_step // config.learner.num_ranks)
    rows = vision_rows(shape, groups * load.image_tokens)
    size = FLOAT32 * rows * picture_values(shape)
    return make_item("pictures of a step", size, f"4 B x {groups} groups x {load.image_tokens:,} image tokens' pixels")


def picture_values(shape: ModelShape) -> float:
    """Give the float32 values that a picture has for each row of the vision tower."""
    tower = shape.tower
    if isinstance(tower, PatchTower):
        return tower.num_channels * tower.temporal_patch * tower.patch_side**2
    return tower.num_channels * tower.tile_side**2 / (tower.patches_per_tile + 1)


def algorithm_of(config: ExperimentConfig) -> LearnerConfig:
    """Give the learner's settings with the run's algorithm, as the conductor hands them to the ranks."""
    return replace(config.learner, algorithm=config.algorithm)
