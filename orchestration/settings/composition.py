"""YAML and `key=value` arguments become settings: the one file that knows Hydra."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import conf
from conf.ranges import nearest
from orchestration.settings.describe import is_path, is_text, setting_type
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.strict import refuse_secret_overrides, refuse_secrets, unknown_key

CONF = Path(conf.__file__).parent
EMPTY_GROUPS = ("experiment", "ablation")
"""Groups of settings from which nothing is chosen by default, so that the settings hold no key of theirs."""
KEY = re.compile(r"(~|\+{0,2})[A-Za-z_][A-Za-z0-9_.@:/-]*(\[\d+\][A-Za-z0-9_.]*)*")
NAMED_BY_USERS = ("reward.functions", "algorithm.tasks")
"""Mappings whose names are all the user's, so that a new one needs no plus sign."""
ONE_QUOTED = re.compile(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", re.DOTALL)
"""A value in quotes as a whole, which Hydra takes off."""
HYDRA_FLAGS = {
    ("-m", "--multirun"): "one command is one run; repeat it in the shell: "
    "for seed in 0 1 2; do mixed-r1 train seed=$seed run_dir=runs/seed$seed; done",
    ("-cd", "--config-dir", "-cp", "--config-path"): "a folder of YAML files of your own is added with "
    "'hydra.searchpath=[file:///FOLDER]', and experiment=NAME then takes FOLDER/experiment/NAME.yaml",
    ("-cn", "--config-name"): "experiment=NAME chooses a file of settings",
    ("-c", "--cfg", "--resolve", "-i", "--info", "-p", "--package"): "mixed-r1 config prints the composed settings",
    ("-r", "--run", "-sc", "--shell-completion", "--hydra-help"): "of Hydra only key=value arguments are read",
}


def compose(
    overrides: Sequence[str], *, is_for_here: bool = True, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Compose the YAML with overrides into a plain mapping.

    The value of a setting that is text is taken as it was typed, whatever Hydra's grammar makes of its signs; quotes
    around the whole of it are taken off. Of two values for one key the last one counts.

    Args:
        overrides: key=value, as they were typed.
        is_for_here: make folders absolute and expand ~; False leaves them as written, for another machine.
        base: settings over which chosen files and values are laid, as those of a run; None begins with the defaults.

    Raises:
        ConfigError: an override that does not parse, whose key or file does not exist, or that holds a secret.
    """
    refuse_secret_overrides(overrides)
    for override in overrides:
        _refuse_malformed(override)
    typed = {_as_typed(_as_added(override)): override for override in _without_nothing_chosen(overrides)}
    from hydra import initialize_config_module

    name = "config" if base is None else _store(base)
    with initialize_config_module(config_module="conf", version_base="1.3"):
        try:
            values = _composed(list(typed), name)
        except Exception as error:  # Hydra raises errors of a dozen libraries and kinds for what was typed
            raise ConfigError(_explain_first_fault(typed, error, name)) from error
    refuse_secrets(values)
    _settle_paths(values, ExperimentConfig, "", is_for_here=is_for_here)
    if is_for_here:
        for key in ("run_dir", "cache_dir"):
            if isinstance(values.get(key), str):
                values[key] = str(Path(values[key]).absolute())
    return values


def _store(base: Mapping[str, Any]) -> str:
    """Store settings for Hydra with no choice in any config group, and return their name."""
    from hydra.core.config_store import ConfigStore

    def literal(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: literal(item) for key, item in value.items()}
        if isinstance(value, list):
            return [literal(item) for item in value]
        return value.replace("${", r"\${") if isinstance(value, str) else value  # text, not an interpolation

    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_"))
    groups.sort(key=lambda group: group in EMPTY_GROUPS)  # these are laid over the others
    name = "base"
    ConfigStore.instance().store(name, {"defaults": ["_self_", *({group: None} for group in groups)], **literal(base)})
    return name


def _composed(overrides: Sequence[str], name: str) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(hydra_compose(name, list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def _refuse_malformed(override: str) -> None:
    """Refuse an argument that is no `key=value`, before Hydra's parser does."""
    key, equals, _ = override.partition("=")
    if override.startswith("-"):
        for flags, way in HYDRA_FLAGS.items():
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
            if KEY.fullmatch(override) and (setting_type(override) or (CONF / override).is_dir())
            else f"{override!r} is not key=value; a value with spaces is put in quotes of the shell: 'key=two words'"
        )
    if not KEY.fullmatch(key):
        raise ConfigError(f"{key!r} cannot be the name of a setting; write key=value, such as training.num_steps=5")
    if key.lstrip("+~").partition(".")[0] == "hydra" and key.lstrip("+~") != "hydra.searchpath":
        raise ConfigError(f"{key.lstrip('+~')} is not a setting; of Hydra's own only hydra.searchpath is read")


def _without_nothing_chosen(overrides: Sequence[str]) -> list[str]:
    """Return overrides without `experiment=null`, which Hydra refuses, and the choices of that group before it."""
    kept: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in EMPTY_GROUPS and value == "null":
            kept = [other for other in kept if other.partition("=")[0] != key]
        else:
            kept.append(override)
    return kept


def _as_added(override: str) -> str:
    """Allow a name that the settings do not have yet where all names are the user's."""
    is_own = any(override.startswith((f"{key}.", f"{key}=")) for key in NAMED_BY_USERS)
    return f"++{override}" if is_own else override


def _as_typed(override: str) -> str:
    """Quote the value of a setting that holds text, so that Hydra reads it as it is."""
    from hydra.core.override_parser.types import Quote, QuotedString

    key, equals, value = override.partition("=")
    is_plain = value == "null" or ONE_QUOTED.fullmatch(value) is not None
    if not equals or is_plain or not is_text(setting_type(key.lstrip("+")), or_mapping=not value.startswith("{")):
        return override
    return f"{key}={QuotedString(text=value, quote=Quote.single).with_quotes()}"


def _settle_paths(values: dict[str, Any], kind: Any, prefix: str, *, is_for_here: bool) -> None:
    """Expand ~ in every setting that is a path, and refuse empty ones."""
    for name, value in values.items():
        inner = setting_type(str(name), kind)
        if isinstance(value, dict):
            _settle_paths(value, inner, f"{prefix}{name}.", is_for_here=is_for_here)
        elif isinstance(value, str) and is_path(inner):
            if not value.strip():
                raise ConfigError(
                    f"{prefix}{name} is empty, perhaps an unset variable of the shell; write a path"
                    + ("" if prefix + name in ("run_dir", "cache_dir") else ", or null for none")
                )
            if is_for_here:
                values[name] = str(Path(value).expanduser()) if value.startswith("~") else value


def _explain_first_fault(overrides: Mapping[str, str], error: Exception, name: str) -> str:
    """Return what is wrong with the first override that fails, groups before values as Hydra takes them.

    `overrides` maps them as Hydra reads them to as they were typed; `name` is that of the settings below them.
    """
    ordered = sorted(overrides, key=lambda override: (not override.startswith("hydra."), not _is_group(_key(override))))
    fault = error
    for number, override in enumerate(ordered):
        try:
            if len(ordered) > 1:
                _composed(ordered[: number + 1], name)
                continue
        except Exception as found:
            fault = found
        return _explain(overrides[override], override, _composed(ordered[:number], name), fault)
    return _one_line(error)


def _explain(override: str, quoted: str, known: Mapping[str, Any], error: Exception) -> str:
    """Return one line on what is wrong with an override of settings that compose without it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import GrammarParseError

    key, _, value = override.partition("=")
    plain = _key(override)
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return _unreadable(plain, value)
    if _is_group(plain):
        is_to_add = "No match in the defaults list" in str(error) and not key.startswith("~")
        if is_to_add and value in _choices(plain):
            return f"{override}: these settings have no {plain} yet; add it with a plus sign: +{override}"
        is_absent = is_to_add or isinstance(error, MissingConfigException | ValueError)
        return _no_choice(plain, value) if is_absent else f"{override}: {_one_line(error)}"
    level: Any = known
    path = ""
    for part in plain.split("."):
        if level is None and path:
            return _null_level(path, part)
        if not isinstance(level, Mapping):
            return f"{path} is one value and has no {part}"
        inner = f"{path}.{part}" if path else part
        if part not in level and inner != plain and setting_type(inner) is not None:
            return _null_level(inner, plain.removeprefix(f"{inner}."))
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
        fault = "what follows ${ is not a name that ends with }" if error.__cause__ is not None else _one_line(error)
        return (
            f"{override}: {fault}; ${{name}} stands for the setting of that name, and \\${{name}} for the "
            "characters themselves"
        )
    return f"{override}: {_one_line(error)}"


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


def _null_level(path: str, part: str) -> str:
    group = path.replace(".", "/")
    if choices := list(_choices(group)):
        return f"{path} is null in these settings, so it has no {part}; add it first: +{group}={choices[0]}"
    parent = path.split(".")[0]
    others = ", ".join(f"{parent}={choice}" for choice in _choices(parent))
    return f"{path} is null in these settings, so it has no {part}" + (f"; choose {others}" if others else "")


def _no_choice(group: str, value: str) -> str:
    """Return the choices of a config group and the nearest one."""
    choices = list(_choices(group))
    below = [choice for choice in choices if value and choice.startswith(f"{value.rstrip('/')}/")]
    if below:
        return f"{group}={value} is a folder; choose {', '.join(f'{group}={choice}' for choice in below)}"
    near = nearest(value, choices)
    hint = f"did you mean {group}={near}? " if near else ""
    return f"{group}={value} is not there; {hint}choices: {', '.join(choices)}"


def _choices(group: str) -> Iterator[str]:
    """Return the files of a group, without parts of others (`_...`) or groups below it (learner/lora)."""
    for file in sorted((CONF / group).rglob("*.yaml")):
        parts = file.relative_to(CONF / group).with_suffix("").parts
        if not any(part.startswith("_") for part in parts) and (
            len(parts) == 1 or not setting_type(f"{group}.{parts[0]}")
        ):
            yield "/".join(parts)


def _is_group(key: str) -> bool:
    return "." not in key and (CONF / key.partition("@")[0]).is_dir()


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _one_line(error: Exception) -> str:
    """Return the first line of Hydra's message, and all of what YAML's parser says, which names file and line last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if type(error).__module__.startswith(("hydra", "omegaconf")) else " ".join(" ".join(lines).split())
