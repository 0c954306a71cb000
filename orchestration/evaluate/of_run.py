"""A run as an evaluation sees it: which run a checkpoint belongs to, and the settings that are taken from it.

A run is asked as it was trained: prompt, lengths, images, sampling, device, reward, seed and held-out data are its own.
What only says where work is done (`run_dir`, `cluster`, numbers of engines, the weight channel) belongs to the machine
that evaluates. Typed settings win over both.
"""

import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.model import NOT_SET
from orchestration.storage.run_folder import RunFolder, flatten, read_config

TAKEN = ("seed", "model", "data", "demo", "reward", "rollout", "algorithm", "learner", "training")
"""Groups of settings that come from the run; the last three matter where a checkpoint has to be exported."""
OF_THE_MACHINE = ("engines", "max_engines", "weight_channel")
"""Settings of `rollout` that come from the evaluation's own."""
COMPARED = ("seed", "model.coord_mode", "model.min_pixels", "model.max_pixels", "reward.", "rollout.")
"""Settings, or with a point groups of them, whose difference from the run is told."""


def run_of(checkpoint: str | None) -> RunFolder | None:
    """Return the run that `checkpoint=` belongs to, None where it is no part of one.

    Args:
        checkpoint: A run folder, its `export`, or a folder under its `checkpoints` or `exports`.

    Raises:
        ResumeError: The config.json of the folder is no JSON.
    """
    if not checkpoint:
        return None
    path = Path(checkpoint).expanduser().absolute()
    if _is_run(path):
        return RunFolder(path)
    if path.name == "export" and _is_run(path.parent):
        return RunFolder(path.parent)
    if path.parent.name in ("checkpoints", "exports") and _is_run(path.parent.parent):
        return RunFolder(path.parent.parent)
    return None


def _is_run(path: Path) -> bool:
    """Tell a run's config.json from that of a Hugging Face folder."""
    folder = RunFolder(path)
    return folder.config.is_file() and read_config(folder).keys() >= {"training", "rollout"}


def settings_of_run(run: RunFolder, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with which a run is evaluated where the command names no others.

    Args:
        run: Its config.json may be that of another version: settings that it lacks are those of `defaults`, and those
            that this version does not have are left out.
        defaults: The composed settings without a typed one.

    Raises:
        ResumeError: The run's config.json is no JSON.
    """
    began = _adopted(ExperimentConfig, read_config(run), defaults)
    values = {**defaults, **{name: began[name] for name in TAKEN}, "run_dir": str(run.root)}
    values["rollout"] = {**began["rollout"], **{name: defaults["rollout"][name] for name in OF_THE_MACHINE}}
    values["cluster"] = {**defaults["cluster"], "faults": began["cluster"]["faults"]}
    if Path(began["cache_dir"]).is_dir():
        values["cache_dir"] = began["cache_dir"]
    return values


def _adopted(cls: type, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    found = {}
    for name in (field.name for field in fields(cls) if field.name in values or field.name in defaults):
        value, default = values.get(name, defaults.get(name)), defaults.get(name)
        if is_dataclass(hints[name]) and isinstance(value, Mapping) and isinstance(default, Mapping):
            value = _adopted(hints[name], value, default)
        found[name] = value
    return found


def build_evaluation(values: dict[str, Any], own: Mapping[str, Any] | None) -> ExperimentConfig:
    """Build the settings of an evaluation; nothing on this machine is looked at.

    Args:
        values: Composed settings, typed ones included.
        own: Those of `settings_of_run`; None where no run is evaluated. A typed experiment that leaves model or data to
            be set leaves them to the run.

    Raises:
        ConfigError: A key, a type or a value that its own group of settings refuses.
    """
    values = dict(values)
    for name, keys in (("model", ("path", "family")), ("data", ("held_out", "recipe"))):
        if own is not None and all(values[name].get(key) in (None, NOT_SET) for key in keys):
            values[name] = own[name]
    # No weights travel in an evaluation; the channel only has to suit the device.
    backend = "gloo" if values["rollout"]["engine"].get("device") == "cpu" else "nccl"
    channel = {**values["rollout"]["weight_channel"], "backend": backend}
    values["rollout"] = {**values["rollout"], "weight_channel": channel}
    return build_settings(values)


def differences(run: RunFolder, config: ExperimentConfig) -> Iterator[str]:
    """Yield a line for every setting that shapes an answer or its score and is not as in the run.

    Raises:
        ResumeError: The run's config.json is no JSON.
    """
    now = json.loads(json.dumps(asdict(config)))
    began, here = dict(flatten(_adopted(ExperimentConfig, read_config(run), now))), dict(flatten(now))
    not_compared = tuple(f"rollout.{name}" for name in ("engines", "max_engines", "weight_channel."))
    for key in sorted(began.keys() | here.keys()):
        if key.startswith(COMPARED) and not key.startswith(not_compared) and began.get(key) != here.get(key):
            yield f"{key}={here.get(key)!r} here, {began.get(key)!r} in the run"
