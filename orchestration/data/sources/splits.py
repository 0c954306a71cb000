"""Splits of a dataset's folder, by its card or by the names of its files, and where pictures of its rows may lie."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestration.settings.errors import ConfigError

TABLES = (".parquet", ".arrow", ".feather", ".tar", ".tar.gz", ".tgz")
"""Endings of files whose rows may hold their pictures."""
TEXTS = (".jsonl", ".jsonlines", ".ndjson", ".json", ".csv", ".tsv")
"""Endings of files whose rows name their pictures; gzip adds its own."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
CARD = "README.md"
MAX_CARD_BYTES = 2**20
MAX_DEPTH = 3
"""Folders on the way to a file of rows, such as CONFIGURATION/data/train."""
MAX_NAMED = 12
"""Splits or files that a message names."""

_SPLIT = re.compile(r"[\w.-]+")
_SHARD = re.compile(r"-\d+-of-\d+(?:-[0-9a-f]+)?$")
_REPOSITORY = re.compile(r"(?:datasets|models|spaces)--.+")
_NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json")
_ENDINGS = tuple(sorted({*TABLES, *TEXTS, *(f"{ending}.gz" for ending in TEXTS)}, key=len, reverse=True))


@dataclass(frozen=True, slots=True)
class CardSplit:
    """A split that the card of a dataset names, with the patterns of its files."""

    configuration: str
    split: str
    patterns: tuple[str, ...]


def named_split(value: str) -> tuple[str, str]:
    """Return a folder and the split behind it: `saved` and `test` of `saved:test`; else the value and an empty text."""
    path, _, split = value.rpartition(":")
    if not path or not _SPLIT.fullmatch(split) or Path(value).exists() or not Path(path).is_dir():
        return value, ""
    return path, split


def files_of_split(folder: Path, split: str, inside: str = "") -> list[Path]:
    """Return the files that hold the rows of a split, in order.

    The card of the folder says which they are; else names do: `test-00000-of-00001.parquet`, `test.jsonl` or
    `test/0.tar`, and where there is none such, `qa_test_v1.json`.

    Args:
        folder: Of a dataset: a download, a snapshot of the hub's cache, or what `save_to_disk` wrote.
        split: In the dataset's own words.
        inside: Folder in it, or configuration of its card.

    Raises:
        ConfigError: There is no such split, or several folders or forms hold it; names those that are there.
    """
    found = _of_card(folder, split, inside)
    if not found:
        rows = list(row_files(folder / inside))
        found = [path for path in rows if split in _names(path, folder)]
        found = found or [path for path in rows if split in re.split(r"[^A-Za-z0-9]+", path.name)]
        if not found:
            known = {entry.split for entry in card_splits(folder)}
            names = sorted(known.union(*(_names(path, folder)[:1] for path in rows)))
            there = f"; there are {', '.join(names[:MAX_NAMED])}" if names else ", nor any file of rows"
            raise ConfigError(f"{folder / inside} holds no split {split}{there}")
    kinds = sorted({f"{path.parent.relative_to(folder)}/*{_ending(path)}" for path in found})
    if len(kinds) > 1:
        raise ConfigError(
            f"{folder} holds the split {split} several times, in {', '.join(kinds[:MAX_NAMED])}; name one of the "
            "folders, or the file"
        )
    return sorted(found)


def path_of_split(folder: Path, split: str, inside: str = "") -> str:
    """Return the narrowest path of a split: its one file, the folder that holds nothing else, or `FOLDER:SPLIT`.

    Raises:
        ConfigError: As of `files_of_split`; or only the card tells its files from others.
    """
    files = files_of_split(folder, split, inside)
    if len(files) == 1 and files[0].suffix != ".arrow":
        return str(files[0])
    parent = files[0].parent
    if set(files) == set(row_files(parent)):
        return str(parent)
    for place in (folder / inside, folder, parent):
        if place.is_dir() and _is_found(place, split, files):
            return f"{place}:{split}"
    raise ConfigError(f"no path names {split} of {folder / inside} alone; name its files in a recipe")


def _is_found(folder: Path, split: str, files: list[Path]) -> bool:
    try:
        return files_of_split(folder, split) == files
    except ConfigError:
        return False


