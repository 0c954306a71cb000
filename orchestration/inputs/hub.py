"""Models and datasets by their names on the Hugging Face Hub: `model.path=ORG/NAME`, downloaded once into its cache.

The library's own cache is used (HF_HOME says where); several machines need it on storage that they share. A snapshot
lies in a folder that is named by its revision, and a run writes that path into its settings: so the revision is on
record, and a resumed run stays with it whatever the hub has by then.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orchestration.data.sources.splits import (
    CARD,
    PICTURES,
    TABLES,
    TEXTS,
    CardSplit,
    card_splits,
    path_of_split,
    patterns_of_card,
)
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import NOT_SET
from orchestration.storage.run_folder import RunFolder, flatten, read_config

KINDS: Mapping[str, Literal["model", "dataset"]] = {
    "model.path": "model",
    "data.train": "dataset",
    "data.held_out": "dataset",
    "learner.lora.start": "model",
}
"""Settings that take a name of the hub."""
FORM = "ORG/NAME[/FOLDER][@REVISION][:SPLIT]"
NAME = re.compile(r"([\w.-]+/[\w.-]+?)(/[\w./-]+?)?(@[\w./-]+)?(:[\w.-]+)?")
"""ORG/NAME, a folder or file in it, a revision (a branch, a tag or a commit), and a split."""
ALMOST = re.compile(r"(?:hf::|ms::)?[\w.-]+/[\w.-]+(?:/[\w./-]+)?(?:[@:#][^@:#]+)+")
"""Names as other trainers write them, such as ORG/NAME:SUBSET#1000."""
SNAPSHOT = re.compile(r".*/(?:models|datasets)--(.+)/snapshots/([^/:]+)(?:[/:].*)?")
MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """What a setting names on the hub."""

    repository: str
    inside: str
    """Folder or file in it; empty for all."""
    revision: str | None
    split: str = ""
    """Of a dataset; empty where none is named."""


def hub_name(value: str | None) -> HubName | None:
    """Return what a path names on the hub; None where it is a path of this machine, there or not.

    Example:
        >>> hub_name("/models/own"), hub_name("ORG/NAME/train@v2:test")
        (None, HubName(repository='ORG/NAME', inside='train', revision='v2', split='test'))
    """
    found = None if value is None or _is_path(value) else NAME.fullmatch(value)
    if found is None:
        return None
    revision = (found[3] or "").removeprefix("@") or None
    split = (found[4] or "").removeprefix(":")
    return HubName(repository=found[1], inside=(found[2] or "").strip("/"), revision=revision, split=split)


def _is_path(value: str) -> bool:
    return (
        value == NOT_SET
        or value.startswith((".", "~", "/"))
        or Path(value).exists()
        or Path(value.partition("/")[0]).is_dir()
    )


def _check_form(key: str, value: str | None) -> None:
    """Refuse what is nearly a name of the hub.

    Raises:
        ConfigError: Saying how a name is written.
    """
    if value is None or _is_path(value):
        return
    name = NAME.fullmatch(value)
    if (name is None and ALMOST.fullmatch(value)) or (name and name[4] and KINDS[key] == "model"):
        form = FORM if KINDS[key] == "dataset" else FORM.removesuffix("[:SPLIT]")
        raise ConfigError(
            f"{key}={value} is no path here, and no name on the Hugging Face Hub: names are {form}. A subset is a "
            "FOLDER; how many rows are taken, max_rows of a source says"
        )


def with_hub_folders(config: ExperimentConfig, *, is_online: bool = True) -> ExperimentConfig:
    """Return settings with the folders of the models and datasets that they name on the hub, downloaded where needed.

    Args:
        config: of a run; where one has begun in its run_dir, its revisions are taken.
        is_online: False takes what the cache has, and leaves the other names as they are.

    Raises:
        ConfigError: naming the setting, what was tried, and how to get the folder by hand.
    """
    lora = config.learner.lora
    values = {"model.path": config.model.path, "data.train": config.data.train, "data.held_out": config.data.held_out}
    values["learner.lora.start"] = None if lora is None else lora.start
    for key, value in values.items():
        _check_form(key, value)
    named = {key: name for key, value in values.items() if (name := hub_name(value)) is not None}
    if not named:
        return config
    begun = _settings_begun(config)
    found: dict[str, str] = {}
    for key, name in named.items():
        pinned = SNAPSHOT.fullmatch(str(begun.get(key)))
        if name.revision is None and pinned and pinned[1] == name.repository.replace("/", "--"):
            name = replace(name, revision=pinned[2])
        try:
            found[key] = _fetched(key, str(values[key]), name, is_online=is_online)
        except ConfigError:
            if is_online:
                raise
    model = replace(config.model, path=found.get("model.path", config.model.path))
    data = replace(
        config.data,
        train=found.get("data.train", config.data.train),
        held_out=found.get("data.held_out", config.data.held_out),
    )
    if lora is not None:
        lora = replace(lora, start=found.get("learner.lora.start", lora.start))
    return replace(config, model=model, data=data, learner=replace(config.learner, lora=lora))


