"""The demo's tiny models by name, for tests that need a model folder; read without Hydra, which GPU tests lack."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from orchestration.demo import tiny_model
from orchestration.settings.model import ModelConfig, TinyModel
from orchestration.settings.strict import build

CONF = Path(__file__).parents[1] / "conf" / "model"
TINY_MODELS = sorted(path.stem.removeprefix("tiny_") for path in CONF.glob("tiny_*.yaml"))
"""NAME of each model=tiny_NAME."""


@cache
def tiny_config(name: str) -> ModelConfig:
    """The settings `model=tiny_NAME`."""
    return build(ModelConfig, _read(f"tiny_{name}"), "model")


def _read(stem: str) -> dict[str, Any]:
    """A file of the config group over those that its defaults name."""
    values: dict[str, Any] = yaml.safe_load((CONF / f"{stem}.yaml").read_text())
    found: dict[str, Any] = {}
    defaults = values.pop("defaults", ["_self_"])
    for default in [each for each in defaults if isinstance(each, str)]:  # not what it overrides in other groups
        found = _laid_over(found, values if default == "_self_" else _read(default))
    return found


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _laid_over(below[key], above[key]) for key in below.keys() & above.keys()
            if isinstance(below[key], Mapping) and isinstance(above[key], Mapping)}  # fmt: skip
    return {**below, **above, **both}


def tiny(name: str) -> TinyModel:
    """What the model is made of."""
    found = tiny_config(name).tiny
    assert found is not None
    return found


def make_tiny_model(folder: Path, name: str = "qwen2_5_vl", *, corpus: Iterable[str], seed: int = 0) -> None:
    """Write a model folder with random weights."""
    tiny_model.make_tiny_model(folder, tiny(name), corpus=corpus, seed=seed)
