"""A learner rank under FSDP2, as learner/backends/fsdp.py sets it up: shards, and one block whole at a time.

Read from torch 2.13's fully_shard: a group of parameters is gathered into one buffer and copied out; in the backward
pass the next group's gather is under way; gradients are summed in float32; everything outside of blocks is one group,
whole from the first to the last operation of forward and backward.
"""

from collections.abc import Iterable
from math import prod

from learner.config import LearnerConfig
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import Tensor, count_elements, trained_tensors
from orchestration.page.formatting import some
from orchestration.plan.activations import (
    FIRST_LOGITS,
    FLOAT32,
    FROZEN_TOWER,
    LAST_LOGITS,
    TEXT_BLOCKS,
    TOWER_BLOCKS,
    StreamLoad,
    activation_items,
    element_bytes,
)
from orchestration.plan.records import Items, LearnerParts, MemoryItem, make_item

ADAM_BYTES = 8
"""Of a trained parameter: two float32 averages."""
WEIGHTS = "weights (float32 shards)"
OPTIMISER = "optimiser state (AdamW)"
FIXED = "fixed weights (shards in the type of forward and backward)"
REFERENCE = "reference model (shards in the type of forward and backward)"
GRADIENTS = "gradients (float32 shards)"


def sharded(tensors: Iterable[Tensor], num_ranks: int) -> int:
    """Count the elements of one rank's shards: rows are split evenly, and the last ranks' are padded to the first's.

    Example:
        >>> sharded([Tensor(name="w", shape=(5, 2), part="projector", block=None, is_linear=False)], 4)
        4
    """
    return sum(-(-tensor.shape[0] // num_ranks) * prod(tensor.shape[1:]) for tensor in tensors)


def fsdp_parts(config: LearnerConfig, shape: ModelShape, load: StreamLoad, *, transfer: Items) -> LearnerParts:
    """Count one rank.

    Args:
        config: of the learner, with its algorithm.
        shape: of the model.
        load: of the largest micro-batch.
        transfer: buffers of the weight channel, beside what is gathered here.
    """
    split = trained_tensors(shape, config.freeze, config.lora)
    ranks, size = config.num_ranks, element_bytes(config)
    everywhere = some(ranks, "rank")
    own_trained, trained = sharded(split.trained, ranks), f"{count_elements(split.trained):,} trained parameters"
    states = [make_item(WEIGHTS, FLOAT32 * own_trained, f"4 B x {trained} / {everywhere}, rows rounded up")]
    if split.fixed:
        text = f"{size} B x {count_elements(split.fixed):,} parameters / {everywhere}"
        states.append(make_item(FIXED, size * sharded(split.fixed, ranks), text))
    states.append(make_item(OPTIMISER, ADAM_BYTES * own_trained, f"8 B x {trained} / {everywhere}"))
    if config.algorithm.kl_coef > 0 and config.lora is None:
        text = f"{size} B x {count_elements(split.all):,} parameters / {everywhere}"
        states.append(make_item(REFERENCE, size * sharded(split.all, ranks), text))
    gradients = make_item(GRADIENTS, FLOAT32 * own_trained, f"4 B x {trained} / {everywhere}")
    is_offloaded = config.fsdp.cpu_offload
    on_device = () if is_offloaded else (gradients,)
    passes = _passes(config, shape, load, split.all, split.trained)
    phases = {name: (*on_device, *items) for name, items in passes.items()}
    gathered = _gathered(split.all, ranks, size, is_on_gpu=config.device == "cuda")
    phases["weights to engines"] = (*gathered, *_merged(split.trained, split.fixed), *transfer)
    if is_offloaded:
        return LearnerParts(kept=(), phases=phases, host_kept=tuple(states), host_phases=(gradients,))
    return LearnerParts(kept=tuple(states), phases={**phases, "optimiser step": (gradients,)})


def _passes(
    config: LearnerConfig,
    shape: ModelShape,
    load: StreamLoad,
    tensors: tuple[Tensor, ...],
    trained: tuple[Tensor, ...],
) -> dict[str, Items]:
    """Return the phases of forward and backward, without the gradients of shards."""
    ranks, size = config.num_ranks, element_bytes(config)
    root, root_trained = _of_block(tensors, None), _of_block(trained, None)
    # gloo copies what it sends, and its threads release the copy later.
    copies = 2 if config.device == "cpu" and ranks > 1 else 1
    whole = [
        make_item(
            "whole outside of blocks",
            copies * size * _padded(root, ranks),
            f"{copies} x {size} B x {count_elements(root):,} (embeddings, output head, ...)",
        )
    ]
    if not config.fsdp.reshard_after_forward:
        blocks = [tensor for tensor in tensors if tensor.block is not None]
        text = f"{size} B x {count_elements(blocks):,}, not freed"
        whole.append(make_item("whole blocks", size * _padded(blocks, ranks), text))
    head_grad = make_item(
        "gradient of the output head",
        size * count_elements(tensor for tensor in root_trained if tensor.name == _head_name(shape)),
        f"{size} B x V x D, kept until everything outside of blocks is summed",
    )
    num_root = count_elements(root_trained)
    root_grad = make_item("gradients outside of blocks", size * num_root, f"{size} B x {num_root:,}, whole")
    sums = make_item(
        "their sum over ranks",
        FLOAT32 * (copies * _padded(root_trained, ranks) + sharded(root_trained, ranks)),
        f"{copies} x 4 B x {num_root:,} sent and 1/{ranks} of it received",
    )
    text_block, tower_block = _largest_blocks(tensors)
    around: dict[str, tuple[Items, Items]] = {
        LAST_LOGITS: ((*whole,), ()),
        FIRST_LOGITS: ((*whole,), ()),
        TEXT_BLOCKS: ((*whole, head_grad), _block_items(text_block, trained, ranks, size)),
        TOWER_BLOCKS: ((whole[0], root_grad), _block_items(tower_block, trained, ranks, size)),
        FROZEN_TOWER: ((whole[0],), _block_items(tower_block, trained, ranks, size)),
    }
    phases = {
        name: (*around[name][0], *items, *around[name][1])
        for name, items in activation_items(config, shape, load).items()
    }
    return {**phases, "backward: gradients outside of blocks": (root_grad, sums)}


def _block_items(block: tuple[Tensor, ...], trained: tuple[Tensor, ...], ranks: int, size: int) -> Items:
    """One block whole, the next one being gathered, its gradient, and the sum of the one before."""
    moving = [tensor for tensor in trained if tensor.block == block[0].block]
    copies = 1 if ranks == 1 else 2
    both = "" if ranks == 1 else ", and the next one on its way"
    text = f"{size} B x {count_elements(block):,}{both}"
    whole = make_item("one block whole", copies * size * _padded(block, ranks), text)
    if not moving:
        return (whole,)
    gradient = make_item(
        "its gradient, and the sum of the block before",
        size * count_elements(moving) + FLOAT32 * _padded(moving, ranks),
        f"({size} + 4) B x {count_elements(moving):,}",
    )
    return whole, gradient


def _gathered(tensors: tuple[Tensor, ...], ranks: int, size: int, *, is_on_gpu: bool) -> Items:
    """What learner/backends/fsdp.py holds at its largest: a tensor outside of blocks, or one block.

    The block before is freed only when the next one is there.
    """
    root, (block, _) = _of_block(tensors, None), _largest_blocks(tensors)
    unit = max(*((tensor,) for tensor in root), block, key=count_elements)
    num_unit, num_block = count_elements(unit), count_elements(block)
    whole = size * _padded(unit, ranks)
    # gloo copies what it gathers.
    copies = 1 if is_on_gpu else 2
    arriving = make_item(
        "tensors gathered together",
        copies * whole + size * sharded(unit, ranks),
        f"{copies} x {size} B x {num_unit:,} and this rank's share of them",
    )
    behind = make_item("the block before", size * _padded(block, ranks), f"{size} B x {num_block:,}")
    cut: Items = (make_item("tensors gathered together", whole, f"{size} B x {num_unit:,}"),)
    if not is_on_gpu:  # there, they are what fills the weight channel's buffer
        largest = max(tensor.numel for tensor in unit)
        text = f"2 x {size} B x {largest:,}: this one, and the one before"
        cut += (make_item("tensors cut out", 2 * size * largest, text),)
    return max((arriving, behind), cut, key=lambda items: sum(item.bytes for item in items))


def _merged(trained: tuple[Tensor, ...], fixed: tuple[Tensor, ...]) -> tuple[MemoryItem, ...]:
    """What adapters take where they are merged: the weight and the sum in float32, and the sum before."""
    adapted = {tensor.name.split(".lora_")[0] for tensor in trained if ".lora_" in tensor.name}
    if not adapted:
        return ()
    largest = max(tensor.numel for tensor in fixed if tensor.name.removesuffix(".weight") in adapted)
    text = f"3 x 4 B x {largest:,}: the weight, the sum, the one before"
    return (make_item("adapters merged", 3 * FLOAT32 * largest, text),)


def _largest_blocks(tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the first block of the language model and of the tower; all of one kind are alike."""
    names = dict.fromkeys((tensor.block, tensor.part) for tensor in tensors if tensor.block is not None)
    text = next(block for block, part in names if part == "language_model")
    tower = next(block for block, part in names if part == "vision_tower")
    return _of_block(tensors, text), _of_block(tensors, tower)


def _of_block(tensors: Iterable[Tensor], block: str | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor.block == block)


def _head_name(shape: ModelShape) -> str:
    return "model.language_model.embed_tokens.weight" if shape.text.is_tied else "lm_head.weight"


def _padded(tensors: Iterable[Tensor], ranks: int) -> int:
    return ranks * sharded(tensors, ranks)
