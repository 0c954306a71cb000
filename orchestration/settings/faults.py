"""What is wrong with a `key=value` argument, in one line that names the way."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestration.settings.describe import setting_type
from orchestration.settings.errors import ConfigError
from orchestration.settings.groups import EMPTY_GROUPS, ConfigGroups
from orchestration.settings.strict import unknown_key

Composer = Callable[[Sequence[str]], dict[str, Any]]
"""Composes settings with some overrides."""
KEY = re.compile(r"(~|\+{0,2})[A-Za-z_][A-Za-z0-9_.@:/-]*(\[\d+\][A-Za-z0-9_.]*)*")
OTHER_FLAGS = {
    ("-m", "--multirun"): "one command is one run; repeat it in the shell: "
    "for seed in 0 1 2; do mixed-r1 train seed=$seed run_dir=runs/seed$seed; done",
    ("-cd", "-cp", "--config-path"): "a folder of YAML files of your own is --config-dir FOLDER, and experiment=NAME "
    "then takes FOLDER/experiment/NAME.yaml",
    ("-cn", "--config-name"): "experiment=NAME chooses a file of settings, and --config FILE takes one of your own",
    ("-c", "--cfg", "--resolve", "-i", "--info", "-p", "--package"): "mixed-r1 config prints the composed settings",
    ("-r", "--run", "-sc", "--shell-completion", "--hydra-help"): "of Hydra only key=value arguments are read",
}
"""Options of Hydra's, and what does the same here."""


def refuse_malformed(override: str, groups: ConfigGroups) -> None:
    """Refuse an argument that is no `key=value`, before Hydra's parser does."""
    key, equals, _ = override.partition("=")
    if override.startswith("-"):
        for flags, way in OTHER_FLAGS.items():
            if key in flags:
                raise ConfigError(f"{key} is an option of Hydra's that this command does not have; {way}")
        name = key.lstrip("-").replace("-", "_")
        hint = f"settings are written without dashes: {name}=VALUE" if setting_type(name) else "see --help"
        raise ConfigError(f"{key} is not an option; {hint}")
    if key.strip(".… ") == "":
        raise ConfigError(
            f"{override!r} has no key; leave it out, or write settings in its place: key=value"
            if override.strip()
            else "an argument is empty, perhaps an unset variable of the shell; leave it out, or write key=value"
        )
    if not equals and not override.startswith("~"):
        raise ConfigError(
            f"{override!r} is not key=value; write {override}=VALUE"
            if KEY.fullmatch(override) and (setting_type(override) or groups.is_group(override))
            else f"{override!r} is not key=value; a value with spaces is put in quotes of the shell: 'key=two words'"
        )
    if not KEY.fullmatch(key):
        raise ConfigError(f"{key!r} cannot be the name of a setting; write key=value, such as training.num_steps=5")
    if key.lstrip("+~").partition(".")[0] == "hydra":
        raise ConfigError(
            f"{key.lstrip('+~')} is not a setting; a folder of YAML files of your own is given as --config-dir FOLDER"
        )


def explain_first_fault(
    overrides: Mapping[str, str], error: Exception, composed: Composer, groups: ConfigGroups
) -> str:
    """Return what is wrong with the first override that fails, groups before values as Hydra takes them.

    Args:
        overrides: as Hydra reads them, to as they were typed.
        error: what Hydra raised for all of them.
        composed: composes with some of them.
        groups: of the command.
    """
    ordered = sorted(overrides, key=lambda override: not groups.is_group(key_of(override)))
    fault = error
    for number, override in enumerate(ordered):
        try:
            if len(ordered) > 1:
                composed(ordered[: number + 1])
                continue
        except Exception as found:
            fault = found
        return _explain(overrides[override], override, composed(ordered[:number]), fault, groups)
    return one_line(error)


