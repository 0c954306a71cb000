"""YAML and `key=value` arguments become settings: this file and `faults` know Hydra."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conf.own_code import settled
from orchestration.settings.describe import is_path, is_text, setting_type
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.faults import explain_first_fault, key_of, refuse_malformed
from orchestration.settings.files import SettingsFile, laid_over, quoted, read_arguments, read_settings_file
from orchestration.settings.groups import CONF, EMPTY_GROUPS, ConfigGroups
from orchestration.settings.own_code import with_own_code_in
from orchestration.settings.strict import refuse_secret_overrides, refuse_secrets

NAMED_BY_USERS = (
    "reward.functions",
    "reward.judges",
    "cluster.judges",
    "cluster.environment",
    "algorithm.tasks",
    "rollout.sampling.tasks",
    "evaluation.sets",
    "data.columns",
    "data.stream.weights",
    "tracking.options",
)
"""Mappings whose names are all the user's, so that a new one needs no plus sign."""
ONE_QUOTED = re.compile(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", re.DOTALL)
"""A value in quotes as a whole, which Hydra takes off."""


def compose(
    arguments: Sequence[str], *, is_for_here: bool = True, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Compose the YAML with arguments into a plain mapping.

    The value of a setting that is text is taken as it was typed, whatever Hydra's grammar makes of its signs; quotes
    around the whole of it are taken off. Of two values for one key the last one counts.

    Args:
        arguments: key=value, as they were typed; `--config FILE`, whose settings are laid over the defaults and below
            the others; `--config-dir FOLDER` of groups of the user's own.
        is_for_here: make folders absolute and expand ~; False leaves them as written, for another machine.
        base: settings over which a file, chosen groups and values are laid, as those of a run; None begins with the
            defaults.

    Raises:
        ConfigError: an argument that does not parse, whose key or file does not exist, or that holds a secret.
    """
    given = read_arguments(arguments)
    groups = ConfigGroups(given.config_dir)
    refuse_secret_overrides(given.overrides)
    for override in given.overrides:
        refuse_malformed(override, groups)
    overrides = _without_nothing_chosen(given.overrides)
    with _hydra(groups):
        name = "config" if base is None else _store("base", _literal(base), groups)
        if given.config is not None:
            file = read_settings_file(given.config)
            refuse_secrets(file.values)
            try:
                name, overrides = _with_file(file, name, overrides, groups, is_whole=base is None)
            except ConfigError as error:
                raise ConfigError(f"--config={given.config}: {error}") from error
        values = _composed_or_explained(overrides, name, groups)
    refuse_secrets(values)
    _settle_paths(values, ExperimentConfig, "", is_for_here=is_for_here)
    if is_for_here:
        values = with_own_code_in(values, lambda _, text: settled(text))
        for key in ("run_dir", "cache_dir"):
            if isinstance(values.get(key), str):
                values[key] = str(Path(values[key]).absolute())
    return values


@contextmanager
def _hydra(groups: ConfigGroups) -> Iterator[None]:
    """Put the user's own folder before conf on Hydra's search path for the length of the block.

    The setting `hydra.searchpath` would do that too, but takes the user's files last, and warns of folders that it does
    not need.
    """
    from hydra import initialize_config_module
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_module(config_module=CONF.name, version_base="1.3"):
        if groups.own is not None:
            path = create_config_search_path(f"pkg://{CONF.name}")
            path.prepend("own", f"file://{groups.own}", "main")
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.config_loader = ConfigLoaderImpl(config_search_path=path)
        yield


def _with_file(
    file: SettingsFile, name: str, overrides: Sequence[str], groups: ConfigGroups, *, is_whole: bool
) -> tuple[str, list[str]]:
    """Lay the settings of a file over stored ones, and below those of the command line.

    A group that is chosen on the command line replaces that of the file. Where the defaults take a value from another
    setting and the file says the same, it goes on to follow that setting.

    Args:
        file: what was read.
        name: of the stored settings below.
        overrides: of the command line.
        groups: of the command.
        is_whole: whether the settings below are the defaults, so that a group can be replaced as a whole.

    Returns:
        Name of the stored result, and the overrides that are still to be laid over it.
    """
    chosen = [override for override in overrides if groups.is_group(key_of(override)) and is_whole]
    chosen = [override for override in chosen if key_of(override) not in EMPTY_GROUPS]
    kept = [choice for choice in file.choices if key_of(choice) not in map(key_of, chosen)]
    below = _composed_or_explained([*kept, *chosen], name, groups, is_resolved=False)
    values = {key: value for key, value in file.values.items() if key not in map(key_of, chosen)}
    following = _without_followers(values, below)
    stored = _store("followed", laid_over(below, _literal(following)), groups)
    followed = _composed([], stored)
    stated = laid_over(following, _differing(values, followed))
    name = _store("with_file", laid_over(below, _literal(stated)), groups)
    lays_experiment = any(key_of(override) in EMPTY_GROUPS for override in overrides)
    return name, [override for override in overrides if lays_experiment or override not in chosen]


def _without_followers(values: Mapping[str, Any], below: Any) -> dict[str, Any]:
    """Return values without those that the settings below take from another setting."""
    found = {}
    for key, value in values.items():
        under = below.get(key) if isinstance(below, Mapping) else None
        if isinstance(value, Mapping):
            found[key] = _without_followers(value, under)
        elif not (isinstance(under, str) and under.startswith("${")):
            found[key] = value
    return found


def _differing(values: Mapping[str, Any], other: Any) -> dict[str, Any]:
    """Return the values that another mapping does not hold alike."""
    found = {}
    for key, value in values.items():
        beside = other.get(key) if isinstance(other, Mapping) else None
        if isinstance(value, Mapping):
            found[key] = _differing(value, beside)
        elif value != beside:
            found[key] = value
    return found


def _literal(value: Any) -> Any:
    """Return plain values in which `${` is text, not a reference to a setting."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("${", r"\${") if isinstance(value, str) else value


def _store(name: str, values: Mapping[str, Any], groups: ConfigGroups) -> str:
    """Store settings for Hydra under a name, with no choice in any config group; returns the name."""
    from hydra.core.config_store import ConfigStore

    nothing_chosen = [{group: None} for group in groups.names()]
    ConfigStore.instance().store(name, {"defaults": ["_self_", *nothing_chosen], **values})
    return name


def _composed_or_explained(
    overrides: Sequence[str], name: str, groups: ConfigGroups, *, is_resolved: bool = True
) -> dict[str, Any]:
    typed = {_as_typed(_as_added(override)): override for override in overrides}
    try:
        return _composed(list(typed), name, is_resolved=is_resolved)
    except Exception as error:  # Hydra raises errors of a dozen libraries and kinds for what was typed
        message = explain_first_fault(typed, error, lambda some: _composed(some, name), groups)
        raise ConfigError(message) from error


def _composed(overrides: Sequence[str], name: str, *, is_resolved: bool = True) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(hydra_compose(name, list(overrides)), resolve=is_resolved)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


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
    key, equals, value = override.partition("=")
    is_plain = value == "null" or ONE_QUOTED.fullmatch(value) is not None
    if not equals or is_plain or not is_text(setting_type(key.lstrip("+")), or_mapping=not value.startswith("{")):
        return override
    return f"{key}={quoted(value)}"


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
