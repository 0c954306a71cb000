"""Stage 8, write: selected rows -> Parquet shards, each whole or not there."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestration.data.rows.chunks import Chunk, ImageReader, to_sample
from orchestration.data.rows.records import Candidate, candidate_from_json
from orchestration.settings.recipe import ShardsConfig
from rollout.dataset import write_rows
from rollout.schema import to_row

SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard: a stretch of the rows of some chunks in order."""

    store: Path
    chunks: tuple[Path, ...]
    first: int
    """Rows of the first chunk that belong to the shard before this one."""
    num_rows: int
    path: Path
    images: Literal["bytes", "paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A written shard."""

    path: Path
    num_rows: int
    num_bytes: int
    sha256: str


def plan_shards(store: Path, chunks: Sequence[Chunk], folder: Path, name: str, config: ShardsConfig) -> list[ShardTask]:
    """Cut the rows of some chunks into shards of `rows_per_shard`, the last one shorter."""
    rows_per_shard = config.rows_per_shard
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + chunk.num_rows)
    num_shards = -(-starts[-1] // rows_per_shard)
    tasks = []
    for number in range(num_shards):
        begin, end = number * rows_per_shard, min((number + 1) * rows_per_shard, starts[-1])
        members = [i for i in range(len(chunks)) if starts[i] < end and starts[i + 1] > begin]
        tasks.append(
            ShardTask(
                store=store,
                chunks=tuple(chunks[i].folder for i in members),
                first=begin - starts[members[0]],
                num_rows=end - begin,
                path=folder / f"{name}-{number:05d}-of-{num_shards:05d}.parquet",
                images=config.images,
            )
        )
    return tasks


def write_shard(task: ShardTask) -> Shard:
    """Write a shard that is not there yet and return it with its digest."""
    if not task.path.is_file():
        task.path.parent.mkdir(parents=True, exist_ok=True)
        partial = task.path.with_name(task.path.name + ".partial")
        reader = ImageReader(task.store)
        write_rows(partial, (_row(row, reader, task) for row in _rows(task)))
        partial.replace(task.path)
    with task.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path=task.path, num_rows=task.num_rows, num_bytes=task.path.stat().st_size, sha256=digest)


def _rows(task: ShardTask) -> Iterator[Candidate]:
    seen = taken = 0
    for folder in task.chunks:
        chunk = Chunk.open(folder)
        assert chunk is not None, folder
        for values in chunk.rows():
            seen += 1
            if seen <= task.first:
                continue
            if taken == task.num_rows:
                return
            taken += 1
            yield candidate_from_json(values)


def _row(row: Candidate, reader: ImageReader, task: ShardTask) -> dict[str, Any]:
    values = to_row(to_sample(row, reader))
    if task.images == "paths":
        for image in values["images"]:
            image["path"] = _store_image(image["bytes"], image["sha256"], task.path.parent)
            image["bytes"] = None
    return values


def _store_image(data: bytes, sha256: str, folder: Path) -> str:
    """Write an image under its digest, once, and return its path under the folder of the shards."""
    suffix = next((suffix for start, suffix in SUFFIXES.items() if data.startswith(start)), ".tif")
    path = Path("images") / sha256[:2] / f"{sha256}{suffix}"
    target = folder / path
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")  # another shard may hold the same image
        partial.write_bytes(data)
        partial.replace(target)
    return str(path)
