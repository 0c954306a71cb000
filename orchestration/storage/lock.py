"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestration.settings.errors import ResumeError

LOCK_FILE = ".lock"


@contextmanager
def exclusive(folder: Path, *, refusal: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder within the block; it is released with the process.

    Args:
        folder: Made where it does not exist; as it was before, lock and all, if the block leaves no file in it.
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
