"""Findings about memory and disk: what does not fit, and which changes of settings would make it fit.

Each suggested change was tried: settings are changed one after the other, and memory is counted again.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestration.cluster.layout import Layout, lay_out
from orchestration.models.shapes import ModelShape
from orchestration.page.formatting import size
from orchestration.plan.batches import Lengths
from orchestration.plan.engine_memory import CachePlan, widths
from orchestration.plan.findings import KEY
from orchestration.plan.host_memory import process_bytes
from orchestration.plan.memory import MemoryPlan, device_memory, engine_of
from orchestration.plan.records import Finding, MemoryUse, error, warning
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

CACHE_ITEM = "key-value cache"
"""Memory item by which the memory of an engine is recognised."""

STARVED_SHARE = 0.5
"""Warn if a cache holds less than this share of the tokens that max_num_seqs completions need."""

MOST_HALVINGS = 6
MOST_DOUBLINGS = 24
FULL_UTILIZATION = 0.95
"""gpu_memory_utilization of an engine that has a GPU to itself."""
LOWER = (0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
UTILIZATION = "rollout.engine.gpu_memory_utilization"

Fits = Callable[[ExperimentConfig], bool]
Way = tuple[str, Sequence[Any]]
"""A key, and values of it that save more and more memory."""


def memory_findings(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, memory: MemoryPlan, lengths: Lengths
) -> Iterator[Finding]:
    """Find memory above a limit, and changes that would fit on the same machines."""
    for index, use in enumerate(memory.devices):
        if use.excess_bytes:
            yield _device(config, shape, layout, index, use)
    if memory.cache is not None:
        yield from _cache(config, shape, layout, memory.cache, lengths)
    for use in memory.hosts:
        if use.excess_bytes:
            largest = max(use.items, key=lambda item: item.bytes)
            # Memory of processes is an assumption, measured on one machine. A run on this machine alone is refused only
            # for what exceeds it.
            is_sure = bool(config.cluster.nodes) or use.excess_bytes > process_bytes(use)
            report = error if is_sure else warning
            yield report(
                "cluster.nodes",
                f"{use.place}: {_too_much(use)}, most of it {largest.name} ({size(largest.bytes)}); spread the "
                "actors over more machines, or offload less to it",
            )
    yield from _disk(config, memory)


def _device(config: ExperimentConfig, shape: ModelShape, layout: Layout | None, index: int, use: MemoryUse) -> Finding:
    def fits(changed: ExperimentConfig) -> bool:
        if not _has_room(changed, layout):
            return False
        found = device_memory(changed, shape, layout)
        return index < len(found) and not found[index].excess_bytes

    is_engine = any(item.name == CACHE_ITEM for item in use.items)
    ways = engine_ways(config, widths(shape)) if is_engine else learner_ways(config)
    helps = what_fits(config, ways, fits)
    key = _first_key(helps, "rollout.engine.gpu_memory_utilization" if is_engine else "learner.num_ranks")
    return error(key, f"{use.place}: {_too_much(use)}; {helps}")


def _cache(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, cache: CachePlan, lengths: Lengths
) -> Iterator[Finding]:
    engine = config.rollout.engine
    if cache.num_whole_sequences < 1:

        def fits(changed: ExperimentConfig) -> bool:
            found = engine_of(changed, shape, layout) if _has_room(changed, layout) else None
            return found is not None and found.cache.num_whole_sequences >= 1

        helps = what_fits(config, engine_ways(config, widths(shape)), fits)
        yield error(
            _first_key(helps, "rollout.engine.max_model_len"),
            f"an engine's key-value cache holds {cache.num_tokens:,} tokens, less than one sequence of "
            f"rollout.engine.max_model_len={engine.max_model_len:,}; {helps}",
        )
        return
    wanted = engine.max_num_seqs * (lengths.prompt / config.rollout.sampling.group_size + lengths.completion)
    if cache.num_tokens < STARVED_SHARE * wanted:
        yield warning(
            "rollout.engine.max_num_seqs",
            f"{engine.max_num_seqs} completions of expected length need {wanted:,.0f} tokens of cache, and it "
            f"holds {cache.num_tokens:,}: some will be preempted and recomputed; lower it, or raise "
            "rollout.engine.tensor_parallel_size",
        )


def _has_room(config: ExperimentConfig, layout: Layout | None) -> bool:
    """Return whether the plan's machines can hold the changed run; on a local machine actors share the cores."""
    try:
        return layout is None or not config.cluster.nodes or bool(lay_out(config, layout.machines))
    except ConfigError:
        return False


def _disk(config: ExperimentConfig, memory: MemoryPlan) -> Iterator[Finding]:
    """Check free disk space, only if the run will be on this machine."""
    folder = config.training.checkpoint_dir or config.run_dir
    if config.cluster.address is not None or config.cluster.nodes or "://" in folder:
        return
    there = next((parent for parent in (Path(folder), *Path(folder).parents) if parent.is_dir()), None)
    if there is not None and (free := shutil.disk_usage(there).free) < memory.disk_bytes:
        yield warning(
            "training.keep_last",
            f"checkpoints and the exported model take {size(memory.disk_bytes)}, and {folder} has "
            f"{size(free)} free; lower it, or set training.checkpoint_dir to a larger disk",
        )


