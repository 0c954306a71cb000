"""Resolves `checkpoint=`: the run that it belongs to, the settings taken from that run, and the weights.

A run is evaluated as it was trained: prompt, lengths, images, sampling, device, reward, seed and held-out data are
those of the run. Settings of the machine (`run_dir`, `cluster`, number of engines, weight channel) are those of the
evaluation. Settings on the command line override both.
"""

import difflib
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from learner import checkpoint
from learner.adapter import CONFIG_FILE
from learner.store import FileStore, open_store
from orchestration.models.chat_template import check_opened_thinking
from orchestration.models.model_folder import check_model, check_model_folder
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.model import NOT_SET
from orchestration.settings.own_code import with_own_code_in
from orchestration.settings.recipe import OWN
from orchestration.storage.checkpoints import newest_step
from orchestration.storage.own_code import to_copies
from orchestration.storage.run_folder import RunFolder, flatten, read_config

NUM_HINTS = 3
TAKEN = ("seed", "model", "data", "demo", "reward", "rollout", "algorithm", "learner", "training")
"""Groups of settings that come from the run; the last three are used to export a checkpoint."""
OF_THE_MACHINE = ("engines", "max_engines", "weight_channel")
"""Settings of `rollout` that come from the evaluation."""
COMPARED = ("seed", "model.coord_mode", "model.min_pixels", "model.max_pixels", "reward.", "rollout.")
"""Settings, or groups (ending in a dot), whose differences from the run are printed."""


def run_of(checkpoint: str | None) -> RunFolder | None:
    """Return the run that `checkpoint=` belongs to; None if there is none.

    Args:
        checkpoint: A run folder, its `export`, or a folder in its `checkpoints` or `exports`.
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
    """Return whether config.json is that of a run, not of a Hugging Face model."""
    folder = RunFolder(path)
    return folder.config.is_file() and read_config(folder).keys() >= {"training", "rollout"}


def settings_of_run(run: RunFolder, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with which a run is evaluated, unless the command overrides them.

    Args:
        run: Its config.json may be of another version: missing settings are taken from `defaults`, unknown ones are
            dropped.
        defaults: The composed settings without those of the command line.
    """
    here = _settings_here(run)
    here["rollout"] = {"task_prompts": {}, **here["rollout"]}  # runs of earlier versions added none
    began = _adopted(ExperimentConfig, here, defaults)
    values = {**defaults, **{name: began[name] for name in TAKEN}, "run_dir": str(run.root)}
    values["rollout"] = {**began["rollout"], **{name: defaults["rollout"][name] for name in OF_THE_MACHINE}}
    values["cluster"] = {**defaults["cluster"], "faults": began["cluster"]["faults"]}
    if Path(began["cache_dir"]).is_dir():
        values["cache_dir"] = began["cache_dir"]
    return values


def _settings_here(run: RunFolder) -> dict[str, Any]:
    """Return the settings that a run went by, with the code of its user that it keeps."""
    return with_own_code_in(read_config(run), to_copies(run.own_code, run.own_code_copies))


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
    """Build the settings of an evaluation, without reading the file system.

    Args:
        values: Composed settings, including those of the command line.
        own: Result of `settings_of_run`; None if no run is evaluated. Model and data are taken from it if a chosen
            experiment does not set them.
    """
    values = dict(values)
    if own is not None:
        if all(values["model"].get(key) in (None, NOT_SET) for key in ("path", "tiny")):
            values["model"] = own["model"]
        data, recipe = values["data"], values["data"].get("recipe")
        if data.get("held_out") in (None, NOT_SET) and (recipe is None or recipe["name"] == OWN):
            values["data"] = own["data"]
    # An evaluation transfers no weights; the channel only has to suit the device.
    backend = "gloo" if values["rollout"]["engine"].get("device") == "cpu" else "nccl"
    channel = {**values["rollout"]["weight_channel"], "backend": backend}
    values["rollout"] = {**values["rollout"], "weight_channel": channel}
    return build_settings(values)


def differences(run: RunFolder, config: ExperimentConfig) -> Iterator[str]:
    """Yield a line for each setting that affects an answer or its score and differs from the run."""
    now = json.loads(json.dumps(asdict(config)))
    began, here = dict(flatten(_adopted(ExperimentConfig, _settings_here(run), now))), dict(flatten(now))
    not_compared = tuple(f"rollout.{name}" for name in ("engines", "max_engines", "weight_channel."))
    for key in sorted(began.keys() | here.keys()):
        if key.startswith(COMPARED) and not key.startswith(not_compared) and began.get(key) != here.get(key):
            yield f"{key}={here.get(key)!r} here, {began.get(key)!r} in the run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Location of the weights of an evaluation."""

    folder: Path
    """Hugging Face folder."""
    store: FileStore | None = None
    """Checkpoints of the run, if `folder` must first be exported from one; else None."""
    step: int = 0
    """Step of that checkpoint."""


