"""Inputs of a run: a model folder and two datasets; demo and recipe make those that are not configured."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learner.adapter import WEIGHTS_FILE
from orchestration.data.build import build_from_config
from orchestration.demo.prepare import make_in_subprocess
from orchestration.inputs.own_rewards import check_own_functions
from orchestration.models.box_frame import frame_fault
from orchestration.models.files import model_digest
from orchestration.models.image_tokens import images_fault, saved_processor, with_pixel_limits
from orchestration.models.shapes import shape_of
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.checkpoints import newest_step, store_of
from orchestration.storage.run_folder import RunFolder, flatten
from rewards.core.base import RewardError
from rewards.core.config import RewardConfig
from rewards.mixed import MixedReward
from rollout.dataset import SampleTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files that a run reads."""

    model: Path
    """Hugging Face folder."""
    train: Path
    """Dataset: a Parquet file or a folder of shards."""
    held_out: Path


def model_folder(config: ExperimentConfig) -> Path:
    """Return the configured model, or the demo's, made if it is not there; with the limits of an image's size applied.

    Raises:
        ConfigError: no image is within model.min_pixels and model.max_pixels.
    """
    if config.model.path is not None:
        return _limited(Path(config.model.path), config)
    made = make_in_subprocess(Path(config.cache_dir), config.demo, config.model, config.reward.format)
    return _limited(made, config)


def _limited(folder: Path, config: ExperimentConfig) -> Path:
    """Return a model folder whose image processor has the limits of the run: links to `folder`, and one file written.

    All of engines, learner, prompts, box frames and the export use this folder, so they cannot see different images.
    """
    model, saved = config.model, saved_processor(folder)
    if (model.min_pixels is None and model.max_pixels is None) or saved is None:
        return folder
    file, settings = saved
    shape = shape_of(replace(model, path=str(folder)))
    limited = with_pixel_limits(settings, shape, min_pixels=model.min_pixels, max_pixels=model.max_pixels)
    if limited == settings:
        return folder
    whole = json.loads((folder / file).read_text())
    text = json.dumps({**whole, "image_processor": limited} if "image_processor" in whole else limited, indent=2)
    others = sorted(path.absolute() for path in folder.iterdir() if path.name != file)
    digest = hashlib.sha256("\n".join([text, *map(str, others)]).encode()).hexdigest()[:12]
    target = Path(config.cache_dir) / "models" / f"{folder.name}-{digest}"
    if target.is_dir():
        return target
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    for path in others:
        (unfinished / path.name).symlink_to(path)
    (unfinished / file).write_text(text)
    try:
        unfinished.rename(target)
    except OSError:  # another process made the same folder first
        shutil.rmtree(unfinished)
    return target


def prepare_inputs(config: ExperimentConfig, say: Callable[[str], None]) -> Inputs:
    """Return model and data, made if they are not there yet; `say` gets the lines about rows that are built.

    Raises:
        ConfigError: the recipe has no held-out row.
        LossError: a source of the recipe lost rows that it may not lose.
    """
    model = model_folder(config)
    if config.data.train is not None and config.data.held_out is not None:
        return Inputs(model=model, train=Path(config.data.train), held_out=Path(config.data.held_out))
    dataset = build_from_config(config, model, say)
    if not dataset.held_out.is_dir():
        raise ConfigError(
            "data.recipe has no row of role held_out, and a run is scored on such rows before and after; give one of "
            "its sources role: held_out, or hold out rows of one with held_out_share: 0.02"
        )
    return Inputs(model=model, train=dataset.train, held_out=dataset.held_out)


def held_out_sets(config: ExperimentConfig) -> dict[str, Path]:
    """Return where the rows of evaluation.sets are, by setting; empty where nothing is scored."""
    sets = config.evaluation.sets if config.evaluation.enabled else {}
    return {f"evaluation.sets.{name}.path": Path(one.path) for name, one in sets.items()}


