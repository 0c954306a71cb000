"""Finding the files of a download, and saying what is missing."""

import glob
from collections.abc import Iterable
from pathlib import Path

from orchestration.data.sources.base import Part
from orchestration.settings.errors import DataError


def missing(root: Path, expected: str, layout: str) -> DataError:
    """Say which files a source lacks and how its download is laid out."""
    state = "" if root.is_dir() else " (the folder does not exist)"
    return DataError(f"{root}{state} holds no {expected}; expected layout: {layout}. Check the source's path and split")


def require_file(root: Path, name: str, layout: str) -> Path:
    """Give `root/name`.

    Raises:
        DataError: It is not there.
    """
    if not (root / name).is_file():
        raise missing(root, name, layout)
    return root / name


def split_files(root: Path, split: str, suffix: str = ".parquet") -> list[Path]:
    """Find the files of one split as hub downloads lay them out, in the order of their names.

    `train-00000-of-00003.parquet`, `train.parquet` or `train/0000.parquet`, in the root, in `data/`, or in the folder
    of a configuration.
    """
    if not split:
        return []
    name = glob.escape(split)
    found: set[Path] = set()
    for pattern in (f"{name}-*{suffix}", f"{name}{suffix}", f"{name}/*{suffix}"):
        found.update(path for path in [*root.glob(pattern), *root.glob(f"*/{pattern}")] if path.is_file())
    return sorted(found)


def file_parts(root: Path, files: Iterable[Path], **arguments: object) -> list[Part]:
    """Make one part of every file, named by its path without ending."""
    return [
        Part(name=path.relative_to(root).with_suffix("").as_posix(), files=(path,), arguments=dict(arguments))
        for path in files
    ]
