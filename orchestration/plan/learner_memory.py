"""Peak memory of a learner rank, item by item, under FSDP2 and under DeepSpeed ZeRO.

FSDP2 (torch 2.13's fully_shard, as learner/backends/fsdp.py sets it up): a group of parameters is gathered into one
buffer and copied out; in the backward pass the next group is prefetched; gradients are reduced in float32; everything
outside of blocks is one group, which stays gathered during the whole forward and backward.

ZeRO (DeepSpeed 0.19.8, learner/backends/deepspeed.py), confirmed by the allocations of its three stages: which copies
exist depends on the stage and on the dtype of forward and backward, not only on what is sharded.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from learner.config import LearnerConfig
from orchestration.models.image_tokens import vision_rows
from orchestration.models.shapes import ModelShape, Tensor, shape_of
from orchestration.models.tensors import count_elements, trained_tensors
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
    largest_load,
    picture_values,
)
from orchestration.plan.engine_memory import sender_items
from orchestration.plan.records import (
    CONTEXT_BYTES,
    Items,
    LearnerParts,
    MemoryItem,
    MemoryUse,
    make_item,
    make_product,
)
from orchestration.settings.experiment import ExperimentConfig

FRAGMENTATION_FRAC = 0.05
"""Share of the tensors that torch's allocator reserves and cannot use: an assumption."""
ADAM_BYTES = 8
"""Bytes per trained parameter: two float32 averages."""
OPTIMISER = "optimiser state (AdamW)"
FIXED = "fixed weights (shards in the type of forward and backward)"
REFERENCE = "reference model (shards in the type of forward and backward)"
TRANSFER = "weights to engines"
"""The phase in which weights are sent to engines."""
BUCKET_ELEMENTS = 2**26
"""learner/backends/deepspeed.py, which imports torch."""
WHOLE_SUM_ELEMENTS = 500_000_000
"""ZeRO-1 in bfloat16 sums gradients in runs of at most so many (deepspeed.runtime.engine)."""
LIVE_ELEMENTS = 1_000_000_000
"""ZeRO-3 keeps up to so many gathered weights (its setting max_live_parameters)."""


def learner_memory(config: ExperimentConfig, shape: ModelShape, limit_bytes: int | None) -> MemoryUse:
    """Return what one learner rank holds on its device in the phase of a training step that needs most.

    `limit_bytes` is the memory of the device; None if unknown.
    """
    parts = learner_parts(config, shape)
    phase, items = parts.fullest
    everything = (*parts.kept, *items)
    if config.learner.device == "cuda":
        device, everything = "GPU", everything + reserve(sum(item.bytes for item in everything))
    else:
        device, everything = "process", (*everything, *parts.host_kept, step_pictures(config, shape))
    return MemoryUse(place=f"{device} of a learner rank ({phase})", items=everything, limit_bytes=limit_bytes)


def planned_bytes(config: ExperimentConfig, model: Path) -> int:
    """Return the planned bytes of a learner rank's tensors and allocator, for the model in a folder."""
    use = learner_memory(config, shape_of(replace(config.model, path=str(model))), None)
    return sum(item.bytes for item in use.items if item.name != "CUDA context")


def learner_parts(config: ExperimentConfig, shape: ModelShape) -> LearnerParts:
    """Return what a learner rank keeps and what each phase adds, without `reserve`."""
    learner: LearnerConfig = replace(config.learner, algorithm=config.algorithm)
    return rank_parts(learner, shape, largest_load(config, shape), transfer=sender_items(config, shape))


def rank_parts(config: LearnerConfig, shape: ModelShape, load: StreamLoad, *, transfer: Items) -> LearnerParts:
    """Count one rank of either backend under the load of its largest micro-batch.

    `transfer` has the buffers of the weight channel; the weights gathered for a transfer are added here.
    """
    count = _fsdp_parts if config.backend == "fsdp" else _zero_parts
    return count(config, shape, load, transfer)


def reserve(used: int) -> Items:
    """Return what a process holds on a GPU besides its tensors."""
    return (
        make_item("CUDA context", CONTEXT_BYTES, "assumed"),
        make_item("fragmentation", FRAGMENTATION_FRAC * used, f"{FRAGMENTATION_FRAC:.0%} of the above, assumed"),
    )


