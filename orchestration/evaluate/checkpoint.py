"""Which weights `checkpoint=` means: a Hugging Face folder, a run's export, or one checkpoint of a run."""

import asyncio
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from learner import checkpoint
from learner.store import FileStore, open_store
from orchestration.cluster.reservations import seated
from orchestration.inputs.prepare import model_folder
from orchestration.models.model_folder import check_model, check_model_folder, check_opened_thinking
from orchestration.settings.demo import FAMILY_FRAMES
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.seeds import derive_seed
from orchestration.storage.checkpoints import newest_step
from orchestration.storage.run_folder import RunFolder
from orchestration.workers.learner_group import LearnerGroup, start_learner

NUM_HINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where the weights of an evaluation are."""

    folder: Path
    """Hugging Face folder."""
    store: FileStore | None = None
    """Checkpoints of the run, where `folder` has to be written from one of them first."""
    step: int = 0
    """Of that checkpoint."""


def find_weights(config: ExperimentConfig, run: RunFolder | None) -> Weights:
    """Find what `evaluate.checkpoint` names; nothing is made.

    Args:
        config: Settings of the evaluation, which for a run are the run's own.
        run: What the checkpoint belongs to; None for a model folder.

    Raises:
        ConfigError: It is no Hugging Face folder, no run and no checkpoint of one.
    """
    named = config.evaluate.checkpoint
    if not named and config.model.folder is None:
        raise ConfigError(
            "checkpoint is not given; name what is evaluated: checkpoint=RUN (a run folder), "
            "RUN/checkpoints/step_..., or a Hugging Face folder"
        )
    if not named:
        check_model(config.model, config.reward)
        return Weights(folder=Path(str(config.model.path)))
    path = Path(named).expanduser().absolute()
    if run is None:
        if not (path / "config.json").is_file():
            raise _not_found(path)
        check_model_folder(path)
        check_opened_thinking(path, config.reward)
        return Weights(folder=path)
    if path.parent == run.checkpoints:
        return _checkpoint(open_store(path.parent), path, run)
    folder = run.export if path == run.root else path
    if (folder / "config.json").is_file():
        check_model_folder(folder)
        return Weights(folder=folder)
    if path != run.root:
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
    """Say what is there in place of a checkpoint, and which name was probably meant."""
    if path.is_dir():
        found = {
            file.parent.name for name in ("config.json", checkpoint.COMPLETE_MARKER) for file in path.glob(f"*/{name}")
        }
        hint = f"name a folder in it: {_few(sorted(found, reverse=True))}" if found else "correct the path"
        if path.name and checkpoint.STEP_PATTERN.fullmatch(path.name) and (path / checkpoint.COMPLETE_MARKER).is_file():
            hint = f"it is a checkpoint away from its run: checkpoint=RUN training.checkpoint_dir={path.parent}"
        return ConfigError(
            f"checkpoint={path} is neither a Hugging Face folder (config.json), nor a run folder, nor a complete "
            f"checkpoint of a run; {hint}"
        )
    there = next((folder for folder in path.parents if folder.is_dir()), Path("/"))
    missing = path.relative_to(there).parts[0]
    names = [entry.name for entry in there.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(missing, names, n=NUM_HINTS, cutoff=0.5)
    hint = f"did you mean {_few([str(there / name) for name in near])}?" if near else f"nothing in {there} is named so"
    return ConfigError(f"checkpoint={path} is neither a Hugging Face folder nor a run: it does not exist; {hint}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NUM_HINTS]) + (", ..." if len(names) > NUM_HINTS else "")


def with_weights(config: ExperimentConfig, weights: Weights, run: RunFolder | None) -> ExperimentConfig:
    """Return settings whose `model.path` is what engines load; a run's own checkpoint is exported first.

    Boxes are read in the frame that the run was trained with, or that the family of a model folder is known for.

    Raises:
        CheckpointError: A file of the checkpoint is not what was written.
    """
    if weights.store is not None:
        assert run is not None  # only a run has checkpoints
        _export(config, weights.store, weights.step, weights.folder, run)
    frame = config.model.coord_mode
    if run is None and config.evaluate.checkpoint:
        family = json.loads((weights.folder / "config.json").read_text())["model_type"]
        frame = FAMILY_FRAMES.get(family, frame)
    # What describes the base model says nothing of these weights; limits of a picture's size that are typed hold.
    model = replace(
        config.model, path=str(weights.folder), family=None, coord_mode=frame, hf_config=None, hf_processor=None
    )
    config = replace(config, model=model)
    return replace(config, model=replace(model, path=str(model_folder(config))))


def _export(config: ExperimentConfig, store: FileStore, step: int, target: Path, run: RunFolder) -> None:
    """Write a checkpoint as a Hugging Face folder beside the run's others, by a learner as the run had."""
    checkpoint.verify(store, checkpoint.read(store, step))
    base = model_folder(config)
    with seated(config, run.logs, roles=("learner",)) as seats:
        learner = start_learner(config, base, seats, run.logs)
        asyncio.run(_load_and_export(learner, store, step, target, derive_seed(config.seed, "learner")))


async def _load_and_export(learner: LearnerGroup, store: FileStore, step: int, target: Path, seed: int) -> None:
    await learner.build(seed)
    try:
        await learner.load(store, step)
        await learner.export(target)
    finally:
        await learner.close()
