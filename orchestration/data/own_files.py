"""Files of the user's own as a source of a recipe: which files a path names, their form, and what their columns are."""

import glob
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.data.sources.fields import is_link
from orchestration.data.sources.files import find_form, records
from orchestration.data.sources.findings import SETTING
from orchestration.data.sources.first_rows import FIRST_ROWS
from orchestration.data.sources.recognise import Recognised, recognise
from orchestration.data.sources.rows import BadRow
from orchestration.data.sources.splits import (
    PICTURES,
    TABLES,
    TEXTS,
    card_splits,
    files_of_split,
    image_root,
    row_files,
)
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import OWN, Role, SourceConfig
from rollout.dataset import is_dataset

SPLITS: Mapping[Role, tuple[str, ...]] = {
    "train": ("train", "training"),
    "held_out": ("held_out", "validation", "valid", "val", "dev", "testmini", "test", "eval"),
}
"""Names of splits in the names of files and folders, those first that are preferred."""
_SPLIT = re.compile(rf"(?:^|[-_./])({'|'.join(name for names in SPLITS.values() for name in names)})(?=[-_./0-9]|$)")
_SHARD = re.compile(r"-[0-9]+(?:-of-[0-9]+)?$")
MAX_FOLDERS = 50
"""Folders below that of the rows in which images are looked for."""
MAX_NAMED = 8
MAX_LOOKED_AT = 100
"""Files of a folder among which pictures are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """Files that one setting names, and how they are read."""

    root: Path
    """Folder from which files and images are named."""
    files: tuple[Path, ...]
    form: str
    """Of the first file: lines, array, table, parquet ..."""
    rows: tuple[Mapping[str, Any], ...]
    """The first rows, raw; of the next files too where the first has few."""
    recognised: Recognised
    notes: tuple[str, ...] = ()
    """Which files of a folder are left out, and what is not in the rows."""

    @property
    def name(self) -> str:
        """Name under which the rows are counted: that of the file, or of the folder where the file is one of shards."""
        stem = self.files[0].name.partition(".")[0]
        named = stem if len(self.files) == 1 and _SHARD.search(stem) is None else self.root.name
        return re.sub(r"[^A-Za-z0-9_-]+", "_", named).strip("_") or OWN

    @property
    def image_roots(self) -> list[str]:
        """Folders outside of `root` in which images lie: that of `images_from`, and that of a hub's repository."""
        folders = [image_root(self.root)]
        if self.recognised.images and not is_link(self.recognised.images):
            folders.append((self.root / self.recognised.images).resolve())
        root = self.root.resolve()
        return [str(folder) for folder in folders if not folder.resolve().is_relative_to(root)]

    def source(self, role: Role, *, array: str = "", held_out_share: float = 0.0, label: str = "") -> SourceConfig:
        """Return the source of a recipe that reads these files."""
        return SourceConfig(
            adapter="jsonl",
            path=str(self.root),
            label=label,
            role=role,
            held_out_share=held_out_share,
            options={
                "mapping": self.recognised.mapping,
                "answer_is": self.recognised.answer_is,
                "images": self.recognised.images,
                "files": [glob.escape(path.relative_to(self.root).as_posix()) for path in self.files],
                "array": array,
            },
        )


def built_rows(path: Path, role: Role) -> Path | None:
    """Return where the rows of a role are in a dataset that the data engine wrote, of any version of its schema.

    Args:
        path: A shard, a folder of shards, or the folder above `train` and `held_out`.
        role: Which of these two is meant.

    Returns:
        None where the path is no such dataset.
    """
    return next((place for place in (path, path / role) if is_dataset(place)), None)


