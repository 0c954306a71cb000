"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestration.errors import ResumeError


@contextmanager
def exclusive(folder: Path, *, refusal: str) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; the lock goes with the process, however it ends.

    Args:
        folder: Made where it does not exist.
        refusal: What to say if another process is in it.

    Raises:
        ResumeError: Another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResumeError(refusal) from error
        yield
