"""YAML to frozen records: every mistake names its dotted path."""

from dataclasses import dataclass
from typing import Literal

import pytest

from orchestration.config.strict import build
from orchestration.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    learning_rate: float
    name: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    freeze: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.learning_rate < 0:
            raise ValueError(f"inner.learning_rate is {self.learning_rate}; use 0 or more")


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
        ({"inner": {}}, r"inner\.learning_rate is missing"),
        ({"inner": {"learning_rate": "fast"}}, r"inner\.learning_rate must be float; got 'fast'"),
        (
            {"inner": {"learning_rate": 1.0, "name": "adam"}},
            r"inner\.name is 'adam'; allowed: adamw, muon; did you mean",
        ),
        ({"inner": {"learning_rate": 1.0, "betas": [0.9]}}, r"inner\.betas must hold 2 values; got 1"),
        ({"inner": {"learning_rate": 1.0, "freeze": "visual"}}, r"inner\.freeze must be a list"),
        ({"inner": {"learning_rate": 1.0, "limit": "x"}}, r"inner\.limit must be int"),
        ({"inner": {"learning_rate": -1.0}}, r"inner\.learning_rate is -1\.0; use 0 or more"),
        ({"inner": {"learning_rate": 1.0}, "seed": True}, r"seed must be int; got True"),
        ({"inner": {"learning_rate": 1.0}, "verbose": 1}, r"verbose must be bool"),
        ({"inner": 3}, r"inner must be a mapping"),
    ],
)
def test_mistake_is_named_by_its_path(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, values)