def find_own_files(
    path: Path,
    role: Role,
    *,
    columns: Mapping[str, Any],
    split: str = "",
    array: str = "",
    image_roots: Sequence[str] = (),
) -> OwnFiles:
    """Find the files that a path names, and recognise their columns by the first rows.

    Args:
        path: A file, a folder of files, or a folder that `save_to_disk` of the datasets library wrote.
        role: Which split of a folder is taken: `train`, or one that is for evaluation. A folder whose files name no
            split is taken as a whole.
        columns: What the user says of the columns; see `recognise`.
        split: Split that the user names; empty for that of the role.
        array: Of a JSON object with several lists: the name of the list of rows.
        image_roots: Absolute folders in which relative image paths may begin too.

    Raises:
        ConfigError: There are no rows, a file is damaged or of no known form, the files of a folder have other columns
            than the first, or a question or an answer cannot be found among the columns.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; correct the path")
    root = path if path.is_dir() else path.parent
    _check_folder(root, columns.get("images_from"))
    files, notes = _files(path, role, split)
    form, rows = _first_rows(files[0], array)
    folders = ["", *_folders(root), *image_roots]

    def found(rows: Sequence[Mapping[str, Any]], file: Path) -> Recognised:
        return recognise(
            rows,
            columns=columns,
            name=file.relative_to(root.parent).as_posix(),
            folders=folders,
            has_file=lambda name: _is_file(root, name),
        )

    recognised, first = found(rows, files[0]), list(rows)
    known = set(rows[0])
    for other in files[1:]:
        _, others = _first_rows(other, array)
        first += others[: FIRST_ROWS - len(first)]
        if set(others[0]) != known and found(others, other).mapping != recognised.mapping:
            raise ConfigError(
                f"{path} holds files with other columns: {files[0].name} has {_listed(rows[0])}, {other.name} has "
                f"{_listed(others[0])}; name one file, or a folder for each kind"
            )
    if len(first) > len(rows):  # small files, such as one for each picture
        recognised = found(first, files[0])
    notes += [*_several_folders(files, root), *_pictures_left(recognised, root)]
    return OwnFiles(
        root=root, files=tuple(files), form=form, rows=tuple(first), recognised=recognised, notes=tuple(notes)
    )


def _several_folders(files: Sequence[Path], root: Path) -> list[str]:
    """Return a note if files of several folders are read: they may be configurations or versions of the same rows."""
    folders = list(dict.fromkeys(path.parent.relative_to(root).as_posix() for path in files))
    if len(folders) < 2:
        return []
    more = ", ..." if len(folders) > MAX_NAMED else ""
    return [
        f"rows of {len(folders)} folders are read together: {', '.join(folders[:MAX_NAMED])}{more}; name one of them"
    ]


def _pictures_left(recognised: Recognised, root: Path) -> list[str]:
    """Return a note if rows are asked without pictures although pictures lie beside them."""
    if recognised.has_images:
        return []
    folders = [root, *(root / folder for folder in itertools.islice(_folders(root), MAX_NAMED))]
    names = sorted(entry.name for folder in folders for entry in itertools.islice(os.scandir(folder), MAX_LOOKED_AT))
    picture = next((name for name in names if name.lower().endswith(PICTURES)), None)
    if picture is None:
        return []
    return [
        f"rows name no pictures, and are asked without; there are some, such as {picture}; {SETTING}.images names them"
    ]


def _check_folder(root: Path, folder: object) -> None:
    """Raise a ConfigError where the user names a folder of images that is not there."""
    if folder is not None and not is_link(str(folder)) and not (root / str(folder)).is_dir():
        raise ConfigError(
            f"data.columns.images_from is {str(folder)!r}, and {root / str(folder)} is no folder; name one "
            f"from {root}, where the rows are, or from /"
        )


def _files(path: Path, role: Role, split: str) -> tuple[list[Path], list[str]]:
    """Return the files of a split, and what is said of the others."""
    if path.is_file():
        return [path], []
    if split:
        return files_of_split(path, split), []
    files = list(row_files(path))
    if not files:
        raise ConfigError(f"{path} holds no file of rows ({', '.join((*TEXTS, *TABLES))}); name a file")
    of_card = [entry.split for entry in card_splits(path)]
    splits = {file: _split_of(file.relative_to(path)) for file in files}
    there = list(dict.fromkeys([*of_card, *splits.values()]))
    wanted = next((name for name in SPLITS[role] if name in there), None)
    if wanted is None and there != [""]:
        raise ConfigError(
            f"{path} has the splits {', '.join(name or 'of no name' for name in there)}, none of which is for "
            f"{'training' if role == 'train' else 'evaluation'}; name one behind the folder "
            f"({path}:{there[0] or 'NAME'}), or a file"
        )
    if wanted is None:
        return files, []
    taken = files_of_split(path, wanted) if wanted in of_card else [file for file in files if splits[file] == wanted]
    left = [name or "files of no split" for name in there if name != wanted]
    return taken, [f"the split {wanted} is read, not {', '.join(left)}"] if left else []


def _split_of(file: Path) -> str:
    """Return the split that the name of a file or of its folder names; the nearest name counts."""
    found = _SPLIT.findall(file.with_suffix("").as_posix().lower())
    return str(found[-1]) if found else ""


def _folders(root: Path) -> Iterator[str]:
    """Return folders below that of the rows, relative to it, nearest first."""
    near = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    below = sorted(folder for outer in near[:MAX_FOLDERS] for folder in outer.iterdir() if folder.is_dir())
    for folder in [*near, *below][:MAX_FOLDERS]:
        yield folder.relative_to(root).as_posix()


def _is_file(root: Path, name: str) -> bool:
    try:
        return (root / name).is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


def _first_rows(file: Path, array: str) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the form of a file and its first rows.

    Raises:
        ConfigError: It has none that are objects.
    """
    first = list(itertools.islice(records(file, array), FIRST_ROWS))
    rows = [record.value for record in first if isinstance(record, Record) and isinstance(record.value, Mapping)]
    if rows:
        return find_form(file, array).kind, rows
    why = next((record.detail for record in first if isinstance(record, BadRow)), "")
    raise ConfigError(f"{file} has no row that can be read{f': {why}' if why else ''}")


def _listed(row: Mapping[str, Any]) -> str:
    names = list(map(str, row))
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
