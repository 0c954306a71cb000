"""Which weights `checkpoint=` means: a Hugging Face folder, a run, or one checkpoint of a run."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from learner import checkpoint
from learner.store import FileStore, open_store
from orchestration.config.experiment import ExperimentConfig, build_config
from orchestration.config.model import ModelConfig, check_model_folder
from orchestration.demo.settings import FAMILY_FRAMES
from orchestration.errors import ConfigError
from orchestration.inputs import model_folder
from orchestration.persistence.checkpoints import newest_step, store_of
from orchestration.persistence.state import RunFolder
from orchestration.placement.seats import seated
from orchestration.pools.learner import LearnerGroup, start_learner
from orchestration.seeds import derive_seed


def with_checkpoint(config: ExperimentConfig) -> ExperimentConfig:
    """Give settings whose `model` is what `evaluate.checkpoint` names; a run's own checkpoint is exported first.

    Boxes are read in the frame that the run was trained with, or that the model's family is known for: the frame of the
    settings belongs to another model. Without a checkpoint, the model of the settings is taken as it is.

    Raises:
        ConfigError: It is no Hugging Face folder, no run and no checkpoint of one.
    """
    if config.evaluate.checkpoint is None:
        return replace(config, model=replace(config.model, path=str(model_folder(config)), family=None))
    path = Path(config.evaluate.checkpoint).expanduser().absolute()
    is_marked = (path / checkpoint.COMPLETE_MARKER).is_file()
    of_checkpoint = RunFolder(path.parent.parent)
    if is_marked and (name := checkpoint.STEP_PATTERN.fullmatch(path.name)) and _is_run(of_checkpoint):
        folder = _exported(open_store(path.parent), int(name[1]), of_checkpoint)
        return _of_run(config, folder, of_checkpoint)
    run = RunFolder(path)
    if _is_run(run):
        if (run.export / "config.json").is_file():
            return _of_run(config, run.export, run)
        store = store_of(run)
        if (step := newest_step(store)) is not None:
            return _of_run(config, _exported(store, step, run), run)
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"checkpoint={path} is neither a Hugging Face folder (config.json), nor a run folder with a checkpoint, "
            "nor a complete checkpoint of a run; correct the path"
        )
    check_model_folder(path)
    family = json.loads((path / "config.json").read_text())["model_type"]
    frame = FAMILY_FRAMES.get(family, config.model.coord_mode)
    return replace(config, model=ModelConfig(path=str(path), family=None, coord_mode=frame))


def _is_run(folder: RunFolder) -> bool:
    """Tell a run's config.json from that of a Hugging Face folder."""
    return folder.config.is_file() and "training" in json.loads(folder.config.read_text())


def _of_run(config: ExperimentConfig, folder: Path, run: RunFolder) -> ExperimentConfig:
    began = build_config(json.loads(run.config.read_text()))
    return replace(config, model=ModelConfig(path=str(folder), family=None, coord_mode=began.model.coord_mode))


def _exported(store: FileStore, step: int, run: RunFolder) -> Path:
    """Give a checkpoint as a Hugging Face folder beside the run's others, written once by the run's own learner.

    Raises:
        CheckpointError: a file of it is not what was written.
    """
    target = run.root / "exports" / checkpoint.step_name(step)
    if (target / "config.json").is_file():
        return target
    checkpoint.verify(store, checkpoint.read(store, step))
    began = build_config(json.loads(run.config.read_text()))
    with seated(began, run.logs, roles=("learner",)) as seats:
        learner = start_learner(began, model_folder(began), seats, run.logs)
        asyncio.run(_export(learner, store, step, target, derive_seed(began.seed, "learner")))
    return target


async def _export(learner: LearnerGroup, store: FileStore, step: int, target: Path, seed: int) -> None:
    await learner.build(seed)
    try:
        await learner.load(store, step)
        await learner.export(target)
    finally:
        await learner.close()