def _explain(override: str, quoted: str, known: Mapping[str, Any], error: Exception, groups: ConfigGroups) -> str:
    """Return one line on what is wrong with an override of settings that compose without it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import GrammarParseError

    key, _, value = override.partition("=")
    plain = key_of(override)
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return _unreadable(plain, value)
    if groups.is_group(plain):
        is_to_add = "No match in the defaults list" in str(error) and not key.startswith("~")
        if is_to_add and value in groups.choices(plain):
            return f"{override}: these settings have no {plain} yet; add it with a plus sign: +{override}"
        if isinstance(error, RecursionError):
            return f"{override}: the `defaults` of its file lead back to it; take one of them out"
        is_absent = is_to_add or (
            value not in groups.choices(plain) and isinstance(error, MissingConfigException | ValueError)
        )
        return groups.no_choice(plain, value) if is_absent else f"{override}: {one_line(error)}"
    level: Any = known
    path = ""
    for part in plain.split("."):
        if level is None and path:
            return _null_level(path, part, groups)
        if not isinstance(level, Mapping):
            return f"{path} is one value and has no {part}"
        inner = f"{path}.{part}" if path else part
        if part not in level and inner != plain and setting_type(inner) is not None:
            return _null_level(inner, plain.removeprefix(f"{inner}."), groups)
        if part not in level:
            if not key.startswith(("+", "~")) and setting_type(plain) is not None:
                return f"{override}: names that a setting does not have yet are added with a plus sign: +{override}"
            if setting_type(inner) is not None:
                break
            return unknown_key(part, [*level, *(EMPTY_GROUPS if not path else ())], path)
        level, path = level[part], inner
    if key.startswith("+") and not key.startswith("++"):
        return f"{plain} is a setting already; leave the plus sign out: {plain}={value}"
    if "Ambiguous" in str(error) or "weep" in str(error):
        return _unreadable(plain, value)
    if isinstance(level, Mapping) and "={" in override:
        return f"{override}: names that a setting does not have yet are added with a plus sign: +{override}"
    if "nterpolation" in str(error) or isinstance(error.__cause__, GrammarParseError):
        fault = "what follows ${ is not a name that ends with }" if error.__cause__ is not None else one_line(error)
        return (
            f"{override}: {fault}; ${{name}} stands for the setting of that name, and \\${{name}} for the "
            "characters themselves"
        )
    return f"{override}: {one_line(error)}"


def _unreadable(key: str, value: str) -> str:
    """Return how a value that Hydra's grammar cannot read is written."""
    kind = setting_type(key)
    kind = getattr(kind, "__origin__", kind)  # of a number with a range, Annotated[int, Ge(1)]
    if kind in (int, float, bool):
        return f"{key} must be {kind.__name__}; got {value!r}"
    quoted = shlex.quote(f'{key}="{value}"') if value[:1] not in ("[", "{") else shlex.quote(f'{key}=["a, b", c]')
    return (
        f"{key}={value} cannot be read: text that holds any of , : = < ( ) [ ] {{ }} or a quote is put in quotes, and "
        f"these in quotes of the shell, such as {quoted}"
    )


def _null_level(path: str, part: str, groups: ConfigGroups) -> str:
    group = path.replace(".", "/")
    if choices := groups.choices(group):
        return f"{path} is null in these settings, so it has no {part}; add it first: +{group}={choices[0]}"
    parent = path.split(".")[0]
    others = ", ".join(f"{parent}={choice}" for choice in groups.choices(parent))
    return f"{path} is null in these settings, so it has no {part}" + (f"; choose {others}" if others else "")


def key_of(override: str) -> str:
    """Return the key of an argument, without + and ~."""
    return override.partition("=")[0].lstrip("+~")


def one_line(error: Exception) -> str:
    """Return the first line of Hydra's message, and all of what YAML's parser says, which names file and line last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if type(error).__module__.startswith(("hydra", "omegaconf")) else " ".join(" ".join(lines).split())
