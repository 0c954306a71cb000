"""Tars of WebDataset, streamed."""

import json
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from orchestration.data.sources.streams import BROKEN, Record, Records, broken_file, first_line, opened

MAX_MEMBER_BYTES = 2**28
"""Longest file of a tar that is read."""
TAR_BLOCK = 512


def tar_rows(path: Path) -> Records:
    """Return the rows of a tar: files that follow each other with one stem, as values by their endings.

    A stem that comes again, as in a tar of all pictures before all texts, breaks the file: its rows are in pieces.
    """
    stem, row = "", dict[str, object]()
    stems = set[int]()
    number = 0
    try:
        with opened(path) as file, _archive(noted := _LastBlock(file)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{member.name} has {member.size} bytes; at most {MAX_MEMBER_BYTES} are read")
                folder, _, name = member.name.rpartition("/")
                if name.startswith("._"):
                    continue  # what macOS keeps of a file beside it
                name, _, ending = name.partition(".")
                if row and f"{folder}/{name}" != stem:
                    yield Record(str(number), row)
                    number, row = number + 1, {}
                if not row:
                    stem = f"{folder}/{name}"
                    if hash(stem) in stems:
                        raise ValueError(f"files of {stem.lstrip('/')} are apart; pack them by name: tar --sort=name")
                    stems.add(hash(stem))
                row["__key__"] = stem.lstrip("/")
                row[ending] = _member_value(ending, content.read())
        if any(noted.block):  # tarfile is content with an archive that is cut between two files
            raise ValueError("the mark of the end is missing")
    except (*BROKEN, tarfile.TarError) as error:
        yield broken_file(path, f"breaks off after {number} rows: {first_line(error)}")
        return
    if row:
        yield Record(str(number), row)
    else:
        yield broken_file(path, "holds no files")


def _archive(file: "_LastBlock") -> tarfile.TarFile:
    return tarfile.open(fileobj=cast(BinaryIO, file), mode="r|")  # which calls nothing but `read`


class _LastBlock:
    """A file that keeps its last block: zeros, where a tar is whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.block = b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.block = (self.block + data)[-TAR_BLOCK:]
        return data


def _member_value(ending: str, data: bytes) -> object:
    """Return the content of a file by its ending: JSON, a text, or its bytes; what cannot be read so, as bytes."""
    try:
        if ending.endswith("json"):
            return json.loads(data)
        return data.decode().strip() if ending in ("txt", "cls", "text", "caption") else data
    except (ValueError, RecursionError):
        return data
