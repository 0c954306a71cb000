"""Which weights `checkpoint=` means: a Hugging Face folder, a run, or one checkpoint of a run."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from learner.checkpoint import COMPLETE_MARKER, latest_complete
from orchestration import cluster
from orchestration.config import ExperimentConfig, ModelConfig, build_config, check_model_folder
from orchestration.demo.settings import FAMILY_FRAMES
from orchestration.errors import ConfigError
from orchestration.guard import guarded
from orchestration.inputs import model_folder
from orchestration.pools.learner import LearnerGroup, start_learner
from orchestration.seeds import derive_seed
from orchestration.state import RunFolder


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
    if (path / COMPLETE_MARKER).is_file():
        run = RunFolder(path.parent.parent)
        return _of_run(config, _exported(path, run), run)
    run = RunFolder(path)
    if run.checkpoints.is_dir():
        latest = latest_complete(run.checkpoints)
        if (run.export / "config.json").is_file():
            return _of_run(config, run.export, run)
        if latest is not None:
            return _of_run(config, _exported(latest, run), run)
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"checkpoint={path} is neither a Hugging Face folder (config.json), nor a run folder with a checkpoint, "
            "nor a complete checkpoint of a run; correct the path"
        )
    check_model_folder(path)
    family = json.loads((path / "config.json").read_text())["model_type"]
    frame = FAMILY_FRAMES.get(family, config.model.coord_mode)
    return replace(config, model=ModelConfig(path=str(path), family=None, coord_mode=frame))


def _of_run(config: ExperimentConfig, folder: Path, run: RunFolder) -> ExperimentConfig:
    began = build_config(json.loads(run.config.read_text()))
    return replace(config, model=ModelConfig(path=str(folder), family=None, coord_mode=began.model.coord_mode))


def _exported(checkpoint: Path, run: RunFolder) -> Path:
    """Give a checkpoint as a Hugging Face folder beside the run's others, written once by the run's own learner."""
    target = run.root / "exports" / checkpoint.name
    if (target / "config.json").is_file():
        return target
    began = build_config(json.loads(run.config.read_text()))
    plan = replace(cluster.plan(began, cores=cluster.available_cores()), engines=(), rewards=())
    with guarded(), cluster.ray_session(began.cluster, plan, run.logs):
        learner = start_learner(began, model_folder(began), plan.learner_ranks, run.logs)
        asyncio.run(_export(learner, checkpoint, target, derive_seed(began.seed, "learner")))
    return target


async def _export(learner: LearnerGroup, checkpoint: Path, target: Path, seed: int) -> None:
    await learner.build(seed)
    try:
        await learner.load(checkpoint)
        await learner.export(target)
    finally:
        await learner.close()
