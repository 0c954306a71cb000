"""StagingArea: a process's own folder on fast local disk, gone with the process that made it.

<parent>/mixed-r1-staging-<random>/       what is on its way to or from the checkpoint directory; readable by its user
<parent>/mixed-r1-staging-<random>.lock   locked for as long as that is there and the process lives

The operating system releases the lock when a process ends, however it ends. So a lock that can be taken belongs to a
dead process, and whoever starts next removes what that left.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from learner.errors import CheckpointError

PREFIX = "mixed-r1-staging-"


class StagingArea:
    """One process's folders below `parent`. Holds, as long as it has folders: a lock on its name.

    Threads may share it: one stages while another removes what was copied.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Remove what dead processes of this user left.

        Args:
            parent: on fast local disk, with room for this process's share of a checkpoint; None is the system's
                temporary directory.

        Raises:
            CheckpointError: nothing can be written there.
        """
        self._parent = Path(tempfile.gettempdir()) if parent is None else parent
        self._held: tuple[Path, int] | None = None
        self._one_at_a_time = threading.RLock()
        with self._blaming():
            self._parent.mkdir(parents=True, exist_ok=True)
            for lock in self._parent.glob(f"{PREFIX}*.lock"):
                _remove_if_dead(lock)
        # Now, and not an hour later with the first checkpoint, is the time to learn that nothing can be written.
        self.folder("probe")
        self.remove("probe")

    def folder(self, name: str) -> Path:
        """Give an empty folder; what the last one of that name held is gone.

        Raises:
            CheckpointError: nothing can be written there.
        """
        with self._one_at_a_time, self._blaming():
            root, _ = self._held = self._held or self._take_name()
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir()
        return root / name

    def path(self, name: str) -> Path:
        """Give where a folder of `folder` is, without touching it."""
        assert self._held is not None, f"nothing is staged as {name}"
        return self._held[0] / name

    def remove(self, name: str) -> None:
        """Delete a folder, if it is there; with the last one, everything."""
        with self._one_at_a_time:
            if self._held is None:
                return
            root, _ = self._held
            shutil.rmtree(root / name, ignore_errors=True)
            if not any(root.iterdir()):
                self.close()

    def close(self) -> None:
        """Delete everything of this process."""
        with self._one_at_a_time:
            if self._held is None:
                return
            (root, descriptor), self._held = self._held, None
            shutil.rmtree(root, ignore_errors=True)
            root.with_suffix(".lock").unlink(missing_ok=True)
            os.close(descriptor)

    def _take_name(self) -> tuple[Path, int]:
        while True:
            root = self._parent / f"{PREFIX}{secrets.token_hex(8)}"
            lock = root.with_suffix(".lock")
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between the two lines above, another process may have taken the new file for a dead one's.
            if lock.exists():
                root.mkdir(mode=0o700)
                return root, descriptor
            os.close(descriptor)

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"training.staging_dir: {self._parent} cannot be written ({error.strerror or error}); name a folder on "
                "local disk with room for a checkpoint"
            ) from error


def _remove_if_dead(lock: Path) -> None:
    # Gone meanwhile, or of another user: neither is ours to remove.
    with suppress(FileNotFoundError, PermissionError):
        descriptor = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
