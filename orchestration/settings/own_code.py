"""Which settings name code of the user, by the mark `OwnCode` of their annotation."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from conf.own_code import OwnCode, OwnCodeError, check_own, is_own
from orchestration.settings.describe import alternatives, bare, setting_type
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

T = TypeVar("T")
Change = Callable[[str, str], str]
"""Takes the dotted key of a setting and the code that it names, and returns what is written in its place."""


def own_code(config: Any) -> dict[str, str]:
    """Return the code that settings name, by dotted key.

    Args:
        config: the settings of a run, or a record of some of them; keys then begin below it.
    """
    found: dict[str, str] = {}

    def note(key: str, text: str) -> str:
        found[key] = text
        return text

    with_own_code(config, note)
    return found


def with_own_code(config: T, change: Change) -> T:
    """Return settings in which what names code of the user is changed."""
    changed: T = _changed(config, type(config), "", change)
    return changed


def with_own_code_in(values: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return composed settings, which are no records yet, in which what names code of the user is changed."""
    changed: dict[str, Any] = _changed(values, ExperimentConfig, "", change)
    return changed


def check_own_code(config: ExperimentConfig) -> None:
    """Check that the files of all own code are there and hold what the settings name; nothing of it is run.

    Raises:
        ConfigError: with a line for each that is not.
    """
    refused = []
    for key, text in own_code(config).items():
        try:
            check_own(key, text)
        except OwnCodeError as error:
            refused.append(str(error))
    if refused:
        raise ConfigError("; ".join(refused))


def _changed(value: Any, annotation: Any, key: str, change: Change) -> Any:
    """Return a value with what its annotation marks as own code changed; the same object where there is none."""
    if isinstance(value, str):
        return change(key, value) if _is_marked(annotation) and is_own(value) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        before = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        after = {name: _changed(inner, hints[name], _below(key, name), change) for name, inner in before.items()}
        differing = {name: inner for name, inner in after.items() if inner is not before[name]}
        return dataclasses.replace(value, **differing) if differing else value
    if isinstance(value, Mapping):
        members = {name: setting_type(str(name), annotation) for name in value}
        found = {name: _changed(inner, members[name], _below(key, str(name)), change) for name, inner in value.items()}
        return found if any(found[name] is not value[name] for name in value) else value
    if isinstance(value, list | tuple):
        items = [_changed(item, _item(annotation, i), f"{key}[{i}]", change) for i, item in enumerate(value)]
        is_same = all(item is before for item, before in zip(items, value, strict=True))
        return value if is_same else type(value)(items)
    return value


def _is_marked(annotation: Any) -> bool:
    marks = [mark for kind in alternatives(annotation) for mark in getattr(kind, "__metadata__", ())]
    return any(isinstance(mark, OwnCode) for mark in marks)


def _item(annotation: Any, index: int) -> Any:
    """Return the annotation of one item of a tuple; None for anything else."""
    for kind in map(bare, alternatives(annotation)):
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)
            return inner[0] if inner[-1] is Ellipsis else inner[min(index, len(inner) - 1)]
    return None


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
