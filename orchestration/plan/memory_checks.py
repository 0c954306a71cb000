"""Findings about memory and disk: what does not fit, and which changes of the settings were counted to fit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestration.cluster.layout import lay_out
from orchestration.cluster.machines import Layout
from orchestration.models.shapes import ModelShape
from orchestration.page.formatting import size
from orchestration.plan.checks import KEY
from orchestration.plan.host_memory import process_bytes
from orchestration.plan.lengths import Lengths
from orchestration.plan.memory import CachePlan, MemoryPlan, cache_of, device_memory, knows_engine
from orchestration.plan.records import Finding, MemoryUse
from orchestration.plan.remedies import engine_changes, learner_changes, what_fits
from orchestration.plan.widths import widths
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

CACHE_ITEM = "key-value cache"
"""By which the memory of an engine is known."""

STARVED_SHARE = 0.5
"""An engine whose cache holds less than this share of what it could decode at once is told of."""


def memory_findings(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, memory: MemoryPlan, lengths: Lengths
) -> Iterator[Finding]:
    """Say what is too much, and what would help on the same machines."""
    for index, use in enumerate(memory.devices):
        if use.excess_bytes:
            yield _device(config, shape, layout, index, use)
    if memory.cache is not None:
        yield from _cache(config, shape, layout, memory.cache, lengths)
    for use in memory.hosts:
        if use.excess_bytes:
            largest = max(use.items, key=lambda item: item.bytes)
            # What processes take before they hold a model was measured on one machine. On this one, whose memory is
            # known and no more than that, a run may be refused for what was counted alone.
            is_sure = bool(config.cluster.nodes) or use.excess_bytes > process_bytes(use)
            yield Finding(
                severity="error" if is_sure else "warning",
                key="cluster.nodes",
                message=f"{use.place}: {_too_much(use)}, most of it {largest.name} ({size(largest.bytes)}); spread the "
                "actors over more machines, or keep less there",
            )
    yield from _disk(config, memory)


def _device(config: ExperimentConfig, shape: ModelShape, layout: Layout | None, index: int, use: MemoryUse) -> Finding:
    def fits(changed: ExperimentConfig) -> bool:
        if not _has_room(changed, layout):
            return False
        found = device_memory(changed, shape, layout)
        return index < len(found) and not found[index].excess_bytes

    is_engine = any(item.name == CACHE_ITEM for item in use.items)
    changes = engine_changes(config, widths(shape)) if is_engine else learner_changes(config)
    helps = what_fits(config, changes, fits)
    key = _first_key(helps, "rollout.engine.gpu_memory_utilization" if is_engine else "learner.num_ranks")
    return Finding(severity="error", key=key, message=f"{use.place}: {_too_much(use)}; {helps}")


def _cache(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, cache: CachePlan, lengths: Lengths
) -> Iterator[Finding]:
    engine = config.rollout.engine
    if cache.num_whole_sequences < 1:

        def fits(changed: ExperimentConfig) -> bool:
            return (
                _has_room(changed, layout)
                and knows_engine(changed, shape, layout)
                and cache_of(changed, shape, layout).num_whole_sequences >= 1
            )

        helps = what_fits(config, engine_changes(config, widths(shape)), fits)
        yield Finding(
            severity="error",
            key=_first_key(helps, "rollout.engine.max_model_len"),
            message=f"an engine's key-value cache holds {cache.num_tokens:,} tokens, less than one sequence of "
            f"rollout.engine.max_model_len={engine.max_model_len:,}; {helps}",
        )
        return
    wanted = engine.max_num_seqs * (lengths.prompt / config.rollout.sampling.group_size + lengths.completion)
    if cache.num_tokens < STARVED_SHARE * wanted:
        yield Finding(
            severity="warning",
            key="rollout.engine.max_num_seqs",
            message=f"{engine.max_num_seqs} completions of expected length want {wanted:,.0f} tokens of cache, and it "
            f"holds {cache.num_tokens:,}: some will be put back and begun again; lower it, or raise "
            "rollout.engine.tensor_parallel_size",
        )


def _has_room(config: ExperimentConfig, layout: Layout | None) -> bool:
    """Whether the machines of the plan hold a changed run too; actors share the cores of a machine that runs alone."""
    try:
        return layout is None or not config.cluster.nodes or bool(lay_out(config, layout.machines))
    except ConfigError:
        return False


def _disk(config: ExperimentConfig, memory: MemoryPlan) -> Iterator[Finding]:
    """Look at the disk only where the run will be on this machine."""
    folder = config.training.checkpoint_dir or config.run_dir
    if config.cluster.address is not None or config.cluster.nodes or "://" in folder:
        return
    there = next((parent for parent in (Path(folder), *Path(folder).parents) if parent.is_dir()), None)
    if there is not None and (free := shutil.disk_usage(there).free) < memory.disk_bytes:
        yield Finding(
            severity="warning",
            key="training.keep_last",
            message=f"checkpoints and the exported model take {size(memory.disk_bytes)}, and {folder} has "
            f"{size(free)} free; lower it, or set training.checkpoint_dir to a larger disk",
        )


def _too_much(use: MemoryUse) -> str:
    assert use.limit_bytes is not None  # else nothing is too much
    return f"{size(use.total_bytes)} of {size(use.limit_bytes)}, {size(use.excess_bytes)} too much"


def _first_key(helps: str, otherwise: str) -> str:
    named = KEY.search(helps)
    return named.group() if named else otherwise
