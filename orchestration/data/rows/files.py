"""Raw files: their digests, remembered by size and time, and image files, read without leaving the source's folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

from orchestration.data.rows.reasons import Refused, RejectReason
from orchestration.data.rows.records import RawImage


class FileDigests:
    """SHA-256 of files; a file whose size and modification time are as they were is not read again."""

    def __init__(self, memory: Path) -> None:
        """Remember in the JSON file `memory`."""
        self._memory = memory
        self._known: dict[str, Any] = json.loads(memory.read_text()) if memory.is_file() else {}

    def of(self, path: Path) -> str:
        """Give the digest of one file."""
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        found = self._known.get(str(path))
        if found is None or found["stamp"] != stamp:
            with path.open("rb") as file:
                found = {"stamp": stamp, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            self._known[str(path)] = found
        return str(found["sha256"])

    def save(self) -> None:
        """Write what is known."""
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        partial = self._memory.with_name(self._memory.name + ".partial")
        partial.write_text(json.dumps(self._known))
        partial.replace(self._memory)


Stamp = tuple[str, int, int]
"""Path under the source's folder, size in bytes, modification time in nanoseconds."""


def read_image(root: Path, image: RawImage, max_bytes: int) -> tuple[bytes, Stamp | None]:
    """Give the encoded bytes of a raw image, and the stamp of the file they came from.

    Raises:
        Refused: The path leaves the source's folder, there is no such file, or it is too large to be read.
    """
    if image.data is not None:
        if len(image.data) > max_bytes:
            raise Refused(RejectReason.IMAGE_FILE_TOO_LARGE, f"{len(image.data)} bytes")
        return image.data, None
    if not image.path:
        raise Refused(RejectReason.IMAGE_MISSING, "the row names no image file")
    path = confined(root, image.path)
    try:
        state = path.stat()
        if not path.is_file():
            raise Refused(RejectReason.IMAGE_MISSING, f"{image.path[:200]} is no file")
        if state.st_size > max_bytes:
            raise Refused(RejectReason.IMAGE_FILE_TOO_LARGE, f"{image.path[:200]}: {state.st_size} bytes")
        return path.read_bytes(), (image.path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise Refused(RejectReason.IMAGE_MISSING, f"{image.path[:200]}: {error.strerror}") from error


def confined(root: Path, path: str) -> Path:
    """Give a path under `root`, links followed.

    Raises:
        Refused: It is absolute, goes upwards, or a link leads out.
    """
    inside = root.resolve()
    try:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise Refused(RejectReason.PATH_OUTSIDE_ROOT, path[:200])
        resolved = (inside / path).resolve()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise Refused(RejectReason.IMAGE_MISSING, f"{path[:200]!r}: {error}") from error
    if not resolved.is_relative_to(inside):
        raise Refused(RejectReason.PATH_OUTSIDE_ROOT, path[:200])
    return resolved


def is_unchanged(root: Path, stamp: Stamp) -> bool:
    """Whether a file is still the one that was read."""
    path, size, changed = stamp
    try:
        state = (root / path).stat()
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (size, changed)
