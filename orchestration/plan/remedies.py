"""What would make a run fit: settings are changed one after the other, and memory is counted again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from orchestration.settings.experiment import ExperimentConfig

MOST_HALVINGS = 6
MOST_DOUBLINGS = 24
FULL_UTILIZATION = 0.95
"""Share of a GPU that an engine may be given where nothing else stands on it."""

LOWER = (0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
UTILIZATION = "rollout.engine.gpu_memory_utilization"

Fits = Callable[[ExperimentConfig], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting with another value.

    Example:
        >>> Change(key="learner.activation_checkpointing", value=True).words
        'learner.activation_checkpointing=true'
    """

    key: str
    value: Any

    @property
    def words(self) -> str:
        """As it is written on the command line."""
        return f"{self.key}={str(self.value).lower() if isinstance(self.value, bool) else self.value}"


def apply(config: ExperimentConfig, change: Change) -> ExperimentConfig:
    """Give the config with one value changed.

    Raises:
        ValueError: its group of settings refuses the value.
    """
    return _replaced(config, change.key.split("."), change.value)  # type: ignore[no-any-return]


def _replaced(record: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return replace(record, **{name: _replaced(getattr(record, name), rest, value) if rest else value})


def what_fits(config: ExperimentConfig, changes: list[list[Change]], fits: Fits) -> str:
    """Say which changes make it fit: each that does so alone, else the first of them together.

    Args:
        config: that does not fit.
        changes: ways to save, each a list of ever stronger values of one key; the cheapest way first.
        fits: counts again.
    """
    alone = [found.words for way in changes if (found := _first(config, way, fits)) is not None]
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
            return f"no single change suffices; together {', '.join(change.words for change in taken)} would fit"
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
