"""How a run scores held-out data, and the names of the metrics that come of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from orchestration.settings.errors import ConfigError
from rewards.core.config import RewardConfig

KINDS = ("sampled", "sampled_task", "greedy", "greedy_task", "format")
"""Means of a reward function's score that are metrics of the run."""
MEAN = "mean"
"""Stands for a function in the names of the means over all of them."""
MEAN_KINDS = ("sampled", "greedy")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutSetConfig:
    """One more held-out set, scored beside data.held_out."""

    path: Annotated[str, "path", MinLen(1)]
    """Parquet file or folder of shards."""
    every_steps: Annotated[int, Ge(1)] | None = None
    """Score it during the run too, after every k-th step; null only before and after."""
    num_samples: Annotated[int, Ge(1)] | None = None
    """Rows that the seed draws from it; null takes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a run scores held-out data before and after."""

    samples_per_family: Annotated[int, Ge(1)]
    completions_per_sample: Annotated[int, Ge(1)]
    """Sampled at rollout.sampling.temperature, beside one greedy completion."""
    enabled: bool = True
    every_steps: Annotated[int, Ge(1)] | None = None
    """Score held-out data during the run too, after every k-th step; null only before and after."""
    sets: Mapping[str, HeldOutSetConfig] = field(default_factory=dict)
    """By name: further held-out sets, each at its own rhythm; their scores are held_out/set/NAME/..."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the probability that held-out completions are sampled from; training takes all."""
    top_k: Annotated[int, Ge(0)] = 0
    """Most likely tokens that held-out completions are sampled from; 0 is all of them."""
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    """Least probability of a token of held-out completions, as a share of the most likely one's."""
    stop: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Texts that end a held-out completion, greedy or sampled, and are cut from it."""
    keeps_stop: bool = False
    """Leave the text of `stop` in held-out completions."""

    def __post_init__(self) -> None:
        for name in self.sets:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ConfigError(f"evaluation.sets names {name!r}, a part of metrics; use letters, digits, _ and -")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutMetric:
    """What a held-out metric is a mean of."""

    set_name: str | None
    """Of evaluation.sets; None for data.held_out."""
    function: str
    """Reward function, or MEAN."""


def held_out_metrics(reward: RewardConfig, evaluation: EvaluationConfig) -> dict[str, HeldOutMetric]:
    """Return the held-out metrics of a run by name, those of functions and their mean; sources are left out."""
    functions = sorted({route.function for route in reward.every_route()})
    prefixes: dict[str | None, str] = {None: "held_out", **{name: f"held_out/set/{name}" for name in evaluation.sets}}
    return {
        f"{prefix}/{function}/{kind}": HeldOutMetric(set_name=name, function=function)
        for name, prefix in prefixes.items()
        for function, kinds in [(MEAN, MEAN_KINDS), *((function, KINDS) for function in functions)]
        for kind in kinds
    }
