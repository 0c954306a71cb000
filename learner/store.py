"""FileStore: a folder on a POSIX file system or in object storage, spoken to in words that both know.

Files are written from their first byte to their last, read, listed and deleted. Nothing is renamed, appended to or
locked, because object storage can do none of that. Checksums are blake2b of 32 bytes: collision-safe, in the standard
library, and faster than sha256 where the processor has no instructions for that.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
        """Copy a local file here and give what was written.

        Raises:
            CheckpointError: the store does not take it.
        """
        with source.open("rb") as stream:
            return self._write(stream, name)

    def put_bytes(self, data: bytes, name: str) -> FileEntry:
        """Write a small file.

        Raises:
            CheckpointError: the store does not take it.
        """
        return self._write(io.BytesIO(data), name)

    def _write(self, source: BinaryIO, name: str) -> FileEntry:
        path = self._at(name)
        with _blaming(f"{name} was not written to {self}", "free space there or correct its permissions"):
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(path, compression=None) as target:
                entry = _copy(source, target, name)
            if self._is_local:
                _flush(Path(path))
        return entry

    def settle(self, folder: str) -> None:
        """Force the names below a folder to disk, so that a power cut after its marker finds all of its files."""
        if not self._is_local:
            return
        with _blaming(f"{folder} in {self} was not settled", "look at the disk"):
            top = Path(self._at(folder))
            for path in (*(path for path in top.rglob("*") if path.is_dir()), top, top.parent):
                _flush(path)

    def read(self, name: str) -> bytes | None:
        """Give the content of a small file, or None where there is none."""
        with _blaming(f"{name} in {self} was not read", "look at the storage"):
            if self.filesystem.get_file_info(self._at(name)).type != fs.FileType.File:
                return None
            with self.filesystem.open_input_stream(self._at(name), compression=None) as stream:
                return bytes(stream.read())

    def digest(self, name: str) -> FileEntry:
        """Read a file through and give what it is now."""
        with (
            _blaming(f"{name} in {self} was not read", "look at the storage"),
            self.filesystem.open_input_stream(self._at(name), compression=None) as stream,
        ):
            return _copy(stream, None, name)

    def fetch(self, name: str, target: Path) -> FileEntry:
        """Copy a file to local disk and give what arrived."""
        with _blaming(f"{name} in {self} was not fetched to {target}", "free space there, see staging_dir"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                self.filesystem.open_input_stream(self._at(name), compression=None) as stream,
                target.open("wb") as out,
            ):
                return _copy(stream, out, name)

    def local_path(self, name: str) -> Path | None:
        """Give where a file or folder lies, if that is this machine's file system."""
        return Path(self._at(name)) if self._is_local else None

    def folders(self) -> list[str]:
        """Give the names of the folders directly below the root."""
        return [info.base_name for info in self._list(self.root, recursive=False) if info.type == fs.FileType.Directory]

    def sizes(self, folder: str) -> dict[str, int]:
        """Give the size in bytes of every file below a folder, by its path below it."""
        found = self._list(self._at(folder), recursive=True)
        prefix = len(self._at(folder).lstrip("/")) + 1
        return {info.path.lstrip("/")[prefix:]: info.size for info in found if info.type == fs.FileType.File}

    def _list(self, path: str, *, recursive: bool) -> list[Any]:
        with _blaming(f"{path} was not listed", "look at the storage"):
            return list(self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=recursive)))

    def delete_file(self, name: str) -> None:
        """Delete a file; one that is not there is deleted already."""
        with _blaming(f"{name} in {self} was not deleted", "correct its permissions"):
            if self.filesystem.get_file_info(self._at(name)).type != fs.FileType.NotFound:
                self.filesystem.delete_file(self._at(name))

    def delete_folder(self, name: str) -> None:
        """Delete a folder and all below it; one that is not there is deleted already."""
        with _blaming(f"{name} in {self} was not deleted", "correct its permissions"):
            if self.filesystem.get_file_info(self._at(name)).type != fs.FileType.NotFound:
                self.filesystem.delete_dir(self._at(name))


def open_store(location: str | Path) -> FileStore:
    """Open a folder by its path, or by a URI that pyarrow knows (s3://, gs://, abfs://, hdfs://, file://).

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
            f"training.checkpoint_dir={location} cannot be opened ({error}); use an absolute path or a URI of a file "
            "system that pyarrow knows, such as s3://bucket/folder"
        ) from error
    return FileStore(filesystem, root.rstrip("/"))


def describe(data: bytes, name: str) -> FileEntry:
    """Give the entry of a file with this content."""
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
def _blaming(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what} ({error.strerror or error}); {remedy}") from error