def _settings_begun(config: ExperimentConfig) -> dict[str, object]:
    """Return the settings of the run in run_dir; empty where none has begun."""
    try:
        return dict(flatten(read_config(RunFolder(config.run_path))))
    except ResumeError:
        return {}  # what is wrong with them is said where the run is continued


def _fetched(key: str, value: str, name: HubName, *, is_online: bool) -> str:
    kind = KINDS[key]
    by_hand = (
        f"without network, get it by hand where there is one (hf download {name.repository} --repo-type {kind} "
        f"--local-dir FOLDER), and set {key} to that folder"
    )
    try:
        from huggingface_hub import constants, snapshot_download
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{key}={value} is no folder here, and names of the Hugging Face Hub need the packages of training: pip "
            f"install '.[train]' in the checkout; {by_hand}"
        ) from error

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                name.repository,
                repo_type=kind,
                revision=name.revision,
                allow_patterns=list(patterns),
                local_files_only=not is_online,
            )
        )

    try:
        if kind == "model":
            snapshot = fetch([name.inside, f"{name.inside}/*"] if name.inside else MODEL_FILES)
        else:
            splits = card_splits(fetch([CARD])) if name.split else []
            snapshot = fetch(dataset_patterns(name, splits))
    except Exception as error:  # of the library, of its HTTP client, or of the disk
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"{key}={value} is no path here, and the Hugging Face Hub gave no {kind} {name.repository} at revision "
            f"{name.revision or 'main'} ({type(error).__name__}: {reason}); the cache {constants.HF_HUB_CACHE} has "
            f"none either. Correct the name: it is {FORM if kind == 'dataset' else FORM.removesuffix('[:SPLIT]')}; "
            f"{by_hand}"
        ) from error
    if name.split:
        try:
            return path_of_split(snapshot, name.split, name.inside)
        except ConfigError as error:
            raise ConfigError(f"{key}={value}: {error}; names are {FORM}") from error
    folder = snapshot / name.inside
    part = folder / key.rpartition(".")[2]  # train or held_out, as `data build` writes them
    if kind == "dataset" and not name.inside and any(part.glob("*.parquet")):
        folder = part
    if not folder.exists():
        raise ConfigError(f"{key}={value}: {name.repository} holds no {name.inside}; correct the name")
    return str(folder)


def dataset_patterns(name: HubName, splits: Sequence[CardSplit] = ()) -> list[str]:
    """Return which files of a dataset are downloaded: its rows in the forms that are read, and their pictures.

    Of a split that is named, tables of other splits are left out, as they may hold gigabytes of pictures; which files
    are its own the card says, else their names.

    Args:
        name: Of the dataset.
        splits: Of its card.
    """
    if name.inside.lower().endswith(TABLES):
        return [name.inside]
    pictures = [f"*{form}" for ending in PICTURES for form in (ending, ending.upper())]
    if name.inside.lower().endswith((*TEXTS, *(f"{ending}.gz" for ending in TEXTS))):
        return [name.inside, *pictures]
    own = patterns_of_card(splits, name.split, name.inside)
    if own and all(pattern.lower().endswith(TABLES) for pattern in own):
        return [CARD, *own]
    within = f"{name.inside}/" if name.inside else ""
    if not name.split:
        return (
            [name.inside, f"{within}*"]
            if within
            else [*(f"*{ending}" for ending in (*TABLES, *TEXTS, ".gz")), *pictures, CARD]
        )
    texts = [f"*{ending}" for ending in (*TEXTS, ".gz")]
    tables = [f"*{name.split}*{ending}" for ending in TABLES]
    return [*own, *(f"{within}{pattern}" for pattern in (*tables, *texts, *pictures)), CARD]
