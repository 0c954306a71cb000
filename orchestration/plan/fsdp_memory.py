"""A learner rank under FSDP2, as learner/backends/fsdp.py sets it up: shards, and one block whole at a time.

Read from torch 2.13's fully_shard: a group of parameters is gathered into one buffer and copied out; in the backward
pass the next group's gather is under way; gradients are summed in float32; everything outside of blocks is one group,
whole from the first to the last operation of forward and backward.
"""

from collections.abc import Iterable
from math import prod

from learner.config import LearnerConfig
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import Tensor
from orchestration.plan.activations import FLOAT32, count_activations, element_bytes
from orchestration.plan.learner_parts import (
    LearnerParts,
    block_backward_items,
    stored_items,
    tower_backward_items,
)
from orchestration.plan.records import MemoryItem
from orchestration.plan.stream_load import StreamLoad
from orchestration.plan.texts import make_item, ranks_text
from orchestration.plan.trained import trained_tensors

ADAM_BYTES = 8
"""Of a trained parameter: two float32 averages."""
WEIGHTS = "weights (float32 shards)"
OPTIMISER = "optimiser state (AdamW)"
FIXED = "fixed weights (shards in the type of forward and backward)"
REFERENCE = "reference model (shards in the type of forward and backward)"
GRADIENTS = "gradients (float32 shards)"


