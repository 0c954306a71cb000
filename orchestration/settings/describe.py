"""What the dataclasses of the settings say of a key: its type, and the text below its field."""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.strict import unknown_key


def setting_type(key: str, holder: Any = ExperimentConfig) -> Any:
    """Return the annotation of a setting; None where there is no such setting.

    Args:
        key: dotted, relative to `holder`.
        holder: annotation of the settings that hold it.

    Example:
        >>> setting_type("training.num_steps"), setting_type("training.num_step")
        (<class 'int'>, None)
    """
    found = holder
    for part in key.split("."):
        found = _member(found, part)
    return found


def default_of(key: str) -> Any:
    """Return the value that a setting has where nothing sets it; `dataclasses.MISSING` where it must be set.

    Example:
        >>> default_of("algorithm.normalise"), default_of("training.num_steps") is dataclasses.MISSING
        ('total', True)
    """
    holder, _, name = key.rpartition(".")
    for record in _records(setting_type(holder) if holder else ExperimentConfig):
        for field in dataclasses.fields(record):
            if field.name == name:
                if field.default_factory is not dataclasses.MISSING:
                    return field.default_factory()
                return field.default
    return dataclasses.MISSING


def members(annotation: Any) -> list[str]:
    """Return the names of the fields of an annotation's records; empty where it has none."""
    return [field.name for record in _records(annotation) for field in dataclasses.fields(record)]


def is_text(annotation: Any, *, or_mapping: bool = False) -> bool:
    """Return whether an annotation allows text alone, None aside, and mappings if they are allowed for."""
    kinds = [bare(kind) for kind in alternatives(annotation)]
    if or_mapping:
        kinds = [kind for kind in kinds if not _is_of_keys(kind)]
    return bool(kinds) and all(
        kind is str or (typing.get_origin(kind) is Literal and all(isinstance(v, str) for v in typing.get_args(kind)))
        for kind in kinds
    )


def is_path(annotation: Any) -> bool:
    """Return whether an annotation is `Annotated[str, "path"]`, None aside."""
    return any("path" in getattr(kind, "__metadata__", ()) for kind in alternatives(annotation))


def explain(key: str) -> str:
    """Return type and meaning of a setting, then of those that it holds, a line each.

    Raises:
        ConfigError: there is no such setting.
    """
    annotation: Any = ExperimentConfig
    path = ""
    for part in key.split("."):
        inner = _member(annotation, part)
        if inner is None:
            raise ConfigError(unknown_key(part, list(_meanings(annotation)), path))
        annotation, path = inner, f"{path}.{part}" if path else part
    lines = [f"{key} ({_spell(annotation)})", *textwrap.wrap(meaning(key), 108)]
    is_list = typing.get_origin(annotation) is tuple
    for kind in _records(typing.get_args(annotation)[0] if is_list else annotation):
        lines[1:] = lines[1:] or [str(inspect.getdoc(kind)).partition("\n")[0]]
        for name, text in _meanings(kind).items():
            line = f"  {name if is_list else f'{key}.{name}'} ({_spell(_member(kind, name))})"
            lines.append(f"{line}: {text}" if text else line)
    return "\n".join(lines)


def meaning(key: str) -> str:
    """Return the text below the field of a setting; empty where there is none."""
    holder, _, name = key.rpartition(".")
    return _meanings(setting_type(holder) if holder else ExperimentConfig).get(name, "")


def alternatives(annotation: Any) -> list[Any]:
    """Return the alternatives of an annotation, without None."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = typing.get_args(annotation) if is_union else (annotation,)
    return [kind for kind in kinds if kind is not types.NoneType]


def _records(annotation: Any) -> list[type]:
    """Return the dataclasses of an annotation."""
    found = map(bare, alternatives(annotation))
    return [kind for kind in found if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


def _is_of_keys(kind: Any) -> bool:
    """Return whether a type is written as a mapping: settings of their own, or names of the user's."""
    origin = typing.get_origin(kind)
    return dataclasses.is_dataclass(kind) or (isinstance(origin, type) and issubclass(origin, Mapping))


def bare(kind: Any) -> Any:
    """Return the type within `Annotated`."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _member(annotation: Any, name: str) -> Any:
    """Return the annotation of one field, or of a mapping's values; None where there is no such field."""
    for record in _records(annotation):
        if (found := typing.get_type_hints(record, include_extras=True).get(name)) is not None:
            return found
    for kind in map(bare, alternatives(annotation)):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return typing.get_args(kind)[1]
    return None


def _meanings(annotation: Any) -> dict[str, str]:
    """Return the text below each field of a dataclass, on one line; empty where a field has none."""
    found: dict[str, str] = {}
    for kind in _records(annotation):
        [body] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        name = ""
        for node in getattr(body, "body", ()):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                found[name] = ""
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
                found[name] = " ".join(str(node.value.value).split())
                name = ""
            else:
                name = ""
    return found


def _spell(annotation: Any) -> str:
    """Write an annotation as the command line would: `int`, `a | b`, `list of text`, `settings`, `or null`."""
    words = []
    for kind in map(bare, alternatives(annotation)):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is Literal:
            words.append(" | ".join(map(str, inner)))
        elif origin is tuple:
            words.append(f"list of {_spell(inner[0])}")
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            words.append(f"mapping to {_spell(inner[1])}")
        elif dataclasses.is_dataclass(kind):
            words.append("settings")
        else:
            words.append({str: "text", bool: "true | false", Any: "anything"}.get(kind, getattr(kind, "__name__", "")))
    if types.NoneType in typing.get_args(annotation):
        words.append("null")
    return " | ".join(words)
