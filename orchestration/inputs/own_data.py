"""`data.train` that is no built dataset: its files become the sources of a recipe, which is built as any other."""

import logging
from dataclasses import replace
from pathlib import Path

from orchestration.data.own_files import OwnFiles, built_rows, find_own_files
from orchestration.data.sources.splits import named_split
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import NOT_SET
from orchestration.settings.recipe import OWN, DataConfig, RecipeConfig, Role

logger = logging.getLogger(__name__)


def with_own_data(config: ExperimentConfig) -> ExperimentConfig:
    """Return settings in which files of the user's own are sources of data.recipe, with what their columns are.

    What was recognised is so part of the settings of a run, and a resumed run reads its rows as it began. Settings
    whose data.train is not there, or is a dataset that is built already, are returned as they are.

    Raises:
        ConfigError: Files cannot be read, or their columns are not recognised; names the setting and what to set.
    """
    data = config.data
    if data.train in (None, NOT_SET) or not Path(named_split(data.train)[0]).exists():
        return config
    train = built_rows(Path(data.train), "train")
    if train is not None:
        return replace(config, data=_with_built(data, train))
    own = find("train", data)
    _say_doubts("train", own)
    name, roots = own.name, [*_roots(data), *own.image_roots]
    if data.held_out is None:
        sources = {name: own.source("train", array=data.rows or "", held_out_share=data.held_out_share)}
    elif not Path(named_split(data.held_out)[0]).exists():
        return config
    elif built_rows(Path(data.held_out), "held_out") is not None:
        raise ConfigError(
            f"data.held_out={data.held_out} is a built dataset, and data.train={data.train} is not; build that one too "
            "(mixed-r1 data build), or name the raw files of both"
        )
    else:
        other = find("held_out", data)
        _say_doubts("held_out", other)
        held_out = other.source("held_out", array=data.rows or "", label=name)
        sources = {name: own.source("train", array=data.rows or ""), f"{name}_held_out": held_out}
        roots += other.image_roots
    checks = _checks(data)
    all_roots = tuple(dict.fromkeys([*roots, *checks.image_roots]))
    recipe = replace(checks, name=name, sources=sources, raw=None, image_roots=all_roots)
    recipe.check_sources()
    return replace(config, data=DataConfig(train=None, held_out=None, recipe=recipe, stream=data.stream))


def find(role: Role, data: DataConfig) -> OwnFiles:
    """Find the files of a role, and recognise their columns.

    Raises:
        ConfigError: Naming the setting and what to set.
    """
    value = data.train if role == "train" else data.held_out
    assert value is not None  # asked only where it is set
    try:
        path, split = named_split(value)
        return find_own_files(
            Path(path).expanduser().absolute(),
            role,
            columns=data.columns,
            split=split,
            array=data.rows or "",
            image_roots=_roots(data),
        )
    except ConfigError as error:
        raise ConfigError(f"data.{role}={value}: {error}") from error


def _say_doubts(role: Role, own: OwnFiles) -> None:
    """Warn of what `mixed-r1 data look` shows as uncertain."""
    for doubt in (*own.notes, *own.recognised.uncertain):
        logger.warning("data.%s: %s", role, doubt)


def _with_built(data: DataConfig, train: Path) -> DataConfig:
    """Return the settings of a dataset that is built, with the folder of its rows for evaluation."""
    held_out = data.held_out
    if held_out is None and train.parent == Path(str(data.train)):
        held_out = str(train.parent / "held_out")
    elif held_out not in (None, NOT_SET) and (rows := built_rows(Path(held_out), "held_out")) is not None:
        held_out = str(rows)
    if held_out is None:
        raise ConfigError(
            f"data.held_out is not set, and data.train={data.train} is built, with no row held out; set it to the rows "
            "that were built for evaluation"
        )
    return replace(data, train=str(train), held_out=held_out)


def _checks(data: DataConfig) -> RecipeConfig:
    """Return the recipe whose limits, prompts and checks hold for files of the user's own."""
    return data.recipe or RecipeConfig(name=OWN, seed=0, sources={})


def _roots(data: DataConfig) -> list[str]:
    return [str(Path(root).expanduser().absolute()) for root in data.image_roots]
