"""Memory of a learner rank at its fullest, item by item."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from learner.config import LearnerConfig
from orchestration.models.image_tokens import vision_rows
from orchestration.models.shapes import ModelShape, PatchTower, shape_of
from orchestration.models.tensors import count_elements, model_tensors
from orchestration.plan.activations import DTYPE_BYTES, FLOAT32, StreamLoad, largest_load
from orchestration.plan.deepspeed_memory import deepspeed_parts
from orchestration.plan.fsdp_memory import fsdp_parts
from orchestration.plan.records import Items, LearnerParts, MemoryItem, MemoryUse, make_item
from orchestration.settings.experiment import ExperimentConfig

CONTEXT_BYTES = 1_200 * 2**20
"""CUDA context, NCCL's buffers and the libraries' workspaces: an assumption, to be measured on the card at hand."""
FRAGMENTATION_FRAC = 0.05
"""Of what torch allocates: blocks that its allocator holds and cannot use. An assumption."""


def learner_memory(
    config: ExperimentConfig, shape: ModelShape, limit_bytes: int | None, *, load: StreamLoad | None = None
) -> MemoryUse:
    """Return what one learner rank holds on its device in the fullest phase of a training step.

    Args:
        config: of the run.
        shape: of its model.
        limit_bytes: memory of the device; None where unknown.
        load: of the largest micro-batch; None assumes `largest_load`.
    """
    is_on_gpu = config.learner.device == "cuda"
    parts = learner_parts(config, shape, load=load)
    phase, items = parts.fullest
    everything = (*parts.kept, *items)
    if is_on_gpu:
        everything += reserve(sum(item.bytes for item in everything))
    else:
        everything += (*parts.host_kept, step_pictures(config, shape, load or largest_load(config, shape)))
    device = "GPU" if is_on_gpu else "process"
    return MemoryUse(place=f"{device} of a learner rank ({phase})", items=everything, limit_bytes=limit_bytes)


def planned_bytes(config: ExperimentConfig, model: Path) -> int:
    """Return the planned bytes of a learner rank's tensors and its allocator, for the model of a folder."""
    use = learner_memory(config, shape_of(replace(config.model, path=str(model))), None)
    return sum(item.bytes for item in use.items if item.name != "CUDA context")


def learner_parts(config: ExperimentConfig, shape: ModelShape, *, load: StreamLoad | None = None) -> LearnerParts:
    """Return what a learner rank keeps and what every phase adds, without reserves."""
    learner: LearnerConfig = replace(config.learner, algorithm=config.algorithm)
    count = fsdp_parts if learner.backend == "fsdp" else deepspeed_parts
    return count(learner, shape, load or largest_load(config, shape), transfer=sender_items(config, shape))


def reserve(used: int) -> Items:
    """Return what a process holds on a GPU beside its tensors."""
    return (
        make_item("CUDA context", CONTEXT_BYTES, "assumed"),
        make_item("fragmentation", FRAGMENTATION_FRAC * used, f"{FRAGMENTATION_FRAC:.0%} of the above, assumed"),
    )


def sender_items(config: ExperimentConfig, shape: ModelShape) -> Items:
    """Return the buffers in which rank 0 packs weights."""
    channel = config.rollout.weight_channel
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    if channel.backend == "gloo":
        bucket = min(channel.bucket_bytes, size * count_elements(model_tensors(shape)))
        return (make_item("weight channel", 2 * bucket, f"2 x {bucket:,} B: what fills a bucket, and the bucket"),)
    if channel.backend == "ipc":
        largest = size * max(tensor.numel for tensor in model_tensors(shape))
        text = f"{shared_buffer(config, shape):,} B that engines see, and {largest:,} B of a tensor on its way into it"
        return (make_item("weight channel", shared_buffer(config, shape) + largest, text),)
    buffers = packed_buffers(config, shape)
    peak = max(before + 2 * now for before, now in pairwise([0, *buffers]))
    text = f"buffers of {channel.bucket_bytes:,} B and a tensor: one on its way, the next, and what fills it"
    return (make_item("weight channel", peak, text),)


def packed_buffers(config: ExperimentConfig, shape: ModelShape) -> list[int]:
    """Return the bytes of NCCL's buffers, one after the other: each ends with the tensor that overflows it."""
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    buffers = [0]
    # Blocks first: the order of learner/backends/fsdp.py.
    for tensor in sorted(model_tensors(shape), key=lambda tensor: tensor.block is None):
        if buffers[-1] > config.rollout.weight_channel.bucket_bytes:
            buffers.append(0)
        buffers[-1] += size * tensor.numel
    return buffers


def shared_buffer(config: ExperimentConfig, shape: ModelShape) -> int:
    """Return the bytes of the buffer that both sides of ipc see: nothing larger can be sent."""
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    return max(config.rollout.weight_channel.bucket_bytes, size * max(t.numel for t in model_tensors(shape)))


def step_pictures(config: ExperimentConfig, shape: ModelShape, load: StreamLoad) -> MemoryItem:
    """Return the processed images of a rank's share of a step; they wait in host memory for their micro-batch."""
    groups = -(-config.training.groups_per_step // config.learner.num_ranks)
    size = FLOAT32 * vision_rows(shape, groups * load.image_tokens) * picture_values(shape)
    return make_item("pictures of a step", size, f"4 B x {groups} groups x {load.image_tokens:,} image tokens' pixels")


def picture_values(shape: ModelShape) -> float:
    """Return the float32 values that a processed image has for each row of the vision tower."""
    tower = shape.tower
    if isinstance(tower, PatchTower):
        return tower.num_channels * tower.temporal_patch * tower.patch_side**2
    return tower.num_channels * tower.tile_side**2 / (tower.patches_per_tile + 1)
