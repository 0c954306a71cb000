"""YAML to frozen records: every mistake names its dotted path."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    learning_rate: Annotated[float, Ge(0)]
    name: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    freeze: tuple[str, ...] = ()
    limit: int | None = None

    stage: Literal[1, 2] = 1
    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit > self.learning_rate:
            raise ValueError(f"inner.limit is {self.limit}; it is above inner.learning_rate={self.learning_rate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner
    seed: int = 0
    verbose: bool = False


def test_nested_mapping_becomes_the_record() -> None:
    outer = build(Outer, {"inner": {"learning_rate": 1, "freeze": ["visual.*"], "betas": [0.9, 0.95]}, "seed": 3})
    assert outer == Outer(inner=Inner(learning_rate=1.0, freeze=("visual.*",), betas=(0.9, 0.95)), seed=3)
    assert isinstance(outer.inner.learning_rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"learning_rat": 1.0}}, r"inner\.learning_rat is not a setting; did you mean inner\.learning_rate"),
        ({"inner": {}}, r"inner\.learning_rate is missing; .*: inner\.learning_rate=VALUE"),
        ({"inner": {"learning_rate": "fast"}}, r"inner\.learning_rate must be float; got 'fast'"),
        (
            {"inner": {"learning_rate": 1.0, "name": "adam"}},
            r"inner\.name is 'adam'; allowed: adamw, muon; did you mean",
        ),
        ({"inner": {"learning_rate": 1.0, "betas": [0.9]}}, r"inner\.betas must hold 2 values; got 1"),
        ({"inner": {"learning_rate": 1.0, "freeze": "visual"}}, r"inner\.freeze must be a list"),
        ({"inner": {"learning_rate": 1.0, "limit": "x"}}, r"inner\.limit must be int; got 'x' \(str\)$"),
        ({"inner": {"learning_rate": 1.0, "limit": 1e6}}, r"inner\.limit must be int; .*\(float\); write 1000000$"),
        ({"inner": {"learning_rate": 1.0, "limit": "1_000"}}, r"inner\.limit must be int; .*\(str\); write 1000$"),
        ({"inner": {"learning_rate": 1.0, "limit": 1.5}}, r"inner\.limit must be int; got 1\.5 \(float\)$"),
        ({"inner": {"learning_rate": 1.0, "limit": math.nan}}, r"inner\.limit must be int; got nan \(float\)$"),
        ({"inner": {"learning_rate": -1.0}}, r"inner\.learning_rate is -1\.0; use 0 or more"),
        ({"inner": {"learning_rate": 1.0, "limit": 2}}, r"inner\.limit is 2; it is above"),
        ({"inner": {"learning_rate": 1.0, "betas": [0.9, math.inf]}}, r"inner\.betas\[1\] is inf; use a finite number"),
        ({"inner": {"learning_rate": 1.0, "stage": True}}, r"inner\.stage is True; allowed: 1, 2"),
        ({"inner": {"learning_rate": 1.0, "weights": {"a": -1}}}, r"inner\.weights\.a is -1\.0; use 0 or more"),
        ({"inner": {"learning_rate": 1.0, "weights": {1: 1}}}, r"inner\.weights has the key 1 \(int\)"),
        ({"inner": {"learning_rate": 1.0}, "seed": 2**63}, r"seed is 9223372036854775808; use a number that fits into"),
        ({"inner": {"learning_rate": 1.0}, "seed": True}, r"seed must be int; got True"),
        ({"inner": {"learning_rate": 1.0}, "verbose": 1}, r"verbose must be bool"),
        ({"inner": 3}, r"inner must be a mapping"),
    ],
)
def test_mistake_is_named_by_its_path(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, values)


def test_null_is_refused_where_a_choice_of_types_does_not_name_it() -> None:
    from rewards import RewardConfig

    with pytest.raises(ConfigError, match=r"^reward\.functions\.mine must be str; got None"):
        build(RewardConfig, {"functions": {"mine": None}}, "reward")
