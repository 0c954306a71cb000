"""Every number of the settings has a range that stands beside it, and a value outside is refused by its key."""

import contextlib
import copy
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import annotated_types as at
import pytest

from learner.config import LoraConfig
from orchestration.cli import compose
from orchestration.plan.command import plan_text
from orchestration.plan.plan import plan_run
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.recipe import BandConfig
from rewards.core.base import RewardError
from rewards.core.config import RewardConfig, RewardRule
from tests.unit.plan.runs import GPU_RUN

MAY_BE_EMPTY = (
    "cluster_key",  # rows are independent
    "function",  # of a rule: the task's own
    "idf_path",  # no weighting
    "label",  # the name in the recipe
    "license",  # the adapter's note
    "model_path",  # set once the model exists
    "source",  # of a rule: every one
    "system_prompt",  # no system turn
    "task",  # of a rule: every one
)
"""Texts of which the empty one has a meaning, by the last part of the key."""


def filled(*overrides: str) -> dict[str, Any]:
    """Return settings with something in every list and mapping of records."""
    values = compose(["run_dir=/runs/x", "evaluate.num_completions=1", *overrides])
    values["learner"]["lora"] = dataclasses.asdict(LoraConfig())
    values["reward"]["rules"] = [dataclasses.asdict(RewardRule(task="chart", format_weight=0.1))]
    values["reward"]["functions"] = {"mine": {"path": "mine.py:score", "timeout_s": 5.0, "start_timeout_s": 60.0}}
    values["reward"]["routes"]["sum"] = {"chart": 1.0, "mine": {"weight": -0.5, "above": {"chart": 0.5}}}
    values["cluster"]["nodes"] = [{"count": 1, "gpus": 8, "gpu": "h100_80gb", "cpus": 96, "memory_gib": 1024.0}]
    values["learner"]["freeze"] = ["vision_tower"]
    values["submit"]["driver"]["resources"] = {"login": 1.0}
    values["data"]["stream"] |= {"tasks": ["chart"], "mixture_by": "task", "weights": {"chart": 1.0, "iou": 1.0}}
    shares = {"easy": 1.0, "hard": 1.0}
    values["data"]["stream"]["curriculum"] |= {"kind": "static", "start": shares, "end": dict(shares)}
    if values["data"]["recipe"] is not None:
        values["data"]["recipe"]["select"] = {
            "bands": {"chart": dataclasses.asdict(BandConfig())},
            "quotas": {"chart": 1},
            "strata": {"easy": [0.0, 1.0]},
        }
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One number or text that a user may set."""

    keys: tuple[str | int, ...]
    kind: type
    bounds: tuple[Any, ...]

    @property
    def path(self) -> str:
        """The key as messages have it."""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).removeprefix(".")


def leaves(hint: Any, value: Any, keys: tuple[str | int, ...] = (), bounds: tuple[Any, ...] = ()) -> Iterator[Leaf]:
    """Yield every number and text below a type, with the keys under which a filled setting has it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield from leaves(inner[0], value, keys, tuple(inner[1:]))
    elif origin in (typing.Union, types.UnionType):
        choices = [choice for choice in inner if choice is not type(None)]
        if len(choices) > 1:
            plain = {choice: getattr(choice, "__origin__", choice) for choice in choices}  # of Annotated, what is so
            choices = [choice for choice in choices if isinstance(value, plain[choice])]
        (choice,) = choices
        if value is not None or not dataclasses.is_dataclass(choice):
            yield from leaves(choice, value, keys)
    elif dataclasses.is_dataclass(hint):
        for name, field in typing.get_type_hints(hint, include_extras=True).items():
            yield from leaves(field, getattr(value, name), (*keys, name))
    elif origin is tuple:
        for index, item in enumerate(value or ()):
            yield from leaves(inner[0] if inner[-1] is Ellipsis else inner[index], item, (*keys, index))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        for key, item in value.items() if value else ():
            yield from leaves(inner[1], item, (*keys, key))
    elif hint in (int, float, str):
        yield Leaf(keys, hint, bounds)


FILLED = filled()
LEAVES = tuple(leaves(ExperimentConfig, build_settings(FILLED)))
NUMBERS = tuple(leaf for leaf in LEAVES if leaf.kind is not str)


def changed(leaf: Leaf, value: object, values: Mapping[str, Any] = FILLED) -> dict[str, Any]:
    """Return a copy of the settings with one of them changed."""
    result = copy.deepcopy(dict(values))
    place: Any = result
    for key in leaf.keys[:-1]:
        # Settings that YAML leaves to the default of their record are not there.
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[leaf.keys[-1]] = value
    return result


