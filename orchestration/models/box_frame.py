"""The frame in which a run's model writes boxes: a fact of its family, or model.coord_mode; without torch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from learner.config import SUPPORTED_FAMILIES, BoxFrame
from orchestration.models.files import read_object
from orchestration.models.image_tokens import saved_processor
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import ModelConfig
from rewards.core.frames import fill_frame

READERS = ("grounding", "pointing")
"""Reward functions that read coordinates."""


def family_frame(model: ModelConfig) -> BoxFrame | None:
    """Return the frame of the model's family; None where its `model_type` is not known here, or names no such family.

    Example:
        >>> family_frame(ModelConfig(path=None, family=None, hf_config={"model_type": "internvl"}))
        'norm1000'
    """
    return SUPPORTED_FAMILIES.get(_model_type(model))


def with_box_frame(config: ExperimentConfig) -> ExperimentConfig:
    """Return settings that say the frame of boxes wherever it is known.

    `model.coord_mode` is the family's where it was null, and `{box_frame}` and `{point_frame}` in
    `rollout.task_prompts` are replaced by the sentences that ask for it.

    Raises:
        ConfigError: the frame is pixel_resized, and the model's processor has no such size.
    """
    frame = config.model.coord_mode or family_frame(config.model)
    prompts = {task: text for task, text in config.rollout.task_prompts.items() if text}
    if frame is not None:
        _check_resized(config.model, frame)
        prompts = {task: fill_frame(text, frame) for task, text in prompts.items()}
    return replace(
        config,
        model=replace(config.model, coord_mode=frame),
        rollout=replace(config.rollout, task_prompts=prompts),
    )


def frame_fault(config: ExperimentConfig, rows: Iterable[tuple[str, str]]) -> str:
    """Return why the boxes of some rows cannot be read; empty where they can, or there are none.

    Args:
        config: Of the run.
        rows: (task, source) of every row.
    """
    if (config.model.coord_mode or family_frame(config.model)) is not None:
        return ""
    tasks = Counter(task for task, source in rows if _reads_boxes(config, task, source))
    if not tasks:
        return ""
    return (
        f"it is null, and the frame in which a model of type {_model_type(config.model)} writes boxes is not known "
        f"here, but {tasks.total():,} rows are graded by them ({', '.join(sorted(tasks))}); set it to what the model "
        f"was trained to write: {', '.join(get_args(BoxFrame))}"
    )


def _reads_boxes(config: ExperimentConfig, task: str, source: str) -> bool:
    if not config.reward.is_routed(task, source):
        return False
    return any(part.function in READERS for part in config.reward.route(task, source).parts)


def _check_resized(model: ModelConfig, frame: BoxFrame) -> None:
    """Refuse pixels of the resized image where images are cut into tiles, or squeezed into one."""
    saved = None if model.folder is None else saved_processor(model.folder)
    if frame == "pixel_resized" and saved is not None and "merge_size" not in saved[1]:
        raise ConfigError(
            f"model.coord_mode is pixel_resized, but the image processor of {model.folder} does not resize images to "
            "patches of any number (no merge_size); use pixel, norm1000 or norm1"
        )


def _model_type(model: ModelConfig) -> str:
    file = None if model.folder is None else model.folder / "config.json"
    if file is not None and file.is_file():
        return str(read_object(file).get("model_type"))
    stated = model.hf_config if model.tiny is None else model.tiny.hf_config
    return str((stated or {}).get("model_type"))
