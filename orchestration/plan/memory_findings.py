"""Findings about memory and disk: what does not fit, and which changes of the settings would make it fit.

Changes are counted, not guessed: settings are changed one after the other, and memory is counted again.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestration.cluster.layout import lay_out
from orchestration.cluster.machines import Layout
from orchestration.models.shapes import ModelShape
from orchestration.page.formatting import size
from orchestration.plan.batches import Lengths
from orchestration.plan.engine_memory import CachePlan, widths
from orchestration.plan.findings import KEY
from orchestration.plan.host_memory import process_bytes
from orchestration.plan.memory import MemoryPlan, cache_of, device_memory, knows_engine
from orchestration.plan.records import Finding, MemoryUse
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

CACHE_ITEM = "key-value cache"
"""Marks the memory of an engine."""

STARVED_SHARE = 0.5
"""An engine whose cache holds less than this share of what it could decode at once triggers a warning."""


def memory_findings(
    config: ExperimentConfig, shape: ModelShape, layout: Layout | None, memory: MemoryPlan, lengths: Lengths
) -> Iterator[Finding]:
    """Find memory above a limit, and the changes that would help on the same machines."""
    for index, use in enumerate(memory.devices):
        if use.excess_bytes:
            yield _device(config, shape, layout, index, use)
    if memory.cache is not None:
        yield from _cache(config, shape, layout, memory.cache, lengths)
    for use in memory.hosts:
        if use.excess_bytes:
            largest = max(use.items, key=lambda item: item.bytes)
            # Memory of processes without a model is an assumption, measured on one machine. A run on this machine alone
            # is refused only for what exceeds it.
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
    """Whether the machines of the plan hold the changed run too; on a single local machine actors share the cores."""
    try:
        return layout is None or not config.cluster.nodes or bool(lay_out(config, layout.machines))
    except ConfigError:
        return False


def _disk(config: ExperimentConfig, memory: MemoryPlan) -> Iterator[Finding]:
    """Check the disk, only where the run will be on this machine."""
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


MOST_HALVINGS = 6
MOST_DOUBLINGS = 24
FULL_UTILIZATION = 0.95
"""Share of a GPU that an engine may be given where nothing else uses it."""

LOWER = (0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
UTILIZATION = "rollout.engine.gpu_memory_utilization"

Fits = Callable[[ExperimentConfig], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting with another value.

    Example:
        >>> Change(key="learner.activation_checkpointing", value=True).text
        'learner.activation_checkpointing=true'
    """

    key: str
    value: Any

    @property
    def text(self) -> str:
        """The change as it is written on the command line."""
        return f"{self.key}={str(self.value).lower() if isinstance(self.value, bool) else self.value}"


def apply(config: ExperimentConfig, change: Change) -> ExperimentConfig:
    """Return the config with one value changed.

    Raises:
        ValueError: its group of settings refuses the value.
    """
    return _replaced(config, change.key.split("."), change.value)  # type: ignore[no-any-return]


def _replaced(record: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return replace(record, **{name: _replaced(getattr(record, name), rest, value) if rest else value})


def what_fits(config: ExperimentConfig, changes: list[list[Change]], fits: Fits) -> str:
    """Name the changes that make it fit: each that does so alone, else the first of them together.

    Args:
        config: that does not fit.
        changes: ways to save, each a list of ever stronger values of one key; the cheapest way first.
        fits: counts the memory of a config.
    """
    alone = [found.text for way in changes if (found := _first(config, way, fits)) is not None]
    if alone:
        return f"{'each of ' if len(alone) > 1 else ''}{', '.join(alone)} would fit"
    taken: list[Change] = []
    for way in changes:
        found = _first(config, way, fits)
        strongest = found or _last(config, way)
        if strongest is not None:
            config = apply(config, strongest)
            taken.append(strongest)
        if found is not None:
            return f"no single change suffices; together {', '.join(change.text for change in taken)} would fit"
    return "no change that was tried suffices: this model needs larger or more GPUs"


def _first(config: ExperimentConfig, way: list[Change], fits: Fits) -> Change | None:
    return next((change for change in way if _is_taken(config, change) and fits(apply(config, change))), None)


def _last(config: ExperimentConfig, way: list[Change]) -> Change | None:
    return next((change for change in reversed(way) if _is_taken(config, change)), None)


def _is_taken(config: ExperimentConfig, change: Change) -> bool:
    try:
        apply(config, change)
    except ValueError:
        return False
    return True


def learner_changes(config: ExperimentConfig) -> list[list[Change]]:
    """Ways to save memory of a learner rank, the cheapest in time first."""
    return [way for way in _learner_ways(config) if way]


def _learner_ways(config: ExperimentConfig) -> Iterator[list[Change]]:
    learner = config.learner
    if learner.backend == "fsdp" and not learner.fsdp.reshard_after_forward:
        yield [Change(key="learner.fsdp.reshard_after_forward", value=True)]
    if learner.backend == "deepspeed":
        yield [Change(key="learner.deepspeed.zero_stage", value=stage) for stage in (2, 3)
               if stage > learner.deepspeed.zero_stage]  # fmt: skip
    longest = config.rollout.engine.max_model_len  # a completion with its prompt is never cut
    halves = [learner.micro_batch_tokens >> power for power in range(1, MOST_HALVINGS)]
    yield [Change(key="learner.micro_batch_tokens", value=tokens) for tokens in halves if tokens >= longest]
    if not learner.activation_checkpointing:
        yield [Change(key="learner.activation_checkpointing", value=True)]
    ranks, groups = learner.num_ranks, config.training.groups_per_step
    yield [Change(key="learner.num_ranks", value=ranks * more) for more in (2, 4, 8) if groups % (ranks * more) == 0]
    if learner.device == "cuda" and learner.backend == "fsdp" and not learner.fsdp.cpu_offload:
        yield [Change(key="learner.fsdp.cpu_offload", value=True)]
    if learner.device == "cuda" and learner.backend == "deepspeed":
        if not learner.deepspeed.offload_optimizer:
            yield [Change(key="learner.deepspeed.offload_optimizer", value=True)]
        if not learner.deepspeed.offload_params:
            yield [Change(key="learner.deepspeed.offload_params", value=True)]


def engine_changes(config: ExperimentConfig, widths: list[int]) -> list[list[Change]]:
    """Ways to give an engine more cache.

    Args:
        config: of the run.
        widths: tensor-parallel sizes that the model divides by.
    """
    engine = config.rollout.engine
    if engine.kv_cache_bytes is not None:  # a size that was set; nothing else makes it larger
        return [[Change(key="rollout.engine.kv_cache_bytes", value=engine.kv_cache_bytes << power)
                 for power in range(1, MOST_DOUBLINGS)]]  # fmt: skip
    ways = [[Change(key="rollout.engine.tensor_parallel_size", value=width) for width in widths
             if width > engine.tensor_parallel_size]]  # fmt: skip
    if config.cluster.layout == "colocated":
        ways.insert(
            0, [Change(key=UTILIZATION, value=share) for share in LOWER if share < engine.gpu_memory_utilization]
        )
    elif engine.gpu_memory_utilization < FULL_UTILIZATION:
        ways.insert(0, [Change(key=UTILIZATION, value=FULL_UTILIZATION)])
        ways.append([Change(key=UTILIZATION, value=share) for share in LOWER if share < engine.gpu_memory_utilization])
    if engine.max_num_seqs > 1:
        halves = [engine.max_num_seqs >> power for power in range(1, MOST_HALVINGS)]
        ways.append([Change(key="rollout.engine.max_num_seqs", value=number) for number in halves if number >= 1])
    return [way for way in ways if way]
