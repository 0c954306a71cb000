"""A learner rank under DeepSpeed ZeRO, as learner/backends/deepspeed.py sets it up.

Read from DeepSpeed 0.19.8 and found again in the allocations of its three stages: which copies exist depends on the
stage and on the type of forward and backward, not only on what is sharded.
"""

from collections.abc import Iterable

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

BUCKET_ELEMENTS = 2**26
"""learner/backends/deepspeed.py, which the driver may not import: it stands beside torch."""
WHOLE_SUM_ELEMENTS = 500_000_000
"""Stage 1 in bfloat16 sums gradients in runs of at most so many (deepspeed.runtime.engine)."""
LIVE_ELEMENTS = 1_000_000_000
"""Stage 3 keeps up to so many gathered weights (its setting max_live_parameters)."""
ADAM_BYTES = 8


def deepspeed_parts(
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
    size, stage = element_bytes(config), config.deepspeed.zero_stage
    is_offloaded = config.deepspeed.offload_optimizer
    weights = _weights(config, _numel(split.all), size)
    states = _states(config, _numel(split.trained), size)
    kept, host = ([weights], []) if not config.deepspeed.offload_params else ([], [weights])
    if config.algorithm.kl_coef > 0 and config.lora is None:
        (host if config.deepspeed.offload_params else kept).append(
            make_item("reference model", weights.bytes, weights.formula)
        )
    (host if is_offloaded else kept).extend(states)
    if stage == 3:
        kept.append(make_item("reduction bucket", FLOAT32 * BUCKET_ELEMENTS, "4 B x 2^26, kept"))
    gradients, sums = _gradients(config, _numel(split.trained), size)
    whole: tuple[MemoryItem, ...] = ()
    if stage == 3:
        live = min(LIVE_ELEMENTS, _numel(split.all))
        whole = (make_item("gathered weights", size * live, f"{size} B x {live:,}: DeepSpeed keeps up to 10^9"),)
    passes = _passes(config, shape, load, sums)
    phases = {name: (*whole, *gradients, *items) for name, items in passes.items()}
    update = _update(config, _numel(split.trained), size)
    if not is_offloaded:
        phases["optimiser step"] = (*whole, *update)
    largest = max(tensor.numel for tensor in split.all)
    phases["weights to engines"] = (
        *whole,
        make_item("one whole tensor", (FLOAT32 + size) * largest, f"(4 + {size}) B x {largest:,}, float32 and cast"),
        *transfer,
    )
    return LearnerParts(
        kept=tuple(kept), phases=phases, host_kept=tuple(host), host_phases=update if is_offloaded else ()
    )


def _weights(config: LearnerConfig, numel: int, size: int) -> MemoryItem:
    """The copy that forward and backward use."""
    if config.deepspeed.zero_stage == 3:
        return make_item(
            "weights", size * numel / config.num_ranks, f"{size} B x {numel:,} / {ranks_text(config.num_ranks)}"
        )
    return make_item("weights", size * numel, f"{size} B x {numel:,}, whole on every rank")


def _states(config: LearnerConfig, trained: int, size: int) -> list[MemoryItem]:
    """Masters, averages, and the gradients that stay allocated between steps."""
    ranks, stage = config.num_ranks, config.deepspeed.zero_stage
    share = f"{trained:,} trained parameters / {ranks_text(ranks)}"
    found = [
        make_item("weights of the optimiser (float32)", FLOAT32 * trained / ranks, f"4 B x {share}"),
        make_item("optimiser state (AdamW)", ADAM_BYTES * trained / ranks, f"8 B x {share}"),
    ]
    if _sums_whole(config):
        found.append(
            make_item("gradients (float32)", FLOAT32 * trained, f"4 B x {trained:,}, whole on every rank, kept")
        )
    elif stage == 3:
        found.append(make_item("gradients (float32)", FLOAT32 * trained / ranks, f"4 B x {share}, kept"))
    if config.deepspeed.offload_optimizer and stage < 3:
        found.append(make_item("gradients on the host (float32)", FLOAT32 * trained / ranks, f"4 B x {share}"))
        found.append(make_item("weights on their way back", size * trained / ranks, f"{size} B x {share}"))
    return found


def _sums_whole(config: LearnerConfig) -> bool:
    """Whether DeepSpeed takes its BF16_Optimizer, which keeps the gradients of the whole model."""
    settings = config.deepspeed
    return settings.zero_stage == 1 and config.dtype == "bfloat16" and not settings.offload_optimizer


def _gradients(config: LearnerConfig, trained: int, size: int) -> tuple[tuple[MemoryItem, ...], tuple[MemoryItem, ...]]:
    """Gradients that pile up over micro-batches, and what their reduction adds."""
    ranks, stage = config.num_ranks, config.deepspeed.zero_stage
    flying = min(BUCKET_ELEMENTS, trained)
    if _sums_whole(config):
        run = min(WHOLE_SUM_ELEMENTS, trained)
        return (
            (make_item(f"gradients ({size} B)", size * trained, f"{size} B x {trained:,}, whole"),),
            (make_item("their sum over ranks", FLOAT32 * run, f"4 B x {run:,}"),),
        )
    if stage == 3:
        return (), (make_item("two buckets being summed", 2 * FLOAT32 * flying, f"2 x 4 B x {flying:,}"),)
    bucket = make_item("reduction bucket", size * BUCKET_ELEMENTS, f"{size} B x 2^26")
    cast = (make_item("a bucket in float32", FLOAT32 * flying, f"4 B x {flying:,}"),) if size < FLOAT32 else ()
    if stage == 1:
        return (make_item("gradients", size * trained, f"{size} B x {trained:,}, whole"), bucket), cast
    piled = () if config.deepspeed.offload_optimizer else (
        make_item("gradients (float32)", FLOAT32 * trained / ranks, f"4 B x {trained:,} / {ranks_text(ranks)}"),
    )  # fmt: skip
    part = make_item("gradients of this pass", size * trained / ranks, f"{size} B x {trained:,} / {ranks_text(ranks)}")
    return (*piled, bucket), (part, *cast)


def _update(config: LearnerConfig, trained: int, size: int) -> tuple[MemoryItem, ...]:
    """What the optimiser step adds."""
    ranks = config.num_ranks
    share = f"{trained:,} / {ranks_text(ranks)}"
    found = []
    is_flat = _sums_whole(config)
    if not is_flat and config.deepspeed.zero_stage < 3:
        found.append(make_item("averaged gradients", FLOAT32 * trained / ranks, f"4 B x {share}"))
    if not is_flat and not (config.deepspeed.zero_stage < 3 and size < FLOAT32):
        found.append(make_item("gradients laid out flat", FLOAT32 * trained / ranks, f"4 B x {share}"))
    return tuple(found)


def _passes(
    config: LearnerConfig, shape: ModelShape, load: StreamLoad, sums: tuple[MemoryItem, ...]
) -> dict[str, tuple[MemoryItem, ...]]:
    is_again = config.activation_checkpointing
    counts = count_activations(config, shape, load)
    stored = stored_items(counts, load, is_recomputed=is_again)
    logits = f"chunks of {counts.num_chunk_rows:,} x {shape.text.vocab_size:,} logits"
    moments = {
        "forward: last logits": (*stored, make_item("logits", counts.logits_forward, f"3 x 4 B x {logits}")),
        "backward: first logits": (
            *stored,
            make_item(
                "logits and the output head's gradient", counts.logits_backward, f"2 x 4 B x {logits}, 4 B x V x D"
            ),
        ),
        "backward: blocks of the language model": (
            *stored,
            *block_backward_items(counts, is_recomputed=is_again),
            *sums,
        ),
        "backward: sum over ranks": sums,
    }
    if counts.tower_layer:
        items = tower_backward_items(counts, is_recomputed=is_again)
        moments["backward: blocks of the vision tower"] = (*items, *sums)
    else:
        item = make_item("one block of the tower", counts.tower_forward, f"{counts.tower_rows:,} rows; nothing is kept")
        moments["forward: frozen vision tower"] = (item,)
    return moments


def _numel(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel for tensor in tensors)
