"""Memory of both ends of a weight transfer: the buffers of the weight channel, beside the weights themselves."""

from itertools import pairwise

from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import count_elements, model_tensors
from orchestration.plan.activations import DTYPE_BYTES
from orchestration.plan.records import Items, make_item
from orchestration.settings.experiment import ExperimentConfig


def sender_items(config: ExperimentConfig, shape: ModelShape) -> Items:
    """Return the buffers in which rank 0 packs weights."""
    channel = config.rollout.weight_channel
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    if channel.backend == "gloo":
        bucket = min(channel.bucket_bytes, size * count_elements(model_tensors(shape)))
        peak, text = 2 * bucket, f"2 x {bucket:,} B: what fills a bucket, and the bucket"
    elif channel.backend == "ipc":
        largest, buffer = size * max(tensor.numel for tensor in model_tensors(shape)), shared_buffer(config, shape)
        peak = buffer + largest
        text = f"{buffer:,} B that engines see, and {largest:,} B of a tensor on its way into it"
    else:
        peak = max(before + 2 * now for before, now in pairwise([0, *packed_buffers(config, shape)]))
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


def receiver_items(config: ExperimentConfig, shape: ModelShape) -> Items:
    """Return what an engine's worker holds while new weights arrive."""
    channel, size = config.rollout.weight_channel, DTYPE_BYTES[config.rollout.engine.dtype]
    tensors = model_tensors(shape)
    if channel.backend == "gloo":
        note, bucket = (
            " x all parameters: staged whole, so that a broken transfer changes nothing",
            channel.bucket_bytes,
        )
        total = size * count_elements(tensors)
        return (
            make_item("weights on arrival", total, f"{size} B{note}"),
            make_item("weight channel", min(bucket, total), f"one bucket of {bucket:,} B"),
        )
    layer = size * max(*(tensor.numel for tensor in tensors), 2 * shape.text.mlp_width * shape.text.width)
    workers = config.rollout.engine.tensor_parallel_size
    anew = make_item("a layer loaded anew", layer / workers, f"{size} B x the largest, by {workers} workers")
    if channel.backend == "ipc":
        clones = shared_buffer(config, shape)
        peak, text = clones + layer, f"copies of {clones:,} B, and of a layer that waits for more"
    else:
        peak = max(before + now for before, now in pairwise([0, *packed_buffers(config, shape)]))
        text = f"two buffers of {channel.bucket_bytes:,} B and a tensor, by every worker"
    return make_item("weight channel", peak, text), anew
