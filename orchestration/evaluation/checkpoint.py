"""Which weights `checkpoint=` means: a Hugging Face folder, a run, or one checkpoint of a run."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from learner.checkpoint import COMPLETE_MARKER, latest_complete
from orchestration import cluster
from orchestration.config import ExperimentConfig, build_config
from orchestration.errors import ConfigError
from orchestration.guard import guarded
from orchestration.inputs import model_folder
from orchestration.pools.learner import LearnerGroup
from orchestration.run import learner_config
from orchestration.seeds import derive_seed
from orchestration.state import RunFolder


def resolve_checkpoint(config: ExperimentConfig) -> Path:
    """Give the Hugging Face folder of what `evaluate.checkpoint` names; a run's own checkpoint is exported first.

    Raises:
        ConfigError: It is none of the three.
    """
    if config.evaluate.checkpoint is None:
        return model_folder(config)
    path = Path(config.evaluate.checkpoint).expanduser().absolute()
    if (path / "config.json").is_file() and not RunFolder(path).checkpoints.is_dir():
        return path
    if (path / COMPLETE_MARKER).is_file():
        return _exported(path, RunFolder(path.parent.parent))
    run = RunFolder(path)
    if (run.export / "config.json").is_file():
        return run.export
    latest = latest_complete(run.checkpoints) if run.checkpoints.is_dir() else None
    if latest is None:
        raise ConfigError(
            f"checkpoint={path} is neither a Hugging Face folder (config.json), nor a run folder with a checkpoint, "
            "nor a complete checkpoint of a run; correct the path"
        )
    return _exported(latest, run)


def _exported(checkpoint: Path, run: RunFolder) -> Path:
    """Give a checkpoint as a Hugging Face folder beside the run's others, written once by the run's own learner."""
    target = run.root / "exports" / checkpoint.name
    if (target / "config.json").is_file():
        return target
    began = build_config(json.loads(run.config.read_text()))
    plan = replace(cluster.plan(began, cores=cluster.available_cores()), engines=(), rewards=())
    with guarded(), cluster.ray_session(began.cluster, plan, run.logs):
        learner = LearnerGroup(learner_config(began, model_folder(began)), plan.learner_ranks, run.logs)
        asyncio.run(_export(learner, checkpoint, target, derive_seed(began.seed, "learner")))
    return target


async def _export(learner: LearnerGroup, checkpoint: Path, target: Path, seed: int) -> None:
    await learner.build(seed)
    await learner.load(checkpoint)
    await learner.export(target)