def outside(leaf: Leaf) -> Iterator[object]:
    """Yield the values next to the range of a number, and what is no such number at all."""
    for bound in leaf.bounds:
        if isinstance(bound, at.Gt | at.Lt):
            yield leaf.kind(bound.gt if isinstance(bound, at.Gt) else bound.lt)
        elif isinstance(bound, at.Ge):
            yield bound.ge - 1 if leaf.kind is int else math.nextafter(bound.ge, -math.inf)
        elif isinstance(bound, at.Le):
            yield bound.le + 1 if leaf.kind is int else math.nextafter(bound.le, math.inf)
    yield from (math.nan, math.inf, -math.inf) if leaf.kind is float else (1.5, 2.0)
    yield from ("1", True, [1])


def smallest(leaf: Leaf) -> float:
    """Return the smallest value of a number's range; of an open one, something near its end."""
    for bound in leaf.bounds:
        if isinstance(bound, at.Ge):
            return leaf.kind(bound.ge)
        if isinstance(bound, at.Gt):
            return math.nextafter(bound.gt, math.inf)
    raise AssertionError(f"{leaf.path} has no lower bound")


def test_every_number_declares_where_it_begins():
    assert len(NUMBERS) > 150
    for leaf in NUMBERS:
        assert any(isinstance(bound, at.Ge | at.Gt) for bound in leaf.bounds), leaf.path
        assert all(isinstance(bound, at.Ge | at.Gt | at.Le | at.Lt) for bound in leaf.bounds), leaf.path


@pytest.mark.parametrize("leaf", NUMBERS, ids=lambda leaf: leaf.path)
def test_a_number_outside_of_its_range_is_refused_by_its_key(leaf):
    for value in outside(leaf):
        with pytest.raises(ConfigError) as refused:
            build_settings(changed(leaf, value))
        assert str(refused.value).startswith((f"{leaf.path} is {value!r}; use ", f"{leaf.path} must be "))


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_refused_where_it_means_nothing(text):
    for leaf in LEAVES:
        if leaf.kind is str and leaf.keys[-1] not in MAY_BE_EMPTY:
            with pytest.raises(ValueError, match=re.escape(leaf.path)):
                build_settings(changed(leaf, text))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("learner.lora.target_modules", r"target_modules is \[\]; name at least 1"),
        ("cluster.nodes[0].roles", r"roles is \[\]; name at least 1"),
    ],
)
def test_an_empty_list_is_refused_where_something_must_be_named(key, message):
    keys = tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", key))
    with pytest.raises(ConfigError, match=re.escape(key.rsplit(".", 1)[0]) + r"\." + message):
        build_settings(changed(Leaf(keys, str, ()), []))


def test_null_is_offered_where_it_is_allowed():
    with pytest.raises(ConfigError, match=r"^rollout\.max_engines is 0; use 1 or more, or null$"):
        build_settings(compose(["rollout.max_engines=0"]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tolerance": 2.0}, "reward.rules[0].parameters.tolerance is 2.0; use a value above 0 and below 1"),
        ({"tolerance": math.nan}, "reward.rules[0].parameters.tolerance is nan; use a finite number"),
        ({"max_chars": 0}, "reward.rules[0].parameters.max_chars is 0; use 1 or more"),
    ],
)
def test_what_a_rule_changes_has_the_range_of_its_section(parameters, message):
    with pytest.raises(RewardError, match=re.escape(message)):
        RewardConfig(rules=(RewardRule(task="chart", parameters=parameters),))


def largest(leaf: Leaf) -> float:
    """Return the largest value of a number's range; of an open one, something far out."""
    for bound in leaf.bounds:
        if isinstance(bound, at.Le):
            return leaf.kind(bound.le)
        if isinstance(bound, at.Lt):
            return math.nextafter(bound.lt, -math.inf)
    return 2**63 - 1 if leaf.kind is int else 1.7e308


@pytest.mark.parametrize(
    ("base", "end"),
    [
        pytest.param((), smallest, id="smallest"),
        pytest.param(GPU_RUN, smallest, id="gpu-smallest", marks=pytest.mark.slow),
        pytest.param((), largest, id="largest", marks=pytest.mark.slow),
        pytest.param(GPU_RUN, largest, id="gpu-largest", marks=pytest.mark.slow),
    ],
)
def test_the_end_of_every_range_is_planned_or_refused_in_words(base, end):
    values = filled(*base)
    for leaf in leaves(ExperimentConfig, build_settings(values)):
        if leaf.kind is not str:
            with contextlib.suppress(ConfigError):
                plan_text(plan_run(build_settings(changed(leaf, end(leaf), values))))
