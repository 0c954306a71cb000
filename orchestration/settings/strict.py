"""Plain mappings -> frozen dataclasses, strictly: keys, types and ranges are checked, and secrets are refused."""

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from conf.ranges import nearest, out_of_range
from orchestration.settings.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], values: object, path: str = "") -> T:
    """Build the dataclass `cls` from a mapping.

    Args:
        cls: a dataclass whose fields are int, float, bool, str, Literal, tuple, Mapping, a dataclass, or `X | None`,
            with their ranges, if they have any, as `Annotated[int, Ge(1)]`.
        values: the mapping, as YAML gives it.
        path: dotted path of the mapping, for messages.

    Raises:
        ConfigError: with the dotted path, what was found, and what is allowed.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'config'} must be a mapping of settings; got {values!r}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(unknown_key(str(key), list(fields), path))
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            key = _join(path, name)
            raise ConfigError(f"{key} is missing; set it in the YAML or on the command line: {key}=VALUE")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def unknown_key(key: str, known: list[str], path: str, *, kind: str = "setting") -> str:
    """Return a message that a key, or another kind of name, does not exist, with the nearest one."""
    near = nearest(key, known)
    hint = f"did you mean {_join(path, near)}?" if near else f"known {kind}s: {', '.join(sorted(known))}"
    return f"{_join(path, key)} is not a {kind}; {hint}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _convert(hint: Any, value: object, path: str, *, or_null: str = "") -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_optional(hint, value, path)
    if origin is Annotated:
        inner, *declared = typing.get_args(hint)
        value = _convert(inner, value, path)
        remedy = out_of_range(value, declared)
        if remedy is not None:
            raise ConfigError(f"{path} is {_shown(value)}; {remedy}{or_null}")
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)  # type: ignore[arg-type]
    if origin is Literal:
        return _convert_literal(typing.get_args(hint), value, path)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, path)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _convert_mapping(typing.get_args(hint), value, path)
    return _convert_scalar(hint, value, path)


def _convert_optional(hint: Any, value: object, path: str) -> Any:
    choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
    if value is None and type(None) in typing.get_args(hint):
        return None
    # By its form, so that a message names the key below or the range.
    likely = [choice for choice in choices if _is_of_keys(choice) is isinstance(value, Mapping)]
    choices = likely or choices
    if len(choices) == 1:
        return _convert(choices[0], value, path, or_null=", or null" if type(None) in typing.get_args(hint) else "")
    for choice in choices:
        try:
            return _convert(choice, value, path)
        except ConfigError:
            continue
    raise ConfigError(f"{path} is {value!r}; allowed is one of {', '.join(map(str, choices))}")


def _is_of_keys(hint: Any) -> bool:
    """Return whether a type is written as a mapping: settings of their own, or names of the user's."""
    origin = typing.get_origin(hint)
    return dataclasses.is_dataclass(hint) or (isinstance(origin, type) and issubclass(origin, Mapping))


def _convert_literal(allowed: tuple[Any, ...], value: object, path: str) -> Any:
    for choice in allowed:
        if value == choice and type(value) is type(choice):
            return value
    near = nearest(str(value), map(str, allowed), cutoff=0.6)
    hint = f"; did you mean {near}?" if near else ""
    raise ConfigError(f"{path} is {value!r}; allowed: {', '.join(map(str, allowed))}{hint}")


def _convert_tuple(inner: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path} must be a list; got {value!r}; write [{value}]")
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_convert(inner[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if len(inner) != len(value):
        raise ConfigError(f"{path} must hold {len(inner)} values; got {len(value)}: {value!r}")
    return tuple(_convert(hint, item, f"{path}[{i}]") for i, (hint, item) in enumerate(zip(inner, value, strict=True)))


def _convert_mapping(inner: tuple[Any, ...], value: object, path: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} must be a mapping; got {value!r}")
    for key in value:
        if not isinstance(key, inner[0]):
            raise ConfigError(f"{path} has the key {key!r} ({type(key).__name__}); write it as {inner[0].__name__}")
    return {key: _convert(inner[1], item, _join(path, str(key))) for key, item in value.items()}


def _convert_scalar(hint: Any, value: object, path: str) -> Any:
    if hint is Any or hint is object:
        return value
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{path} is {value}; use a number that fits into 64 bits")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        number = _whole_number(value) if hint is int else None
        written = "" if number is None else f"; write {number}"
        raise ConfigError(f"{path} must be {hint.__name__}; got {value!r} ({type(value).__name__}){written}")
    if remedy := out_of_range(value):
        raise ConfigError(f"{path} is {value!r}; {remedy}")
    return value


def _whole_number(value: object) -> int | None:
    """Return the whole number that a value of another type, such as 1e6, stands for; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


SECRET_WORDS = re.compile(
    r"(^|[^a-z0-9])(token|secret|authorization|cookie|password|passwd|passphrase|credentials?|(api|access|secret|private)_?key(_?id)?)$",
    re.IGNORECASE,
)
"""The end of a name that holds a secret: HF_TOKEN, api_key, AWS_ACCESS_KEY_ID, but not max_tokens or token_budget."""
VARIABLE_KEY = re.compile(r"_KEY$")
"""Environment variables such as KAGGLE_KEY; settings in lower case may well end in `key`."""
SECRET_VALUE = re.compile(
    r"://[^/@\s:]*:[^/@\s]+@"  # user:password@host
    r"|\b(hf_|gh[pousr]_|sk-|AKIA)[A-Za-z0-9_-]{16,}"  # what well-known services begin theirs with
)
PUBLISHED = ("model.hf_config", "model.hf_processor", "model.tiny")
"""Copies of public files and what is written like them, whose `token` settings name parts of a vocabulary."""
REMEDY = (
    "settings are written to run_dir and shown in logs and dashboards. Set it as an environment variable on the "
    "machines instead; cluster.pass_environment takes it from the driver to every actor by its name, and "
    "submit.require_environment refuses to begin without it"
)


def is_secret_name(name: str) -> bool:
    """Return whether a setting or variable of this name would hold a secret.

    Example:
        >>> is_secret_name("WANDB_API_KEY"), is_secret_name("max_completion_tokens")
        (True, False)
    """
    return bool(SECRET_WORDS.search(name) or VARIABLE_KEY.search(name))


def refuse_secrets(values: Mapping[str, object]) -> None:
    """Raise ConfigError where composed settings hold a secret, naming the key, never its value."""
    for key, value in _leaves(values, ""):
        if not key.startswith(PUBLISHED):
            _refuse(key, value)


def refuse_secret_overrides(overrides: Sequence[str]) -> None:
    """Raise ConfigError where `key=value` arguments hold a secret, before anything repeats them in a message."""
    for override in overrides:
        key, _, value = override.partition("=")
        if not key.lstrip("+~").startswith(PUBLISHED):
            _refuse(key.lstrip("+~"), None if value == "null" else value)


def _refuse(key: str, value: object) -> None:
    if not isinstance(value, str) or value == "":
        return
    if is_secret_name(key):
        raise ConfigError(f"{key} looks like a secret, and {REMEDY}")
    if SECRET_VALUE.search(value):
        raise ConfigError(f"the value of {key} looks like it holds a secret, and {REMEDY}")


def _leaves(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Yield every value that is no container, with its dotted key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{index}]")
    else:
        yield key, value
