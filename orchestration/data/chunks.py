"""Results of stages on disk, in chunks of rows: found by key, complete or absent.

A chunk is a folder `stage/key` with rows.jsonl, rejected.jsonl, info.json and, where a stage made images, images.arrow.
Its key is a digest of everything that determines it, so a rerun reuses finished chunks, and changed settings do not.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestration.data.sources.rows import Candidate, Rejected
from rollout.records import ImageBytes, Sample

ROWS, REJECTED, INFO, IMAGES = "rows.jsonl", "rejected.jsonl", "info.json", "images.arrow"
IMAGE_SCHEMA = pa.schema([pa.field("data", pa.large_binary(), nullable=False)])


def digest_of(*parts: Any) -> str:
    """Return a digest of JSON values: 20 hexadecimal digits.

    Example:
        >>> digest_of("validate", {"min_side": 28}) == digest_of("validate", {"min_side": 28})
        True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A finished chunk."""

    folder: Path
    num_rows: int
    num_rejected: int
    digest: str
    """Digest of its rows and images."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Source and role, and the files that stage read has read."""

    @property
    def address(self) -> str:
        """`stage/key`, by which rows refer to the chunk with their images."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def origin(self) -> dict[str, str]:
        """Source and role of its rows, which every stage keeps."""
        return {name: str(self.facts[name]) for name in ("source", "role")}

    def rows(self) -> Iterator[dict[str, Any]]:
        return read_lines(self.folder / ROWS)

    def rejected(self) -> Iterator[dict[str, Any]]:
        """Read the rows that the stage rejected."""
        return read_lines(self.folder / REJECTED)

    @classmethod
    def open(cls, folder: Path) -> "Chunk | None":
        """Return the chunk of a folder; None if it is not finished."""
        try:
            info = json.loads((folder / INFO).read_text())
        except FileNotFoundError:
            return None
        return cls(folder=folder, **info)

    @classmethod
    def of(cls, folder: Path) -> "Chunk":
        """Return the finished chunk of a folder."""
        chunk = cls.open(folder)
        assert chunk is not None, folder
        return chunk


class ChunkWriter:
    """Writes one chunk under a temporary name; `finish` renames it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._rows = (self._partial / ROWS).open("w")
        self._rejected = (self._partial / REJECTED).open("w")
        self._images: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._hash = hashlib.sha256()
        self._num_rows = self._num_rejected = self.num_image_bytes = 0

    @property
    def address(self) -> str:
        return f"{self._folder.parent.name}/{self._folder.name}"

    @property
    def num_rows(self) -> int:
        """Rows written so far, rejected ones included."""
        return self._num_rows + self._num_rejected

    def add_image(self, data: bytes) -> int:
        """Store an image, once if several rows have it, and return its index."""
        digest = hashlib.sha256(data).digest()
        place = self._places.setdefault(digest, len(self._images))
        if place == len(self._images):
            self._images.append(data)
            self._hash.update(digest)
            self.num_image_bytes += len(data)
        return place

    def add(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, separators=(",", ":")) + "\n"
        self._hash.update(line.encode())
        self._rows.write(line)
        self._num_rows += 1

    def reject(self, row: Rejected) -> None:
        self._rejected.write(json.dumps(asdict(row), separators=(",", ":")) + "\n")
        self._num_rejected += 1

    def finish(self, facts: dict[str, Any] | None = None) -> Chunk:
        """Rename the chunk to its final name and return it."""
        self._rows.close()
        self._rejected.close()
        if self._images:
            write_images(self._partial / IMAGES, self._images)
        info: dict[str, Any] = {
            "num_rows": self._num_rows,
            "num_rejected": self._num_rejected,
            "digest": self._hash.hexdigest()[:20],
            "facts": facts or {},
        }
        (self._partial / INFO).write_text(json.dumps(info))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._partial.rename(self._folder)
        return Chunk(folder=self._folder, **info)


def write_images(path: Path, images: Sequence[bytes]) -> None:
    """Write encoded images uncompressed, so that one is read through a memory map without touching the others."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, IMAGE_SCHEMA) as writer:
        writer.write_batch(pa.record_batch([pa.array(images, pa.large_binary())], schema=IMAGE_SCHEMA))


class ImageReader:
    """Reads images by the address of their chunk; keeps the last few chunks mapped."""

    def __init__(self, root: Path, max_open: int = 8) -> None:
        self._root = root
        self._max_open = max_open
        self._open: dict[str, pa.Array] = {}

    def read(self, chunk: str, index: int) -> bytes:
        if chunk not in self._open:
            while len(self._open) >= self._max_open:
                self._open.pop(next(iter(self._open)))
            reader = pa.ipc.open_file(pa.memory_map(str(self._root / chunk / IMAGES)))
            self._open[chunk] = reader.get_batch(0).column(0)
        data: bytes = self._open[chunk][index].as_py()
        return data


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file of JSON lines one by one."""
    with path.open() as file:
        for line in file:
            yield json.loads(line)


def to_sample(row: Candidate, images: ImageReader) -> Sample:
    """Return a row as a sample of the rollout, its images read from their chunks."""
    return Sample(
        sample_id=row.sample_id,
        source=row.source,
        source_id=row.source_id,
        license=row.license,
        task=row.task,
        question=row.question,
        system=row.system,
        history=row.history,
        images=tuple(
            ImageBytes(data=images.read(image.chunk, image.index), width=image.width, height=image.height)
            for image in row.images
        ),
        options=row.options,
        answer=row.answer,
        answer_type=row.answer_type,
        stratum=row.stratum,
        prompt_tokens=row.prompt_tokens,
        image_tokens=row.image_tokens,
        difficulty=row.difficulty,
        metadata=row.metadata,
    )
