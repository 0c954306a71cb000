"""Samples on disk: one Parquet file, or a folder of shards, read by row without loading the whole.

One row per prompt. Images are encoded bytes inside the row, or files under the dataset's root; both come with size
and digest, which are compared whenever a row is read.
"""

import bisect
import hashlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import RolloutError
from rollout.records import Difficulty, ImageBytes, Sample, Turn

SCHEMA_FAMILY = "mixed-r1.samples."
SCHEMA_VERSION = f"{SCHEMA_FAMILY}v3"
MEASURED_KEY = "measured_with"
"""Key of the schema's metadata that says what measured the lengths of the prompts."""
LATER_COLUMNS: dict[str, dict[str, Any]] = {SCHEMA_VERSION: {}, f"{SCHEMA_FAMILY}v2": {"system": "", "history": []}}
"""By schema that can be read: the columns that its files lack, with the value of every row."""

IMAGE_TYPE = pa.struct(
    [
        pa.field("bytes", pa.binary(), metadata={"doc": "the encoded file; null where `path` names one"}),
        pa.field("path", pa.string(), metadata={"doc": "file under the dataset's folder; null where `bytes` is set"}),
        pa.field("size_bytes", pa.int64(), nullable=False, metadata={"doc": "length of the encoded file"}),
        pa.field("sha256", pa.string(), nullable=False, metadata={"doc": "digest of the encoded file, hexadecimal"}),
        pa.field("width", pa.int32(), nullable=False, metadata={"doc": "original width in pixels"}),
        pa.field("height", pa.int32(), nullable=False, metadata={"doc": "original height in pixels"}),
    ]
)
DIFFICULTY_TYPE = pa.struct(
    [
        pa.field("num_completions", pa.int32(), nullable=False),
        *(
            pa.field(name, pa.float32(), nullable=False)
            for name in ("mean", "std", "min", "max", "pass_rate", "format_rate", "agreement")
        ),
    ]
)
TURN_TYPE = pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)])


