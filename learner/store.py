"""Where files of a checkpoint lie: FileStore, the checkpoint directory, and StagingArea, on local disk. No torch.

FileStore: a folder on a POSIX file system or in object storage. Files are written from their first byte to their last,
read, listed and deleted. Nothing is renamed, appended to or locked, because object storage can do none of that.
Checksums are blake2b of 32 bytes: collision-safe, in the standard library, and faster than sha256 where the processor
has no instructions for that.
"""

import fcntl
import hashlib
import io
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pyarrow import fs

from learner.errors import CheckpointError

CHUNK_BYTES = 8 * 2**20
"""Held in memory of a file that is copied or read through."""
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a checkpoint as it was when it was written.

    Example:
        >>> FileEntry(name="meta.json", num_bytes=2, blake2b="44").name
        'meta.json'
    """

    name: str
    """Path below the checkpoint's folder, with forward slashes."""
    num_bytes: int
    blake2b: str


@dataclass(frozen=True, slots=True)
class FileStore:
    """Files below one root; pickles, so that every machine of a run can open it."""

    filesystem: Any
    """A pyarrow.fs.FileSystem."""
    root: str

    def __str__(self) -> str:
        return self.root if self._is_local else f"{self.filesystem.type_name}:{self.root}"

    @property
    def _is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def put(self, source: Path, name: str) -> FileEntry:
        """Copy a local file here; returns what was written.

        Raises:
            CheckpointError: the store does not take it.
        """
        with source.open("rb") as stream:
            return self._write(stream, name)

    def put_bytes(self, data: bytes, name: str) -> FileEntry:
        """Write a small file; raises as `put`."""
        return self._write(io.BytesIO(data), name)

    def _write(self, source: BinaryIO, name: str) -> FileEntry:
        path = self._at(name)
        with _checkpoint_errors(f"{name} was not written to {self}", "free space there or correct its permissions"):
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(path, compression=None) as target:
                entry = _copy(source, target, name)
            if self._is_local:
                _flush(Path(path))
        return entry

    def sync(self, folder: str) -> None:
        """Force the file names below a folder to disk, so that a marker written later never outlives its files."""
        if not self._is_local:
            return
        with _checkpoint_errors(f"{folder} in {self} was not synced", "look at the disk"):
            top = Path(self._at(folder))
            for path in (*(path for path in top.rglob("*") if path.is_dir()), top, top.parent):
                _flush(path)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, or None where there is none."""
        with _checkpoint_errors(f"{name} in {self} was not read", "look at the storage"):
            if self._type(name) != fs.FileType.File:
                return None
            with self._open(name) as stream:
                return bytes(stream.read())

    def digest(self, name: str) -> FileEntry:
        """Read a file through; returns its present size and checksum."""
        with _checkpoint_errors(f"{name} in {self} was not read", "look at the storage"), self._open(name) as stream:
            return _copy(stream, None, name)

    def fetch(self, name: str, target: Path) -> FileEntry:
        """Copy a file to local disk; returns what arrived."""
        with _checkpoint_errors(f"{name} in {self} was not fetched to {target}", "free space there, see staging_dir"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._open(name) as stream, target.open("wb") as out:
                return _copy(stream, out, name)

    def _open(self, name: str) -> Any:
        return self.filesystem.open_input_stream(self._at(name), compression=None)

    def local_path(self, name: str) -> Path | None:
        """Return the path of a file or folder, if it is on this machine's file system."""
        return Path(self._at(name)) if self._is_local else None

    def folders(self) -> list[str]:
        """Return the names of the folders directly below the root."""
        return [info.base_name for info in self._list(self.root, recursive=False) if info.type == fs.FileType.Directory]

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of every file below a folder, by its path below it."""
        found = self._list(self._at(folder), recursive=True)
        prefix = len(self._at(folder).lstrip("/")) + 1
        return {info.path.lstrip("/")[prefix:]: info.size for info in found if info.type == fs.FileType.File}

    def _list(self, path: str, *, recursive: bool) -> list[Any]:
        with _checkpoint_errors(f"{path} was not listed", "look at the storage"):
            return list(self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=recursive)))

    def _type(self, name: str) -> fs.FileType:
        return self.filesystem.get_file_info(self._at(name)).type

    def delete(self, name: str) -> None:
        """Delete a file, or a folder and all below it; what is not there is deleted already."""
        with _checkpoint_errors(f"{name} in {self} was not deleted", "correct its permissions"):
            found = self._type(name)
            if found == fs.FileType.Directory:
                self.filesystem.delete_dir(self._at(name))
            elif found != fs.FileType.NotFound:
                self.filesystem.delete_file(self._at(name))


def open_store(location: str | Path, *, key: str = "training.checkpoint_dir") -> FileStore:
    """Open a folder by its path, or by a URI that pyarrow knows (s3://, gs://, abfs://, hdfs://, file://).

    `key` is the setting that names it, for messages.

    Raises:
        CheckpointError: no file system answers to the URI.

    Example:
        >>> str(open_store("/tmp/checkpoints"))
        '/tmp/checkpoints'
    """
    if "://" not in str(location):
        return FileStore(fs.LocalFileSystem(), str(Path(location).absolute()))
    try:
        filesystem, root = fs.FileSystem.from_uri(str(location))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{key}={location} cannot be opened ({error}); use an absolute path or a URI of a file "
            "system that pyarrow knows, such as s3://bucket/folder"
        ) from error
    return FileStore(filesystem, root.rstrip("/"))


def describe(data: bytes, name: str) -> FileEntry:
    """Return the entry of a file with this content."""
    return _copy(io.BytesIO(data), None, name)


def _copy(source: Any, target: Any, name: str) -> FileEntry:
    """Copy chunk by chunk, or read only where there is no target."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    num_bytes = 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        num_bytes += len(chunk)
        if target is not None:
            target.write(chunk)
    return FileEntry(name=name, num_bytes=num_bytes, blake2b=digest.hexdigest())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _checkpoint_errors(what: str, remedy: str) -> Iterator[None]:
    """Within the block, raise an OSError as a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what} ({error.strerror or error}); {remedy}") from error


PREFIX = "mixed-r1-staging-"


class StagingArea:
    """A process's own folder on fast local disk, removed with the process that made it.

        <parent>/mixed-r1-staging-<random>/       files to or from the checkpoint directory; readable by its user alone
        <parent>/mixed-r1-staging-<random>.lock   locked as long as that exists and the process lives

    The operating system releases the lock when a process ends, however it ends. So a lock that can be taken belongs to
    a dead process, and the next process to start removes what that left. Threads may share it: one stages while another
    removes what was copied.
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
        self._lock = threading.RLock()
        with self._checkpoint_errors():
            self._parent.mkdir(parents=True, exist_ok=True)
            for lock in self._parent.glob(f"{PREFIX}*.lock"):
                _remove_if_dead(lock)
        # A folder that cannot be written must fail now, and not an hour later with the first checkpoint.
        self.folder("probe")
        self.remove("probe")

    def folder(self, name: str) -> Path:
        """Return an empty folder; the contents of the last one of that name are deleted.

        Raises:
            CheckpointError: nothing can be written there.
        """
        with self._lock, self._checkpoint_errors():
            root, _ = self._held = self._held or self._take_name()
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir()
        return root / name

    def path(self, name: str) -> Path:
        """Return the path of a folder made by `folder`, without touching it."""
        assert self._held is not None, f"nothing is staged as {name}"
        return self._held[0] / name

    def remove(self, name: str) -> None:
        """Delete a folder, if it is there; with the last one, everything."""
        with self._lock:
            if self._held is None:
                return
            root, _ = self._held
            shutil.rmtree(root / name, ignore_errors=True)
            if not any(root.iterdir()):
                self.close()

    def close(self) -> None:
        """Delete everything of this process."""
        with self._lock:
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

    def _checkpoint_errors(self) -> AbstractContextManager[None]:
        what = f"training.staging_dir: {self._parent} cannot be written"
        return _checkpoint_errors(what, "name a folder on local disk with room for a checkpoint")


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


def set_default_modes(folder: Path) -> None:
    """Set the mode of all files below a folder to that of a new file, as the umask or the folder's default ACL has it.

    safetensors writes to a temporary file, which only its owner may read, and renames it. The mode is taken from a new
    file, because the umask itself can only be read by changing it, for all threads of the process.
    """
    probe = folder / ".mode"
    probe.touch(exist_ok=False)
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
