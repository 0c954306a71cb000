"""The folder of one run's temporary files: its sockets, Ray's session, what Ray writes to disk."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestration.settings.errors import ConfigError

PREFIX = "mr1-"
LOCK_NAME = "mixed-r1.lock"
SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux."""
FOLDER_BYTES = len(f"/{PREFIX}12345678")
RAY_BYTES = len("/session_2026-11-28_05-27-25_123456_4194304/sockets/plasma_store")


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new folder for the files of a local Ray, and remove it at the end with all that it holds.

    What killed runs of this user left behind is removed first.

    Raises:
        ConfigError: no folder can be made.
    """
    base = temporary_base()
    _remove_abandoned(base)
    try:
        folder, lock = _locked_folder(base)
    except OSError as error:
        raise ConfigError(
            f"TMPDIR={base} cannot be written ({error.strerror}); set TMPDIR to a folder that can"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def temporary_base() -> Path:
    """Return where a local Ray keeps its files: RAY_TMPDIR or TMPDIR, or /tmp where those are too long for sockets."""
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
    is_short = len(os.fsencode(base)) <= SOCKET_BYTES - FOLDER_BYTES - RAY_BYTES
    return base if is_short else Path("/tmp")


def _locked_folder(base: Path) -> tuple[Path, int]:
    """Make a folder whose lock is held; whoever clears up takes one without a holder for abandoned."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / LOCK_NAME).exists():
            return folder, lock
        os.close(lock)  # cleared up before the lock was held


def _remove_abandoned(base: Path) -> None:
    for lock_file in base.glob(f"{PREFIX}????????/{LOCK_NAME}"):
        with suppress(OSError):  # another user's, in use, or gone meanwhile
            if lock_file.stat().st_uid != os.getuid():
                continue
            lock = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
            finally:
                os.close(lock)