def find_weights(config: ExperimentConfig, run: RunFolder | None) -> Weights:
    """Find the weights of `evaluate.checkpoint`, a run, one of its checkpoints, or a model folder; nothing is exported.

    Raises:
        ConfigError: It is none of these.
    """
    named = config.evaluate.checkpoint
    if not named and config.model.folder is None:
        raise ConfigError(
            "checkpoint is not set; name what to evaluate: checkpoint=RUN (a run folder), "
            "RUN/checkpoints/step_..., or a Hugging Face folder"
        )
    if not named:
        check_model(config.model, config.reward, config.rollout.prompt_spec)
        return Weights(folder=Path(str(config.model.path)))
    path = Path(named).expanduser().absolute()
    if run is None:
        if not (path / "config.json").is_file():
            raise _not_found(path)
        check_model_folder(path, model=config.model)
        check_opened_thinking(path, config.reward, config.rollout.prompt_spec)
        return Weights(folder=path)
    if path.parent == run.checkpoints:
        return _checkpoint(open_store(path.parent), path, run)
    folder = run.export if path == run.root else path
    if (folder / "config.json").is_file():
        check_model_folder(folder, model=config.model)
        return Weights(folder=folder)
    if path != run.root and not (folder / CONFIG_FILE).is_file():  # an adapter's weights come merged from a checkpoint
        raise _not_found(path)
    place = config.training.checkpoint_dir or str(run.checkpoints)
    store = open_store(place)
    if (step := newest_step(store)) is None:
        raise ConfigError(
            f"checkpoint={path} is a run with neither export/ nor a complete checkpoint in {place}; let it train on, "
            "or say where its checkpoints are now: training.checkpoint_dir=..."
        )
    return _of_step(store, step, run)


def _checkpoint(store: FileStore, path: Path, run: RunFolder) -> Weights:
    """Find one checkpoint of a run by its folder."""
    marked = checkpoint.marked_steps(store)
    name = checkpoint.STEP_PATTERN.fullmatch(path.name)
    if name is None or int(name[1]) not in marked:
        state = "is not complete" if path.is_dir() else "does not exist"
        complete = ", ".join(map(checkpoint.step_name, marked)) or "none"
        raise ConfigError(f"checkpoint={path} {state}; complete checkpoints of this run: {complete}")
    return _of_step(store, int(name[1]), run)


def _of_step(store: FileStore, step: int, run: RunFolder) -> Weights:
    folder = run.root / "exports" / checkpoint.step_name(step)
    if (folder / "config.json").is_file():
        return Weights(folder=folder)
    return Weights(folder=folder, store=store, step=step)


def _not_found(path: Path) -> ConfigError:
    """Return an error that suggests a path: a folder in it, or one of a similar name."""
    if path.is_dir():
        found = {
            file.parent.name for name in ("config.json", checkpoint.COMPLETE_MARKER) for file in path.glob(f"*/{name}")
        }
        hint = f"name a folder in it: {_few(sorted(found, reverse=True))}" if found else "correct the path"
        if path.name and checkpoint.STEP_PATTERN.fullmatch(path.name) and (path / checkpoint.COMPLETE_MARKER).is_file():
            hint = f"it is a checkpoint outside of its run: use checkpoint=RUN training.checkpoint_dir={path.parent}"
        return ConfigError(
            f"checkpoint={path} is neither a Hugging Face folder (config.json), nor a run folder, nor a complete "
            f"checkpoint of a run; {hint}"
        )
    there = next((folder for folder in path.parents if folder.is_dir()), Path("/"))
    missing = path.relative_to(there).parts[0]
    names = [entry.name for entry in there.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(missing, names, n=NUM_HINTS, cutoff=0.5)  # several, unlike `conf.ranges.nearest`
    hint = f"did you mean {_few([str(there / name) for name in near])}?" if near else f"nothing in {there} is named so"
    return ConfigError(f"checkpoint={path} is neither a Hugging Face folder nor a run: it does not exist; {hint}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NUM_HINTS]) + (", ..." if len(names) > NUM_HINTS else "")
