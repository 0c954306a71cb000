"""Samples on disk: one Parquet file, or a folder of shards, read by row without loading the whole."""

import bisect
import hashlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import RolloutError
from rollout.records import Sample
from rollout.schema import SCHEMA, SCHEMA_VERSION, to_row, to_sample

# Random access reads a whole row group for one sample: few rows, and few bytes where photographs are large.
ROW_GROUP_ROWS = 64
ROW_GROUP_BYTES = 2 * 1024 * 1024
CACHED_ROW_GROUPS = 16


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as one Parquet file and return how many there were.

    The bytes depend on the samples alone, so equal samples give equal files.
    """
    return write_rows(path, map(to_row, samples))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows of SCHEMA as one Parquet file and return how many there were."""
    num_rows = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for group in _row_groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
            num_rows += len(group)
    return num_rows


def _row_groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(image["bytes"] or b"") for image in row["images"])
        if len(group) == ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def shards_of(path: Path) -> list[Path]:
    """Return the Parquet files of a dataset in order: the file itself, or those of a folder by name.

    Raises:
        RolloutError: there is none.
    """
    found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise RolloutError(
            f"no dataset at {path}; build one (mixed-r1 data build), or point data.train / data.held_out at a Parquet "
            "file or a folder of them"
        )
    return found


class SampleTable:
    """Random access to the samples of a dataset, from any thread; holds a few row groups at a time.

    Example:
        >>> SampleTable(Path("train.parquet"))[0].task  # doctest: +SKIP
        'chart'
    """

    def __init__(self, path: Path) -> None:
        """Open all shards and check their schema.

        Args:
            path: One Parquet file or a folder of them. Images in files are read from beside the shards.

        Raises:
            RolloutError: a file is missing, is not Parquet, holds another schema, or there is not one row.
        """
        self._root = path if path.is_dir() else path.parent
        self._files = {shard: _open(shard) for shard in shards_of(path)}
        self._groups = [(shard, i) for shard, file in self._files.items() for i in range(file.num_row_groups)]
        sizes = (int(self._files[shard].metadata.row_group(i).num_rows) for shard, i in self._groups)
        self._starts = [0, *itertools.accumulate(sizes)]
        self._cache: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()
        if not len(self):
            raise RolloutError(f"{path} holds no rows")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        """Read one row.

        Raises:
            RolloutError: its file cannot be read any more, or an image is not the one that the row was written with.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect.bisect_right(self._starts, index) - 1
        with self._lock:
            if number not in self._cache:
                self._cache[number] = self._read_group(*self._groups[number])
                if len(self._cache) > CACHED_ROW_GROUPS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(number)
            row = self._cache[number][index - self._starts[number]]
        return to_sample(row, self._root)

    def _read_group(self, shard: Path, group: int) -> list[dict[str, Any]]:
        with _readable(shard):
            return self._files[shard].read_row_group(group).to_pylist()  # type: ignore[no-any-return]

    def columns(self, *names: str) -> list[tuple[Any, ...]]:
        """Return some columns of every row, read without the others; not for images."""
        found: list[tuple[Any, ...]] = []
        for shard, file in self._files.items():
            with _readable(shard):
                table = file.read(columns=list(names))
                found.extend(zip(*(table.column(name).to_pylist() for name in names), strict=True))
        return found

    def arrow(self, *names: str) -> pa.Table:
        """Return some columns of every row as one Arrow table; a part of images is `images.list.element.width`."""
        tables = []
        for shard, file in self._files.items():
            with _readable(shard):
                tables.append(file.read(columns=list(names)))
        return pa.concat_tables(tables)

    def image_digests(self) -> list[tuple[str, ...]]:
        """SHA-256 of the images of every row, read without their bytes."""
        images = self.arrow("images.list.element.sha256").column("images").to_pylist()
        return [tuple(image["sha256"] for image in row) for row in images]

    def digest(self) -> str:
        """Return the blake2b of all rows in their order, in hex, whatever files they lie in and wherever those are.

        Images enter by size and SHA-256, which `__getitem__` compares; their bytes are not read.
        """
        leaves = [f"images.list.element.{name}" for name in ("size_bytes", "sha256", "width", "height")]
        names = [name for name in SCHEMA.names if name != "images"]
        digest = hashlib.blake2b(digest_size=16)
        for shard, file in self._files.items():
            with _readable(shard):
                for batch in file.iter_batches(columns=[*names, *leaves]):
                    for row in batch.to_pylist():
                        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def tasks_and_sources(self) -> Sequence[tuple[str, str]]:
        """(task, source) of every row."""
        return self.columns("task", "source")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Within the block, what fails about a Parquet file is a RolloutError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RolloutError(
            f"{path} is not a readable Parquet file ({error}); restore it, or build the data again"
        ) from error


def _open(path: Path) -> pq.ParquetFile:
    # Read, not mapped: a mapped file that is cut short kills the process where a read raises.
    with _readable(path):
        file = pq.ParquetFile(path)
    found = (file.schema_arrow.metadata or {}).get(b"schema", b"none").decode()
    if found != SCHEMA_VERSION:
        raise RolloutError(f"{path} has schema {found!r}; this version reads {SCHEMA_VERSION!r}: build the data again")
    return file
