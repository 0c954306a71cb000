"""What is typed behind a verb: the options `--config FILE` and `--config-dir FOLDER`, and values of `key=value`."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.ranges import nearest
from orchestration.settings.describe import is_text, members, setting_type
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.groups import EMPTY_GROUPS
from orchestration.settings.strict import unknown_key

OPTIONS = {"--config": "FILE", "--config-dir": "FOLDER"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What was typed behind a verb that composes settings."""

    overrides: tuple[str, ...]
    """key=value, and whatever else is no option of these."""
    config: Path | None
    """File of settings that is laid over the defaults."""
    config_dir: Path | None
    """Folder of groups of YAML files."""

    def written(self) -> tuple[str, ...]:
        """Return the arguments as one would type them."""
        options = {"--config": self.config, "--config-dir": self.config_dir}
        return (*(f"{option}={path}" for option, path in options.items() if path is not None), *self.overrides)


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Return the arguments with `--config FILE` and `--config-dir FOLDER` taken out; of two the last counts.

    Raises:
        ConfigError: an option has no value.
    """
    found: dict[str, Path] = {}
    overrides: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if option not in OPTIONS:
            overrides.append(argument)
            continue
        value = value if equals else next(waiting, "")
        if not value.strip():
            raise ConfigError(f"{option} names nothing; write {option} {OPTIONS[option]}")
        found[option] = Path(value).expanduser().absolute()
    return Arguments(overrides=tuple(overrides), config=found.get("--config"), config_dir=found.get("--config-dir"))


def as_written(value: Any) -> str:
    """Return a value as it is written behind `key=`, whatever signs it holds.

    Example:
        >>> as_written([1, True, None, "a, b"]), as_written({"path": "my.py:score"})
        ("[1,true,null,'a, b']", "{path:'my.py:score'}")
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_written({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    return quoted(str(value).replace("${", r"\${"))


def quoted(text: str) -> str:
    r"""Return text in single quotes, as Hydra's grammar reads it: backslashes count before a quote alone.

    Example:
        >>> print(quoted("it's"), quoted("C:\\"))
        'it\'s' 'C:\\'
    """
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


SOURCES = "data.recipe.sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """Settings that were read from a file."""

    choices: tuple[str, ...]
    """Files of groups that it chooses, `experiment: cpu_quick`, as arguments."""
    values: Mapping[str, Any]
    """Everything else."""


def read_settings_file(path: Path) -> SettingsFile:
    """Read a run's config.json, what `mixed-r1 config` prints, or a few settings as YAML.

    A group with a text in place of settings, `experiment: cpu_quick` or `learner/lora: default`, chooses a file.

    Raises:
        ConfigError: it cannot be read, or holds a key that is no setting.
    """
    values = _read(path)
    choices = [_choice(str(key), value) for key, value in values.items() if _is_choice(str(key), value)]
    values = {key: value for key, value in values.items() if not _is_choice(str(key), value)}
    try:
        _check_keys(values, ExperimentConfig, "")
    except ConfigError as error:
        raise ConfigError(f"--config={path}: {error}") from error
    return SettingsFile(choices=tuple(filter(None, choices)), values=values)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings in which those of `above` take the place of those below.

    Sources are those of `above` alone: the demo's are not added to another recipe's.
    """
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            if f"{prefix}{key}" == SOURCES:
                under = {name: under[name] for name in value if name in under}
            found[key] = laid_over(under, value, f"{prefix}{key}.")
        else:
            found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"--config={path} {_absence(path)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values: Any = json.loads(text) if path.suffix == ".json" else _Loader(text).get_single_data()
    except OSError as error:
        raise ConfigError(f"--config={path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config={path} is no UTF-8 text ({error}); save it as UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"--config={path} is not whole JSON ({error}); copy it again") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config={path} is no YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"--config={path} holds {type(values).__name__}, not settings; write `key: value` lines")
    if "defaults" in values:
        raise ConfigError(
            f"--config={path} holds `defaults`, as a file of a group does; choose it as experiment=NAME from a folder: "
            "--config-dir FOLDER, or choose files here by lines such as `experiment: cpu_quick`"
        )
    return values


def _absence(path: Path) -> str:
    if path.is_dir():
        held = [name for name in ("config.json", "config.yaml") if (path / name).is_file()]
        return f"is a folder; write {path / held[0]}" if held else "is a folder; a folder of YAML files is --config-dir"
    beside = [other.name for other in path.parent.iterdir() if other.is_file()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    return f"does not exist; did you mean {path.parent / near}?" if near else "does not exist; correct the path"


def _is_choice(key: str, value: Any) -> bool:
    if not isinstance(value, str | None) or (value is None and key not in EMPTY_GROUPS):
        return False
    annotation = setting_type(key.replace("/", "."))
    return key in EMPTY_GROUPS or (annotation is not None and not is_text(annotation) and bool(members(annotation)))


def _choice(key: str, value: str | None) -> str:
    return f"{'+' if '/' in key else ''}{key}={value}" if value is not None else ""


def _check_keys(values: Mapping[str, Any], annotation: Any, path: str) -> None:
    """Refuse keys that are no settings, with the nearest one."""
    for name, value in values.items():
        inner = setting_type(str(name), annotation)
        if inner is None:
            raise ConfigError(unknown_key(str(name), [*members(annotation), *(EMPTY_GROUPS if not path else ())], path))
        if isinstance(value, Mapping) and members(inner):
            _check_keys(value, inner, f"{path}.{name}" if path else str(name))
