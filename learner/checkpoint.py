"""Checkpoint folders: written beside their name, marked complete, then renamed. Pure file work, no torch.

<directory>/step_00000012/        whole
complete                      the marker; without it the folder does not count
meta.json                     step, weight_version, num_ranks, and the caller's extra
weights/                      sharded weights and optimiser state (torch.distributed.checkpoint)
random_00000.pt               random states of rank 0, ...
<directory>/step_00000013.tmp/    being written, or left by a process that died

The caller's own dictionary is what a run needs to go on: its step, and whatever else it chose to write.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner.errors import CheckpointError

COMPLETE_MARKER = "complete"
META_FILE = "meta.json"
STEP_PATTERN = re.compile(r"step_(\d{8})")


def step_folder(directory: Path, step: int) -> Path:
    """Name the checkpoint of a step.

    Example:
        >>> step_folder(Path("checkpoints"), 12).name
        'step_00000012'
    """
    return directory / f"step_{step:08d}"


def begin(directory: Path, step: int) -> Path:
    """Make an empty folder to write into; clears what a process that died left there."""
    folder = step_folder(directory, step).with_suffix(".tmp")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def commit(written: Path, meta: Mapping[str, Any]) -> Path:
    """Describe, mark and rename a written folder; gives its final path.

    A checkpoint of the same step is replaced: the new one is whole before the old one goes.
    """
    (written / META_FILE).write_text(json.dumps(dict(meta), indent=2, sort_keys=True))
    _flush(written)
    (written / COMPLETE_MARKER).touch()
    _flush(written)
    final = written.with_suffix("")
    if final.exists():
        shutil.rmtree(final)
    written.rename(final)
    _flush_entry(final.parent)
    return final


def _flush(folder: Path) -> None:
    """Force a folder's files to disk, so that a power cut after the marker finds everything before it."""
    for path in (*folder.rglob("*"), folder):
        _flush_entry(path)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_complete(directory: Path) -> list[Path]:
    """Give all whole checkpoints, oldest first; partial ones are passed over."""
    if not directory.is_dir():
        return []
    return sorted(
        folder
        for folder in directory.iterdir()
        if STEP_PATTERN.fullmatch(folder.name) and (folder / COMPLETE_MARKER).is_file()
    )


def latest_complete(directory: Path) -> Path | None:
    """Give the whole checkpoint with the highest step, or None."""
    found = list_complete(Path(directory))
    return found[-1] if found else None


def prune(directory: Path, keep_last: int) -> list[Path]:
    """Delete all whole checkpoints but the newest `keep_last`; gives what was deleted."""
    if keep_last < 1:
        raise CheckpointError(f"keep_last is {keep_last}; keep at least 1, or nothing could be resumed")
    doomed = list_complete(directory)[:-keep_last]
    for folder in doomed:
        # Unmarked first, so that a deletion cut short leaves no folder that looks whole.
        (folder / COMPLETE_MARKER).unlink()
        shutil.rmtree(folder)
    return doomed


def read_meta(folder: Path) -> dict[str, Any]:
    """Read what `commit` was told.

    Raises:
        CheckpointError: the folder is not a whole checkpoint.
    """
    if not (folder / COMPLETE_MARKER).is_file():
        raise CheckpointError(f"{folder} is no complete checkpoint; take one that latest_complete() names")
    meta: dict[str, Any] = json.loads((folder / META_FILE).read_text())
    return meta


def read_extra(folder: Path) -> dict[str, Any]:
    """Read the caller's own dictionary."""
    extra: dict[str, Any] = read_meta(folder)["extra"]
    return extra