def check_same_rows(
    folder: RunFolder, inputs: Inputs, sets: Mapping[str, Path], *, is_change_allowed: bool
) -> dict[str, Any]:
    """Compare the rows of all datasets with those that a run began with, wherever they are now.

    A run without a checkpoint, or of a version that recorded nothing, accepts any rows; a set that is new to the run is
    accepted too.

    Args:
        folder: Of the run.
        inputs: Names the rows of data.train and data.held_out.
        sets: Of `held_out_sets`.
        is_change_allowed: Whether other rows are accepted.

    Returns:
        The record of the rows for the run folder.

    Raises:
        ResumeError: they are other rows, or in another order.
    """
    main = {"data.train": inputs.train, "data.held_out": inputs.held_out}
    tables = {**main, **sets}
    found = {key: SampleTable(path) for key, path in tables.items()}
    now = {key: {"num_rows": len(table), "blake2b": table.digest()} for key, table in found.items()}
    has_begun = folder.data.is_file() and newest_step(store_of(folder)) is not None
    if has_begun and not is_change_allowed:
        began = _noted(folder.data, {key: now[key] for key in main})
        for key, path in tables.items():
            if key in began and began[key] != now[key]:
                raise ResumeError(
                    f"{key} ({path}) holds {now[key]['num_rows']} rows, and they are not the {began[key]['num_rows']} "
                    f"rows, in their order, with which {folder.root} began; restore them, use another run_dir, or "
                    "accept the change with allow_config_change=true"
                )
    return now


def check_same_model(
    folder: RunFolder, model: Path, *, adapter: str | None = None, is_change_allowed: bool
) -> dict[str, Any]:
    """Compare a model folder, and that of an adapter, with those from which a run began, wherever they are now.

    Checkpoints hold what is trained; frozen weights, the reference of the KL term and the tokenizer come from here.

    Returns:
        The record of both for the run folder.

    Raises:
        ResumeError: one holds another model or adapter, or the record of the first one is damaged.
    """
    now = {"blake2b": model_digest(model)}
    if adapter is not None:
        now["adapter"] = model_digest(Path(adapter), WEIGHTS_FILE)
    if folder.model.is_file() and not is_change_allowed:
        began = _noted(folder.model, {"blake2b": ""})
        named = {"blake2b": ("model.path", model, "model"), "adapter": ("learner.lora.start", adapter, "adapter")}
        for part, (key, path, what) in named.items():
            if began.get(part) != now.get(part):
                raise ResumeError(
                    f"{key}={path or 'null'} does not hold the {what} from which {folder.root} began"
                    f"{'' if part in began else ': it began from none'}; name what does, use another run_dir, or "
                    "accept the change with allow_config_change=true"
                )
    return now


def _noted(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of the run folder, with at least the keys of `like`, nested ones included."""
    try:
        noted: Any = json.loads(path.read_text())
    except ValueError as error:
        raise ResumeError(f"{path} is not whole JSON ({error}); restore or delete it") from error
    found = dict(flatten(noted)) if isinstance(noted, dict) else {}
    if missing := [key for key, _ in flatten(like) if key not in found]:
        raise ResumeError(f"{path} lacks {', '.join(missing)}; restore or delete it")
    return dict(noted)


def check_box_frame(config: ExperimentConfig, *files: Path) -> None:
    """Check that the frame of boxes is known if a row of these datasets has any.

    Raises:
        ConfigError: it is not; names the setting.
    """
    if fault := frame_fault(config, (pair for path in files for pair in SampleTable(path).tasks_and_sources())):
        raise ConfigError(f"model.coord_mode: {fault}")


def check_images(config: ExperimentConfig, *files: Path) -> None:
    """Check that no row of these datasets has images where the model takes none.

    Raises:
        ConfigError: some have; counts them.
    """
    shape = shape_of(config.model)
    for path in files:
        if fault := images_fault(shape, path):
            raise ConfigError(fault)


def check_rewards(config: RewardConfig, model_path: Path, *files: Path) -> None:
    """Check that a reward reads every row, and that its settings fit the model, before anything is reserved.

    Functions of the user's are loaded and tried on a few references.

    Raises:
        RewardError: with a table of the unrouted rows, or naming the setting.
    """
    tables = {path: SampleTable(path) for path in files}
    for path, rows in tables.items():
        missing = config.unrouted(rows.tasks_and_sources())
        if missing:
            table = "".join(f"\n{num:10d}  {task}  {source}" for (task, source), num in sorted(missing.items()))
            raise RewardError(
                f"{path} has {sum(missing.values())} rows that no reward reads; add their tasks to reward.routes or "
                f"reward.rules, or leave them out (known tasks: {', '.join(config.routes)}):\n"
                f"{'rows':>10}  task  source{table}"
            )
    for name in config.judges_in_use():
        variable = config.judges[name].key_variable
        if variable and not os.environ.get(variable):
            raise RewardError(
                f"reward.judges.{name}.key_variable is {variable}, which is not set here; export the judge's API key"
            )
    with MixedReward.from_checkpoint(config, model_path) as rewards:
        rewards.start()
    check_own_functions(config, *tables.values())
