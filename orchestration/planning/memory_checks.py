"""Findings about memory and disk: what does not fit, and which changes of the settings were counted to fit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestration.config.experiment import ExperimentConfig
from orchestration.errors import ConfigError
from orchestration.placement.layout import lay_out
from orchestration.placement.machines import Layout
from orchestration.planning.checks import KEY, widths
from orchestration.planning.engine_memory import engine_memory
from orchestration.planning.learner_memory import learner_memory
from orchestration.planning.lengths import Lengths
from orchestration.planning.memory import MemoryPlan
from orchestration.planning.records import Finding, MemoryUse
from orchestration.planning.remedies import engine_changes, learner_changes, what_fits
from orchestration.planning.shapes import ModelShape
from orchestration.planning.words import size

STARVED_SHARE = 0.5
"""An engine whose cache holds less than this share of what it could decode at once is told of."""


def memory_findings(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, memory: MemoryPlan, lengths: Lengths
) -> Iterator[Finding]:
    """Say what is too much, and what would help on the same machines."""
    yield from _learner(config, shape, layout, memory.learner)
    yield from _engine(config, shape, layout, memory, lengths)
    for use in memory.hosts:
        if use.excess_bytes:
            largest = max(use.items, key=lambda item: item.bytes)
            yield Finding(
                severity="error",
                key="cluster.nodes",
                message=f"{use.place}: {_too_much(use)}, most of it {largest.name} ({size(largest.bytes)}); spread the "
                "actors over more machines, or keep less there",
            )
    yield from _disk(config, memory)


def _learner(config: ExperimentConfig, shape: ModelShape, layout: Layout | None, use: MemoryUse) -> Iterator[Finding]:
    if not use.excess_bytes:
        return
    helps = what_fits(
        config,
        learner_changes(config),
        lambda changed: not learner_memory(changed, shape, use.limit_bytes).excess_bytes and _has_room(changed, layout),
    )
    yield Finding(
        severity="error", key=_first_key(helps, "learner.num_ranks"), message=f"{use.place}: {_too_much(use)}; {helps}"
    )


def _engine(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, memory: MemoryPlan, lengths: Lengths
) -> Iterator[Finding]:
    engine, use = config.rollout.engine, memory.engine
    tokens = use.num_cache_tokens
    if use.excess_bytes or (tokens is not None and tokens < engine.max_model_len):

        def fits(changed: ExperimentConfig) -> bool:
            found = engine_memory(changed, shape, use.limit_bytes)
            holds = (found.num_cache_tokens or 0) >= changed.rollout.engine.max_model_len
            return holds and not found.excess_bytes and _has_room(changed, layout)

        helps = what_fits(config, engine_changes(config, widths(shape)), fits)
        told = (
            _too_much(use)
            if use.excess_bytes
            else (
                f"its key-value cache holds {tokens:,} tokens, less than one sequence of rollout.engine.max_model_len="
                f"{engine.max_model_len:,}"
            )
        )
        key = "rollout.engine.kv_cache_bytes" if engine.kv_cache_bytes is not None else "rollout.engine.max_model_len"
        yield Finding(severity="error", key=_first_key(helps, key), message=f"{use.place}: {told}; {helps}")
        return
    share_of_prompt = lengths.prompt / config.rollout.sampling.group_size
    wanted = engine.max_num_seqs * (share_of_prompt + lengths.completion)
    if tokens is not None and tokens < STARVED_SHARE * wanted:
        yield Finding(
            severity="warning",
            key="rollout.engine.max_num_seqs",
            message=f"{engine.max_num_seqs} completions of expected length want {wanted:,.0f} tokens of cache, and it "
            f"holds {tokens:,}: some will be put back and begun again; lower it, or raise "
            "rollout.engine.tensor_parallel_size",
        )


def _has_room(config: ExperimentConfig, layout: Layout | None) -> bool:
    """Whether the machines of the plan hold a changed run too."""
    try:
        return layout is None or bool(lay_out(config, layout.machines))
    except ConfigError:
        return False


def _disk(config: ExperimentConfig, memory: MemoryPlan) -> Iterator[Finding]:
    """Look at the disk only where the run will be on this machine."""
    folder = config.training.checkpoint_dir or config.run_dir
    if config.cluster.address is not None or "://" in folder:
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