def _too_much(use: MemoryUse) -> str:
    assert use.limit_bytes is not None  # there is no excess without a limit
    return f"{size(use.total_bytes)} of {size(use.limit_bytes)}, {size(use.excess_bytes)} too much"


def _first_key(helps: str, otherwise: str) -> str:
    named = KEY.search(helps)
    return named.group() if named else otherwise


def with_value(config: ExperimentConfig, key: str, value: Any) -> ExperimentConfig | None:
    """Return the config with one value changed; None if its group of settings refuses it."""

    def changed(record: Any, name: str, *rest: str) -> Any:
        return replace(record, **{name: changed(getattr(record, name), *rest) if rest else value})

    try:
        return changed(config, *key.split("."))  # type: ignore[no-any-return]
    except ValueError:
        return None


def what_fits(config: ExperimentConfig, ways: Sequence[Way], fits: Fits) -> str:
    """Name the changes that fit, cheapest first: each that suffices alone, else the first ones together."""
    alone = [text for text, _, is_enough in (_try_way(config, way, fits) for way in ways) if is_enough]
    if alone:
        return f"{'each of ' if len(alone) > 1 else ''}{', '.join(alone)} would fit"
    taken: list[str] = []
    for way in ways:
        text, config, is_enough = _try_way(config, way, fits)
        taken += [text] if text else []
        if is_enough:
            return f"no single change suffices; together {', '.join(taken)} would fit"
    return "no tried change suffices: this model needs larger or more GPUs"


def _try_way(config: ExperimentConfig, way: Way, fits: Fits) -> tuple[str, ExperimentConfig, bool]:
    """Return the first value that fits, else the last accepted one: its text, its config, whether it fits."""
    key, values = way
    text, last = "", config
    for value in values:
        changed = with_value(config, key, value)
        if changed is not None:
            text, last = f"{key}={str(value).lower() if isinstance(value, bool) else value}", changed
            if fits(changed):
                return text, last, True
    return text, last, False


def learner_ways(config: ExperimentConfig) -> list[Way]:
    """Return ways to save memory of a learner rank, the one that costs least time first."""
    learner, groups = config.learner, config.training.groups_per_step
    ways: list[Way] = []
    if learner.backend == "fsdp" and not learner.fsdp.reshard_after_forward:
        ways.append(("learner.fsdp.reshard_after_forward", [True]))
    if learner.backend == "deepspeed":
        stages = [stage for stage in (2, 3) if stage > learner.deepspeed.zero_stage]
        ways.append(("learner.deepspeed.zero_stage", stages))
    longest = config.rollout.engine.max_model_len  # a completion with its prompt is never cut
    halves = [learner.micro_batch_tokens >> power for power in range(1, MOST_HALVINGS)]
    ways.append(("learner.micro_batch_tokens", [tokens for tokens in halves if tokens >= longest]))
    if not learner.activation_checkpointing:
        ways.append(("learner.activation_checkpointing", [True]))
    more = [learner.num_ranks * times for times in (2, 4, 8)]
    ways.append(("learner.num_ranks", [ranks for ranks in more if groups % ranks == 0]))
    if learner.device == "cuda" and learner.backend == "fsdp" and not learner.fsdp.cpu_offload:
        ways.append(("learner.fsdp.cpu_offload", [True]))
    if learner.device == "cuda" and learner.backend == "deepspeed":
        if not learner.deepspeed.offload_optimizer:
            ways.append(("learner.deepspeed.offload_optimizer", [True]))
        if not learner.deepspeed.offload_params:
            ways.append(("learner.deepspeed.offload_params", [True]))
    return ways


def engine_ways(config: ExperimentConfig, widths: list[int]) -> list[Way]:
    """Return ways to give an engine more cache; `widths` are the tensor-parallel sizes that divide the model."""
    engine = config.rollout.engine
    if engine.kv_cache_bytes is not None:  # a fixed size can only be raised itself
        sizes = [engine.kv_cache_bytes << power for power in range(1, MOST_DOUBLINGS)]
        return [("rollout.engine.kv_cache_bytes", sizes)]
    wider: Way = (
        "rollout.engine.tensor_parallel_size",
        [width for width in widths if width > engine.tensor_parallel_size],
    )
    lower: Way = UTILIZATION, [share for share in LOWER if share < engine.gpu_memory_utilization]
    if config.cluster.layout == "colocated":
        ways = [lower, wider]
    elif engine.gpu_memory_utilization < FULL_UTILIZATION:
        ways = [(UTILIZATION, [FULL_UTILIZATION]), wider, lower]
    else:
        ways = [wider]
    halves = [engine.max_num_seqs >> power for power in range(1, MOST_HALVINGS)]
    ways.append(("rollout.engine.max_num_seqs", [number for number in halves if number >= 1]))
    return ways
