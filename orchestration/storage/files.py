"""Files written whole or line by line, and folders locked for one process."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestration.settings.errors import InfrastructureError, ResumeError

LOCK_FILE = ".lock"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path to write: the file appears under its own name when the block ends, and not at all if it raises."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InfrastructureError, which names the file, where the disk does not take what the block writes."""
    try:
        yield
    except OSError as error:
        raise InfrastructureError(
            f"{path} cannot be written ({error.strerror or error}); free space there or correct its permissions, and "
            "the same command continues from the latest checkpoint"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps(value, indent=2) + "\n")


def read_json_lines(path: Path, *keys: str) -> Iterator[dict[str, Any]]:
    """Return the lines of a file that a run appends to, without those that a kill cut short; none without the file.

    Args:
        path: the file.
        keys: what every line holds; one that lacks any of them was damaged, and is left out too.
    """
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and record.keys() >= set(keys):  # the beginning of a number is a number too
                yield record


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line to a file, on a line of its own where a kill cut the last one short."""
    with writing(path), path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")


@contextmanager
def exclusive(folder: Path, *, refusal: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder within the block; it is released with the process.

    Args:
        folder: Made where it does not exist. If the block writes no file into it, everything is left as it was before.
        refusal: What to say if another process is in it.

    Raises:
        ResumeError: Another process holds the lock.
    """
    above = [path for path in (folder, *folder.parents) if not path.exists()]
    # A folder that was locked before belongs to a run.
    before = None if (folder / LOCK_FILE).exists() else set(folder.rglob("*"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResumeError(refusal) from error
        try:
            yield
        finally:
            if before is not None:
                _remove_unused(folder, before, above)


def _remove_unused(folder: Path, before: set[Path], above: list[Path]) -> None:
    inside = sorted(set(folder.rglob("*")) - before, reverse=True)
    if any(not path.is_dir() and path != folder / LOCK_FILE for path in inside):
        return
    with suppress(OSError):  # another process may have come
        for path in inside:
            path.rmdir() if path.is_dir() else path.unlink()
        for path in above:
            path.rmdir()