def step_pictures(config: ExperimentConfig, shape: ModelShape) -> MemoryItem:
    """Return the processed images of a rank's share of a step, which are kept in host memory."""
    groups = -(-config.training.groups_per_step // config.learner.num_ranks)
    tokens = largest_load(config, shape).image_tokens
    size = FLOAT32 * vision_rows(shape, groups * tokens) * picture_values(shape)
    return make_item("images of a step", size, f"4 B x {groups} groups x {tokens:,} image tokens' pixels")


def _has_reference(config: LearnerConfig) -> bool:
    return config.algorithm.uses_reference and config.lora is None


# FSDP2


def sharded(tensors: Iterable[Tensor], num_ranks: int) -> int:
    """Count the elements of one rank's shards: rows are split evenly, and the last ranks' are padded to the first's.

    Example:
        >>> sharded([Tensor(name="w", shape=(5, 2), part="projector", block=None, is_linear=False)], 4)
        4
    """
    return sum(-(-tensor.shape[0] // num_ranks) * prod(tensor.shape[1:]) for tensor in tensors)


def _padded(tensors: Iterable[Tensor], ranks: int) -> int:
    return ranks * sharded(tensors, ranks)


def _fsdp_parts(config: LearnerConfig, shape: ModelShape, load: StreamLoad, transfer: Items) -> LearnerParts:
    split = trained_tensors(shape, config.freeze, config.lora)
    ranks, size = config.num_ranks, element_bytes(config)

    def shards(
        name: str, each: int, tensors: tuple[Tensor, ...], what: str = "parameters", note: str = ""
    ) -> MemoryItem:
        text = f"{each} B x {count_elements(tensors):,} {what} / {some(ranks, 'rank')}{note}"
        return make_item(name, each * sharded(tensors, ranks), text)

    moving = "trained parameters"
    states = [shards("weights (float32 shards)", FLOAT32, split.trained, moving, ", rows rounded up")]
    if split.fixed:
        states.append(shards(FIXED, size, split.fixed))
    states.append(shards(OPTIMISER, ADAM_BYTES, split.trained, moving))
    if _has_reference(config):
        states.append(shards(REFERENCE, size, split.all))
    gradients = shards("gradients (float32 shards)", FLOAT32, split.trained, moving)
    is_offloaded = config.fsdp.cpu_offload
    on_device = () if is_offloaded else (gradients,)
    phases = {
        name: (*on_device, *items)
        for name, items in _fsdp_passes(config, shape, load, split.all, split.trained).items()
    }
    gathered = _gathered(split.all, ranks, size, is_on_gpu=config.device == "cuda")
    phases[TRANSFER] = (*gathered, *_merged(split.trained, split.fixed), *transfer)
    if is_offloaded:
        return LearnerParts(kept=(), phases=phases, host_kept=tuple(states), host_phases=(gradients,))
    return LearnerParts(kept=tuple(states), phases={**phases, "optimiser step": (gradients,)})


def _fsdp_passes(
    config: LearnerConfig, shape: ModelShape, load: StreamLoad, tensors: tuple[Tensor, ...], trained: tuple[Tensor, ...]
) -> dict[str, Items]:
    """Return the phases of forward and backward, without the gradients of shards."""
    ranks, size = config.num_ranks, element_bytes(config)
    root, root_trained = _of_block(tensors, None), _of_block(trained, None)
    num_root = count_elements(root_trained)
    # gloo copies what it sends, and its threads release the copy later.
    copies = 2 if config.device == "cpu" and ranks > 1 else 1
    outside = make_item(
        "gathered weights outside of blocks",
        copies * size * _padded(root, ranks),
        f"{copies} x {size} B x {count_elements(root):,} (embeddings, output head, ...)",
    )
    whole: Items = (outside,)
    if not config.fsdp.reshard_after_forward:
        blocks = [tensor for tensor in tensors if tensor.block is not None]
        text = f"{size} B x {count_elements(blocks):,}, not freed"
        whole += (make_item("gathered blocks", size * _padded(blocks, ranks), text),)
    head_grad = make_item(
        "gradient of the output head",
        size * count_elements(tensor for tensor in root_trained if tensor.name == shape.head),
        f"{size} B x V x D, kept until everything outside of blocks is reduced",
    )
    root_grad = make_product("gradients outside of blocks", size, num_root, ", whole")
    sums = make_item(
        "reduction over ranks",
        FLOAT32 * (copies * _padded(root_trained, ranks) + sharded(root_trained, ranks)),
        f"{copies} x 4 B x {num_root:,} sent and 1/{ranks} of it received",
    )
    text_block, tower_block = (_largest_block(tensors, part) for part in ("language_model", "vision_tower"))
    around: dict[str, tuple[Items, Items]] = {
        LAST_LOGITS: (whole, ()),
        FIRST_LOGITS: (whole, ()),
        TEXT_BLOCKS: ((*whole, head_grad), _block_items(text_block, trained, ranks, size)),
        TOWER_BLOCKS: ((outside, root_grad), _block_items(tower_block, trained, ranks, size)),
        FROZEN_TOWER: ((outside,), _block_items(tower_block, trained, ranks, size)),
    }
    phases = {
        name: (*around[name][0], *items, *around[name][1])
        for name, items in activation_items(config, shape, load).items()
    }
    return {**phases, "backward: gradients outside of blocks": (root_grad, sums)}


def _block_items(block: tuple[Tensor, ...], trained: tuple[Tensor, ...], ranks: int, size: int) -> Items:
    """Return one gathered block, the next one being prefetched, its gradient, and the reduction of the previous one."""
    if not block:
        return ()
    moving = [tensor for tensor in trained if tensor.block == block[0].block]
    copies, both = (1, "") if ranks == 1 else (2, ", and the next one being gathered")
    text = f"{size} B x {count_elements(block):,}{both}"
    whole = make_item("one gathered block", copies * size * _padded(block, ranks), text)
    if not moving:
        return (whole,)
    gradient = make_item(
        "gradient of the block, and reduction of the previous one",
        size * count_elements(moving) + FLOAT32 * _padded(moving, ranks),
        f"({size} + 4) B x {count_elements(moving):,}",
    )
    return whole, gradient


def _gathered(tensors: tuple[Tensor, ...], ranks: int, size: int, *, is_on_gpu: bool) -> Items:
    """Return the largest that learner/backends/fsdp.py gathers for a transfer: a tensor outside of blocks, or a block.

    A block is freed only when the next one has been gathered.
    """
    root, block = _of_block(tensors, None), _largest_block(tensors, "language_model")
    unit = max(*((tensor,) for tensor in root), block, key=count_elements)
    num_unit, whole = count_elements(unit), size * _padded(unit, ranks)
    copies = 1 if is_on_gpu else 2  # gloo copies what it gathers
    arriving = make_item(
        "tensors gathered together",
        copies * whole + size * sharded(unit, ranks),
        f"{copies} x {size} B x {num_unit:,} and this rank's share of them",
    )
    behind = make_item("previous block", size * _padded(block, ranks), f"{size} B x {count_elements(block):,}")
    cut: Items = (make_item("tensors gathered together", whole, f"{size} B x {num_unit:,}"),)
    if not is_on_gpu:  # on a GPU they fill the weight channel's buffer
        largest = max(tensor.numel for tensor in unit)
        text = f"2 x {size} B x {largest:,}: this one and the previous one"
        cut += (make_item("tensors copied out", 2 * size * largest, text),)
    return max((arriving, behind), cut, key=lambda items: sum(item.bytes for item in items))


def _merged(trained: tuple[Tensor, ...], fixed: tuple[Tensor, ...]) -> Items:
    """Return what merging adapters takes: weight and sum in float32, and the previous sum."""
    adapted = {tensor.name.split(".lora_")[0] for tensor in trained if ".lora_" in tensor.name}
    if not adapted:
        return ()
    largest = max(tensor.numel for tensor in fixed if tensor.name.removesuffix(".weight") in adapted)
    text = f"3 x 4 B x {largest:,}: the weight, the sum, the previous sum"
    return (make_item("adapters merged", 3 * FLOAT32 * largest, text),)


def _largest_block(tensors: tuple[Tensor, ...], part: str) -> tuple[Tensor, ...]:
    """Return the tensors of a part's largest block; none if it has no blocks."""
    blocks: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.part == part and tensor.block is not None:
            blocks.setdefault(tensor.block, []).append(tensor)
    return tuple(max(blocks.values(), key=count_elements, default=()))


def _of_block(tensors: Iterable[Tensor], block: str | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor.block == block)


# ZeRO


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zero:
    """Settings that decide which copies a rank holds."""

    stage: int
    ranks: int
    size: int
    """Bytes of an element in forward and backward."""
    trained: int
    is_offloaded: bool
    """Whether the optimiser is on the host."""

    @property
    def sums_whole(self) -> bool:
        """Whether DeepSpeed uses its BF16_Optimizer, which keeps the gradients of the whole model."""
        return self.stage == 1 and self.size < FLOAT32 and not self.is_offloaded

    def share(self, name: str, each: int, *, of: str = "", note: str = "") -> MemoryItem:
        """Return an item of one rank's share of all trained parameters."""
        text = f"{each} B x {self.trained:,}{of} / {some(self.ranks, 'rank')}{note}"
        return make_item(name, each * self.trained / self.ranks, text)


def _zero_parts(config: LearnerConfig, shape: ModelShape, load: StreamLoad, transfer: Items) -> LearnerParts:
    split, settings = trained_tensors(shape, config.freeze, config.lora), config.deepspeed
    size, numel, ranks = element_bytes(config), count_elements(split.all), config.num_ranks
    zero = _Zero(
        stage=settings.zero_stage,
        ranks=ranks,
        size=size,
        trained=count_elements(split.trained),
        is_offloaded=settings.offload_optimizer,
    )
    kept: list[MemoryItem] = []
    host: list[MemoryItem] = []
    for name in ("weights", "reference model") if _has_reference(config) else ("weights",):
        item = make_product(name, size, numel, ", whole on every rank")
        if zero.stage == 3:
            item = make_item(name, size * numel / ranks, f"{size} B x {numel:,} / {some(ranks, 'rank')}")
        (host if settings.offload_params else kept).append(item)
    (host if zero.is_offloaded else kept).extend(_zero_states(zero))
    whole: Items = ()
    if zero.stage == 3:
        kept.append(make_item("reduction bucket", FLOAT32 * BUCKET_ELEMENTS, "4 B x 2^26, kept"))
        whole = (make_product("gathered weights", size, min(LIVE_ELEMENTS, numel), ": DeepSpeed keeps up to 10^9"),)
    gradients, sums = _zero_gradients(zero)
    passes = activation_items(config, shape, load)
    for name in passes.keys() & {TEXT_BLOCKS, TOWER_BLOCKS}:
        passes[name] += sums
    passes["backward: sum over ranks"] = sums
    phases = {name: (*whole, *gradients, *items) for name, items in passes.items()}
    update = _zero_update(zero)
    if not zero.is_offloaded:
        phases["optimiser step"] = (*whole, *update)
    largest = max(tensor.numel for tensor in split.all)
    text = f"(4 + {size}) B x {largest:,}, float32 and cast"
    phases[TRANSFER] = (*whole, make_item("one whole tensor", (FLOAT32 + size) * largest, text), *transfer)
    host_phases = update if zero.is_offloaded else ()
    return LearnerParts(kept=tuple(kept), phases=phases, host_kept=tuple(host), host_phases=host_phases)


def _zero_states(zero: _Zero) -> list[MemoryItem]:
    """Return float32 weights, averages, and gradients that stay allocated between steps."""
    of = " trained parameters"
    found = [
        zero.share("weights of the optimiser (float32)", FLOAT32, of=of),
        zero.share(OPTIMISER, ADAM_BYTES, of=of),
    ]
    if zero.sums_whole:
        found.append(make_product("gradients (float32)", FLOAT32, zero.trained, ", whole on every rank, kept"))
    elif zero.stage == 3:
        found.append(zero.share("gradients (float32)", FLOAT32, of=of, note=", kept"))
    if zero.is_offloaded and zero.stage < 3:
        found.append(zero.share("gradients on the host (float32)", FLOAT32, of=of))
        found.append(zero.share("weights copied back to the GPU", zero.size, of=of))
    return found


def _zero_gradients(zero: _Zero) -> tuple[Items, Items]:
    """Return the gradients that accumulate over micro-batches, and what their reduction adds."""
    size, trained = zero.size, zero.trained
    in_flight = min(BUCKET_ELEMENTS, trained)
    if zero.sums_whole:
        whole = make_product(f"gradients ({size} B)", size, trained, ", whole")
        return (whole,), (make_product("reduction over ranks", FLOAT32, min(WHOLE_SUM_ELEMENTS, trained)),)
    if zero.stage == 3:
        return (), (make_item("two buckets being summed", 2 * FLOAT32 * in_flight, f"2 x 4 B x {in_flight:,}"),)
    bucket = make_item("reduction bucket", size * BUCKET_ELEMENTS, f"{size} B x 2^26")
    cast: Items = (make_product("a bucket in float32", FLOAT32, in_flight),) if size < FLOAT32 else ()
    if zero.stage == 1:
        return (make_product("gradients", size, trained, ", whole"), bucket), cast
    accumulated = () if zero.is_offloaded else (zero.share("gradients (float32)", FLOAT32),)
    return (*accumulated, bucket), (zero.share("gradients of this pass", size), *cast)


def _zero_update(zero: _Zero) -> Items:
    """Return what the optimiser step adds."""
    if zero.sums_whole or zero.stage == 3:
        return () if zero.sums_whole else (zero.share("flattened gradients", FLOAT32),)
    averaged = zero.share("averaged gradients", FLOAT32)
    return (averaged, zero.share("flattened gradients", FLOAT32)) if zero.size == FLOAT32 else (averaged,)