def _column(name: str, kind: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


SCHEMA = pa.schema(
    [
        _column("sample_id", pa.string(), "unique within the dataset; metrics and resume use it"),
        _column("source", pa.string(), "dataset, and its part, that the row comes from"),
        _column("source_id", pa.string(), "the row's name inside its source"),
        _column("license", pa.string(), "licence of the source as the recipe states it"),
        _column(
            "task",
            pa.string(),
            "match_yesno | match_mcq | match_text | chart | counting | ocr | iou | pointing | open | math",
        ),
        _column("system", pa.string(), "the row's own system text, behind rollout.system_prompt; empty for none"),
        _column("history", pa.list_(TURN_TYPE), "turns before the question, each of role user or assistant"),
        _column("question", pa.string(), "the last user turn, options included; U+FFFC where an image stands"),
        _column("images", pa.list_(IMAGE_TYPE), "none, one or several, in the order of the prompt"),
        _column("options", pa.list_(pa.string()), "option texts of a multiple-choice row, A first"),
        _column("answer", pa.string(), "the reference; boxes as JSON in original pixels"),
        _column("answer_type", pa.string(), "number | year | text | list | bool for charts; else empty"),
        _column("stratum", pa.string(), "difficulty class by mean reward; empty where not measured"),
        _column(
            "prompt_tokens",
            pa.int32(),
            "tokens of the prompt under the processor that measured it, see the schema's metadata",
            nullable=True,
        ),
        _column("image_tokens", pa.int32(), "tokens of the images among them", nullable=True),
        _column("difficulty", DIFFICULTY_TYPE, "rewards of completions sampled at build time", nullable=True),
        _column("metadata", pa.map_(pa.string(), pa.string()), "what else the source says of the row"),
    ],
    metadata={"schema": SCHEMA_VERSION},
)

# Random access reads a whole row group for one sample: few rows, and few bytes where photographs are large.
ROW_GROUP_ROWS = 64
ROW_GROUP_BYTES = 2 * 1024 * 1024
CACHED_ROW_GROUPS = 16


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as one Parquet file and return how many there were.

    The bytes depend on the samples alone, so equal samples give equal files.
    """
    return write_rows(path, map(to_row, samples))


def write_rows(path: Path, rows: Iterable[dict[str, Any]], *, measured_with: str = "") -> int:
    """Write rows of SCHEMA as one Parquet file and return how many there were.

    Args:
        path: The file.
        rows: As `to_row` returns them.
        measured_with: What prompt_tokens and image_tokens were measured with; kept in the schema's metadata.
    """
    num_rows = 0
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, MEASURED_KEY: measured_with}) if measured_with else SCHEMA
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _row_groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
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


def is_dataset(path: Path) -> bool:
    """Return whether a path is a shard or a folder of shards, of any version of the schema."""
    shard = next(iter(sorted(path.glob("*.parquet"))), None) if path.is_dir() else path
    if shard is None or not shard.is_file():
        return False
    try:
        found = (pq.read_schema(shard).metadata or {}).get(b"schema", b"")
    except (pa.ArrowException, OSError):
        return False
    return bool(found.decode(errors="replace").startswith(SCHEMA_FAMILY))


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
            file = self._files[shard]
            lacking = _lacking(file)
            return [{**lacking, **row} for row in file.read_row_group(group).to_pylist()]

    def columns(self, *names: str) -> list[tuple[Any, ...]]:
        """Return some columns of every row, read without the others; not for images."""
        found: list[tuple[Any, ...]] = []
        for shard, file in self._files.items():
            with _readable(shard):
                table = _read(file, names)
                found.extend(zip(*(table.column(name).to_pylist() for name in names), strict=True))
        return found

    def arrow(self, *names: str) -> pa.Table:
        """Return some columns of every row as one Arrow table; a part of images is `images.list.element.width`."""
        tables = []
        for shard, file in self._files.items():
            with _readable(shard):
                tables.append(_read(file, names))
        return pa.concat_tables(tables)

    def image_digests(self) -> list[tuple[str, ...]]:
        """Return the SHA-256 of the images of every row, read without their bytes."""
        images = self.arrow("images.list.element.sha256").column("images").to_pylist()
        return [tuple(image["sha256"] for image in row) for row in images]

    def measured_with(self) -> set[str]:
        """Return what measured the lengths of the prompts, as the files say; an empty text for one that does not."""
        kept = (file.schema_arrow.metadata or {} for file in self._files.values())
        return {metadata.get(MEASURED_KEY.encode(), b"").decode("utf-8", "replace") for metadata in kept}

    def digest(self) -> str:
        """Return the blake2b of all rows in their order, in hex, however they are divided into files.

        Images enter by size and SHA-256, which `__getitem__` compares; their bytes are not read. Rows of an earlier
        schema have the digest that they have in this one.
        """
        leaves = [f"images.list.element.{name}" for name in ("size_bytes", "sha256", "width", "height")]
        names = [name for name in SCHEMA.names if name != "images"]
        digest = hashlib.blake2b(digest_size=16)
        for shard, file in self._files.items():
            lacking = _lacking(file)
            with _readable(shard):
                for batch in file.iter_batches(columns=[*(name for name in names if name not in lacking), *leaves]):
                    for row in batch.to_pylist():
                        row = {**lacking, **row}
                        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def tasks_and_sources(self) -> Sequence[tuple[str, str]]:
        """Return (task, source) of every row."""
        return self.columns("task", "source")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Within the block, raise errors of a Parquet file as a RolloutError that names it."""
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
    found = _schema_version(file)
    if found not in LATER_COLUMNS:
        known = ", ".join(map(repr, LATER_COLUMNS))
        raise RolloutError(f"{path} has schema {found!r}; this version reads {known}: build the data again")
    return file


def _schema_version(file: pq.ParquetFile) -> str:
    return (file.schema_arrow.metadata or {}).get(b"schema", b"none").decode()  # type: ignore[no-any-return]


def _lacking(file: pq.ParquetFile) -> dict[str, Any]:
    """Return the columns that a file of an earlier schema lacks, with their value."""
    return LATER_COLUMNS[_schema_version(file)]


def _read(file: pq.ParquetFile, names: Sequence[str]) -> pa.Table:
    """Return columns, or parts of them, of all rows of a file, in their order; those that it lacks are filled in."""
    lacking = _lacking(file)
    table = file.read(columns=[name for name in names if name not in lacking])
    for name in names:
        if name in lacking:
            kind = SCHEMA.field(name)
            values = pa.array([lacking[name]] * file.metadata.num_rows, kind.type)
            table = table.append_column(kind, values)
    return table.select(list(dict.fromkeys(name.partition(".")[0] for name in names)))


def describe() -> str:
    """Return the columns of a dataset as text, a line each, those of images indented."""
    lines = [SCHEMA_VERSION]
    for column in SCHEMA:
        lines.append(
            f"{column.name:14} {str(column.type).split('<')[0]}".ljust(40) + f" {column.metadata[b'doc'].decode()}"
        )
        if column.name == "images":
            lines.extend(
                f"  .{part.name:11} {part.type!s}".ljust(40) + f" {part.metadata[b'doc'].decode()}"
                for part in IMAGE_TYPE
            )
    return "\n".join(lines)


def to_row(sample: Sample) -> dict[str, Any]:
    """Return a sample as a row of SCHEMA with its images inside; columns are named as the sample's fields."""
    return {name: getattr(sample, name) for name in SCHEMA.names} | {
        "images": [
            {
                "bytes": image.data,
                "path": None,
                "size_bytes": len(image.data),
                "sha256": hashlib.sha256(image.data).hexdigest(),
                "width": image.width,
                "height": image.height,
            }
            for image in sample.images
        ],
        "history": [asdict(turn) for turn in sample.history],
        "options": list(sample.options),
        "difficulty": None if sample.difficulty is None else asdict(sample.difficulty),
        "metadata": sorted(sample.metadata.items()),
    }


def to_sample(row: Mapping[str, Any], root: Path) -> Sample:
    """Return a row as a sample; images in files are read from under `root`.

    Raises:
        RolloutError: an image is missing, lies outside of `root`, or is not the one that the row was written with.
    """
    difficulty = row["difficulty"]
    converted = {
        "history": tuple(Turn(**turn) for turn in row["history"]),
        "images": tuple(_image(image, root, row["sample_id"]) for image in row["images"]),
        "options": tuple(row["options"]),
        "difficulty": None if difficulty is None else Difficulty(**difficulty),
        "metadata": dict(row["metadata"]),
    }
    return Sample(**{name: row[name] for name in SCHEMA.names} | converted)


def _image(image: Mapping[str, Any], root: Path, sample_id: str) -> ImageBytes:
    is_inside = image["bytes"] is not None
    data = image["bytes"] if is_inside else _read_confined(root, image["path"], sample_id)
    if len(data) != image["size_bytes"] or hashlib.sha256(data).hexdigest() != image["sha256"]:
        place = f"an image inside its row under {root}" if is_inside else root / image["path"]
        raise RolloutError(
            f"sample {sample_id}: {place} is not the image that the dataset was built with "
            f"({len(data)} bytes, {image['size_bytes']} expected, or another digest); restore it or build again"
        )
    return ImageBytes(data=data, width=image["width"], height=image["height"])


def _read_confined(root: Path, path: str, sample_id: str) -> bytes:
    """Read a file that must lie under `root`, links followed."""
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise RolloutError(f"sample {sample_id}: image path {path!r} leads out of {root}; paths stay under the dataset")
    try:
        return resolved.read_bytes()
    except OSError as error:
        raise RolloutError(
            f"sample {sample_id}: image {root / path} cannot be read ({error.strerror}); restore it or build again"
        ) from error