def sharded(tensors: Iterable[Tensor], num_ranks: int) -> int:
    """Count the elements of one rank's shards: rows are dealt out, and the last ranks' are padded to the first's.

    Example:
        >>> sharded([Tensor(name="w", shape=(5, 2), part="projector", block=None, is_linear=False)], 4)
        4
    """
    return sum(-(-tensor.shape[0] // num_ranks) * prod(tensor.shape[1:]) for tensor in tensors)


def fsdp_parts(
    config: LearnerConfig, shape: ModelShape, load: StreamLoad, *, transfer: tuple[MemoryItem, ...]
) -> LearnerParts:
    """Count one rank.

    Args:
        config: of the learner, with its algorithm.
        shape: of the model.
        load: of the largest micro-batch.
        transfer: buffers of the weight channel, beside what is gathered here.
    """
    split = trained_tensors(shape, config.freeze, config.lora)
    ranks, size = config.num_ranks, element_bytes(config)
    everywhere = ranks_text(ranks)
    own_fixed, own_trained = sharded(split.fixed, ranks), sharded(split.trained, ranks)
    weights = make_item(
        WEIGHTS,
        FLOAT32 * own_trained,
        f"4 B x {_numel(split.trained):,} trained parameters / {everywhere}, rows rounded up",
    )
    fixed = make_item(FIXED, size * own_fixed, f"{size} B x {_numel(split.fixed):,} parameters / {everywhere}")
    state = make_item(
        OPTIMISER, ADAM_BYTES * own_trained, f"8 B x {_numel(split.trained):,} trained parameters / {everywhere}"
    )
    gradients = make_item(
        GRADIENTS, FLOAT32 * own_trained, f"4 B x {_numel(split.trained):,} trained parameters / {everywhere}"
    )
    kept: list[MemoryItem] = []
    host: list[MemoryItem] = []
    (host if config.fsdp.cpu_offload else kept).extend([weights, *([fixed] if split.fixed else []), state])
    if config.algorithm.kl_coef > 0 and config.lora is None:
        reference = make_item(
            REFERENCE, size * sharded(split.all, ranks), f"{size} B x {_numel(split.all):,} parameters / {everywhere}"
        )
        (host if config.fsdp.cpu_offload else kept).append(reference)
    on_device = () if config.fsdp.cpu_offload else (gradients,)
    passes = _passes(config, shape, load, split.all, split.trained)
    phases = {name: (*on_device, *items) for name, items in passes.items()}
    gathered = _gathered(split.all, ranks, size, is_on_gpu=config.device == "cuda")
    phases["weights to engines"] = (*gathered, *_merged(split.trained, split.fixed), *transfer)
    if not config.fsdp.cpu_offload:
        phases["optimiser step"] = (gradients,)
    return LearnerParts(
        kept=tuple(kept),
        phases=phases,
        host_kept=tuple(host),
        host_phases=(gradients,) if config.fsdp.cpu_offload else (),
    )


def _passes(
    config: LearnerConfig,
    shape: ModelShape,
    load: StreamLoad,
    tensors: tuple[Tensor, ...],
    trained: tuple[Tensor, ...],
) -> dict[str, tuple[MemoryItem, ...]]:
    """Give the moments of forward and backward that can be the fullest, without the gradients of shards."""
    ranks, size = config.num_ranks, element_bytes(config)
    is_again = config.activation_checkpointing
    counts = count_activations(config, shape, load)
    root, root_trained = _of_block(tensors, None), _of_block(trained, None)
    # gloo copies what it sends, and its threads let go of it when they get to it.
    copies = 2 if config.device == "cpu" and ranks > 1 else 1
    whole_root = make_item(
        "whole outside of blocks",
        copies * size * _padded(root, ranks),
        f"{copies} x {size} B x {_numel(root):,} (embeddings, output head, ...)",
    )
    text_block, tower_block = _largest_blocks(tensors)
    stored = stored_items(counts, load, is_recomputed=is_again)
    if not config.fsdp.reshard_after_forward:
        blocks = [tensor for tensor in tensors if tensor.block is not None]
        stored += (
            make_item("whole blocks", size * _padded(blocks, ranks), f"{size} B x {_numel(blocks):,}, not freed"),
        )
    head_grad = make_item(
        "gradient of the output head",
        size * _numel([t for t in root_trained if t.name in _head_names(shape)]),
        f"{size} B x V x D, kept until everything outside of blocks is summed",
    )
    root_grad = make_item(
        "gradients outside of blocks", size * _numel(root_trained), f"{size} B x {_numel(root_trained):,}, whole"
    )
    sums = make_item(
        "their sum over ranks",
        FLOAT32 * (copies * _padded(root_trained, ranks) + sharded(root_trained, ranks)),
        f"{copies} x 4 B x {_numel(root_trained):,} sent and 1/{ranks} of it received",
    )
    logits = f"chunks of {counts.num_chunk_rows:,} x {shape.text.vocab_size:,} logits"
    moments = {
        "forward: last logits": (
            whole_root,
            *stored,
            make_item("logits", counts.logits_forward, f"3 x 4 B x {logits}"),
        ),
        "backward: first logits": (
            whole_root,
            *stored,
            make_item(
                "logits and the output head's gradient", counts.logits_backward, f"2 x 4 B x {logits}, 4 B x V x D"
            ),
        ),
        "backward: blocks of the language model": (
            whole_root,
            head_grad,
            *stored,
            *block_backward_items(counts, is_recomputed=is_again),
            *_block_items(text_block, trained, ranks, size),
        ),
        "backward: gradients outside of blocks": (root_grad, sums),
    }
    if counts.tower_layer:
        moments["backward: blocks of the vision tower"] = (
            whole_root,
            root_grad,
            *tower_backward_items(counts, is_recomputed=is_again),
            *_block_items(tower_block, trained, ranks, size),
        )
    else:
        moments["forward: frozen vision tower"] = (
            whole_root,
            make_item("one block of the tower", counts.tower_forward, f"{counts.tower_rows:,} rows; nothing is kept"),
            *_block_items(tower_block, trained, ranks, size),
        )
    return moments


def _block_items(
    block: tuple[Tensor, ...], trained: tuple[Tensor, ...], ranks: int, size: int
) -> tuple[MemoryItem, ...]:
    """One block whole, the next one on its way, its gradient, and the sum of the one before."""
    moving = [tensor for tensor in trained if tensor.block == block[0].block]
    copies = 1 if ranks == 1 else 2
    both = "" if ranks == 1 else ", and the next one on its way"
    found = [make_item("one block whole", copies * size * _padded(block, ranks), f"{size} B x {_numel(block):,}{both}")]
    if moving:
        found.append(
            make_item(
                "its gradient, and the sum of the block before",
                size * _numel(moving) + FLOAT32 * _padded(moving, ranks),
                f"({size} + 4) B x {_numel(moving):,}",
            )
        )
    return tuple(found)


def _gathered(tensors: tuple[Tensor, ...], ranks: int, size: int, *, is_on_gpu: bool) -> tuple[MemoryItem, ...]:
    """What learner/backends/fsdp.py holds at its largest: a tensor outside of blocks, or one block.

    The block before is let go only when the next one is there.
    """
    root, (block, _) = _of_block(tensors, None), _largest_blocks(tensors)
    unit = max(*((tensor,) for tensor in root), block, key=_numel)
    whole, before = size * _padded(unit, ranks), size * _padded(block, ranks)
    # gloo copies what it gathers.
    copies = 1 if is_on_gpu else 2
    arriving = make_item(
        "tensors gathered together",
        copies * whole + size * sharded(unit, ranks),
        f"{copies} x {size} B x {_numel(unit):,} and this rank's share of them",
    )
    behind = make_item("the block before", before, f"{size} B x {_numel(block):,}")
    largest = max(_numel([tensor]) for tensor in unit)
    cut: tuple[MemoryItem, ...] = (make_item("tensors gathered together", whole, f"{size} B x {_numel(unit):,}"),)
    if not is_on_gpu:  # there, they are what fills the weight channel's buffer
        text = f"2 x {size} B x {largest:,}: this one, and the one before"
        cut += (make_item("tensors cut out", 2 * size * largest, text),)
    return max((arriving, behind), cut, key=lambda items: sum(item.bytes for item in items))


def _merged(trained: tuple[Tensor, ...], fixed: tuple[Tensor, ...]) -> tuple[MemoryItem, ...]:
    """What adapters take where they are merged: the weight and the sum in float32, and the sum before."""
    adapted = {tensor.name.split(".lora_")[0] for tensor in trained if ".lora_" in tensor.name}
    if not adapted:
        return ()
    largest = max(tensor.numel for tensor in fixed if tensor.name.removesuffix(".weight") in adapted)
    return (
        make_item(
            "adapters merged", 3 * FLOAT32 * largest, f"3 x 4 B x {largest:,}: the weight, the sum, the one before"
        ),
    )


def _largest_blocks(tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Give the first block of the language model and of the tower; all of one kind are alike."""
    names = dict.fromkeys((tensor.block, tensor.part) for tensor in tensors if tensor.block is not None)
    text = next(block for block, part in names if part == "language_model")
    tower = next(block for block, part in names if part == "vision_tower")
    return _of_block(tensors, text), _of_block(tensors, tower)


def _of_block(tensors: Iterable[Tensor], block: str | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor.block == block)


def _head_names(shape: ModelShape) -> tuple[str, ...]:
    return ("model.language_model.embed_tokens.weight",) if shape.text.is_tied else ("lm_head.weight",)


def _padded(tensors: Iterable[Tensor], ranks: int) -> int:
    return ranks * sharded(tensors, ranks)


def _numel(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel for tensor in tensors)
