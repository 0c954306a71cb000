"""A learner rank under DeepSpeed ZeRO, as learner/backends/deepspeed.py sets it up.

Read from DeepSpeed 0.19.8 and found again in the allocations of its three stages: which copies exist depends on the
stage and on the type of forward and backward, not only on what is sharded.
"""

from dataclasses import dataclass

from learner.config import LearnerConfig
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import count_elements, trained_tensors
from orchestration.page.formatting import some
from orchestration.plan.activations import (
    FLOAT32,
    TEXT_BLOCKS,
    TOWER_BLOCKS,
    StreamLoad,
    activation_items,
    element_bytes,
)
from orchestration.plan.fsdp_memory import ADAM_BYTES, OPTIMISER
from orchestration.plan.records import Items, LearnerParts, MemoryItem, make_item

BUCKET_ELEMENTS = 2**26
"""learner/backends/deepspeed.py, which imports torch."""
WHOLE_SUM_ELEMENTS = 500_000_000
"""Stage 1 in bfloat16 sums gradients in runs of at most so many (deepspeed.runtime.engine)."""
LIVE_ELEMENTS = 1_000_000_000
"""Stage 3 keeps up to so many gathered weights (its setting max_live_parameters)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zero:
    """What decides which copies a rank holds."""

    stage: int
    ranks: int
    size: int
    """Bytes of an element in forward and backward."""
    trained: int
    is_offloaded: bool
    """Whether the optimiser is on the host."""

    @property
    def sums_whole(self) -> bool:
        """Whether DeepSpeed takes its BF16_Optimizer, which keeps the gradients of the whole model."""
        return self.stage == 1 and self.size < FLOAT32 and not self.is_offloaded

    def share(self, name: str, bytes_each: int, *, of: str = "", note: str = "") -> MemoryItem:
        """Return an item of one rank's share of all trained parameters."""
        text = f"{bytes_each} B x {self.trained:,}{of} / {some(self.ranks, 'rank')}{note}"
        return make_item(name, bytes_each * self.trained / self.ranks, text)


def deepspeed_parts(config: LearnerConfig, shape: ModelShape, load: StreamLoad, *, transfer: Items) -> LearnerParts:
    """Count one rank.

    Args:
        config: of the learner, with its algorithm.
        shape: of the model.
        load: of the largest micro-batch.
        transfer: buffers of the weight channel, beside what is gathered here.
    """
    split, settings = trained_tensors(shape, config.freeze, config.lora), config.deepspeed
    size, numel = element_bytes(config), count_elements(split.all)
    zero = _Zero(
        stage=settings.zero_stage,
        ranks=config.num_ranks,
        size=size,
        trained=count_elements(split.trained),
        is_offloaded=settings.offload_optimizer,
    )
    kept: list[MemoryItem] = []
    host: list[MemoryItem] = []
    for name in ("weights", "reference model") if _has_reference(config) else ("weights",):
        if zero.stage == 3:
            text = f"{size} B x {numel:,} / {some(zero.ranks, 'rank')}"
            item = make_item(name, size * numel / zero.ranks, text)
        else:
            item = make_item(name, size * numel, f"{size} B x {numel:,}, whole on every rank")
        (host if settings.offload_params else kept).append(item)
    (host if zero.is_offloaded else kept).extend(_states(zero))
    whole: Items = ()
    if zero.stage == 3:
        kept.append(make_item("reduction bucket", FLOAT32 * BUCKET_ELEMENTS, "4 B x 2^26, kept"))
        live = min(LIVE_ELEMENTS, numel)
        whole = (make_item("gathered weights", size * live, f"{size} B x {live:,}: DeepSpeed keeps up to 10^9"),)
    gradients, sums = _gradients(zero)
    passes = activation_items(config, shape, load)
    for name in passes.keys() & {TEXT_BLOCKS, TOWER_BLOCKS}:
        passes[name] += sums
    passes["backward: sum over ranks"] = sums
    phases = {name: (*whole, *gradients, *items) for name, items in passes.items()}
    update = _update(zero)
    if not zero.is_offloaded:
        phases["optimiser step"] = (*whole, *update)
    largest = max(tensor.numel for tensor in split.all)
    phases["weights to engines"] = (
        *whole,
        make_item("one whole tensor", (FLOAT32 + size) * largest, f"(4 + {size}) B x {largest:,}, float32 and cast"),
        *transfer,
    )
    return LearnerParts(
        kept=tuple(kept), phases=phases, host_kept=tuple(host), host_phases=update if zero.is_offloaded else ()
    )


def _has_reference(config: LearnerConfig) -> bool:
    return config.algorithm.kl_coef > 0 and config.lora is None


def _states(zero: _Zero) -> list[MemoryItem]:
    """Float32 weights, averages, and the gradients that stay allocated between steps."""
    of = " trained parameters"
    found = [
        zero.share("weights of the optimiser (float32)", FLOAT32, of=of),
        zero.share(OPTIMISER, ADAM_BYTES, of=of),
    ]
    if zero.sums_whole:
        text = f"4 B x {zero.trained:,}, whole on every rank, kept"
        found.append(make_item("gradients (float32)", FLOAT32 * zero.trained, text))
    elif zero.stage == 3:
        found.append(zero.share("gradients (float32)", FLOAT32, of=of, note=", kept"))
    if zero.is_offloaded and zero.stage < 3:
        found.append(zero.share("gradients on the host (float32)", FLOAT32, of=of))
        found.append(zero.share("weights on their way back", zero.size, of=of))
    return found


def _gradients(zero: _Zero) -> tuple[Items, Items]:
    """Gradients that accumulate over micro-batches, and what their reduction adds."""
    size, trained = zero.size, zero.trained
    in_flight = min(BUCKET_ELEMENTS, trained)
    if zero.sums_whole:
        run = min(WHOLE_SUM_ELEMENTS, trained)
        return (
            (make_item(f"gradients ({size} B)", size * trained, f"{size} B x {trained:,}, whole"),),
            (make_item("their sum over ranks", FLOAT32 * run, f"4 B x {run:,}"),),
        )
    if zero.stage == 3:
        return (), (make_item("two buckets being summed", 2 * FLOAT32 * in_flight, f"2 x 4 B x {in_flight:,}"),)
    bucket = make_item("reduction bucket", size * BUCKET_ELEMENTS, f"{size} B x 2^26")
    cast: Items = ()
    if size < FLOAT32:
        cast = (make_item("a bucket in float32", FLOAT32 * in_flight, f"4 B x {in_flight:,}"),)
    if zero.stage == 1:
        return (make_item("gradients", size * trained, f"{size} B x {trained:,}, whole"), bucket), cast
    accumulated = () if zero.is_offloaded else (zero.share("gradients (float32)", FLOAT32),)
    return (*accumulated, bucket), (zero.share("gradients of this pass", size), *cast)


def _update(zero: _Zero) -> Items:
    """What the optimiser step adds."""
    found = []
    if not zero.sums_whole and zero.stage < 3:
        found.append(zero.share("averaged gradients", FLOAT32))
    if not zero.sums_whole and not (zero.stage < 3 and zero.size < FLOAT32):
        found.append(zero.share("gradients laid out flat", FLOAT32))
    return tuple(found)