def image_root(path: Path) -> Path:
    """Return the folder in which images of a dataset may lie, to be named in `data.recipe.image_roots`.

    Of a snapshot in the hub's cache this is the folder of its repository: files of a snapshot are links into `blobs`
    there. Of any other dataset it is its own folder.

    Example:
        >>> str(image_root(Path("/hub/datasets--ORG--NAME/snapshots/1a2b/data/train.jsonl")))
        '/hub/datasets--ORG--NAME'
    """
    for folder in (path, *path.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and _REPOSITORY.fullmatch(repository.name):
            return repository
    return path if path.is_dir() else path.parent


def card_splits(folder: Path) -> list[CardSplit]:
    """Return the splits that the card of a dataset names, in its order; none where it has no card, or names none."""
    try:
        text = (folder / CARD).read_bytes()[:MAX_CARD_BYTES].decode("utf-8", errors="replace")
        head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
        described = yaml.safe_load(head)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # a date that is none is a ValueError
        return []
    configs = described.get("configs") if isinstance(described, dict) else None
    found: list[CardSplit] = []
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict):
            name, files = str(config.get("config_name", "default")), config.get("data_files")
            found.extend(CardSplit(name, split, patterns) for split, patterns in _data_files(files))
    return found


def _data_files(files: object) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return splits with their patterns from `data_files` of a card: entries of split and path, or paths of `train`."""
    entries = files if isinstance(files, list) else [files]
    if all(isinstance(entry, str) for entry in entries):
        entries = [{"split": "train", "path": entries}]
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("split"), str):
            paths = entry.get("path")
            patterns = paths if isinstance(paths, list) else [paths]
            yield entry["split"], tuple(pattern for pattern in patterns if isinstance(pattern, str))


def patterns_of_card(splits: Sequence[CardSplit], split: str, inside: str = "") -> tuple[str, ...]:
    """Return the patterns of a split in one configuration of a card; none where the card does not say it.

    Args:
        splits: Of the card.
        split: In the card's words.
        inside: Name of the configuration, or a folder that its files lie in; empty takes `default`, or the only one.
    """
    named = [entry for entry in splits if entry.split == split]
    if inside:
        chosen = [entry for entry in named if entry.configuration == inside]
        chosen = chosen or [e for e in named if e.patterns and all(p.startswith(f"{inside}/") for p in e.patterns)]
    else:
        chosen = [entry for entry in named if entry.configuration == "default"] or named
    return chosen[0].patterns if len(chosen) == 1 else ()


def _of_card(folder: Path, split: str, inside: str) -> list[Path]:
    patterns = patterns_of_card(card_splits(folder), split, inside)
    if not patterns:
        return []
    files = [(path, path.relative_to(folder).as_posix()) for path in row_files(folder)]
    return [path for path, name in files if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern of a card fits: `*` stands for no slash, `**` for any."""
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    steps = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.fullmatch("".join(pieces.get(step, re.escape(step)) for step in steps), name) is not None


def row_files(folder: Path, depth: int = MAX_DEPTH) -> Iterable[Path]:
    """Return the files of rows in a folder and in those below it, by name; of a saved dataset those that it names."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    saved = _state(folder)
    named = None if saved is None else {file["filename"] for file in saved["_data_files"]}
    for entry in entries:
        if entry.is_dir():
            if depth:
                yield from row_files(Path(entry.path), depth - 1)
        elif _ending(Path(entry.name)) and entry.name not in _NO_ROWS and (named is None or entry.name in named):
            yield Path(entry.path)


def _state(folder: Path) -> dict[str, Any] | None:
    """Return what `save_to_disk` says of a dataset: its files and its split; None where the folder holds none."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
        return state if all(isinstance(file["filename"], str) for file in state["_data_files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((ending for ending in _ENDINGS if name.endswith(ending) and not name.startswith(".")), "")


def _names(path: Path, folder: Path) -> tuple[str, ...]:
    """Return the splits that a file may be of, the likeliest first: `test` of `test-00000-of-00001.parquet`."""
    folders = path.relative_to(folder).parts[:-1]
    saved = _state(path.parent)
    if saved is not None:
        return (*folders[-1:], *([saved["_split"]] if isinstance(saved.get("_split"), str) else []))
    return _SHARD.sub("", path.name[: -len(_ending(path))]), *folders
