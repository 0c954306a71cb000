"""Samples on disk: the Parquet schema, row <-> Sample, and the order in which a run meets them."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import RolloutError
from rollout.records import ImageBytes, Sample

SCHEMA_VERSION = "mixed-r1.samples.v1"
# Random access reads one row group per sample, so a group must stay small: 64 photographs are about 20 MB.
ROW_GROUP_ROWS = 64
CACHED_ROW_GROUPS = 16

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("width", pa.int32()), ("height", pa.int32())])
SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("images", pa.list_(IMAGE_TYPE), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("answer_type", pa.string(), nullable=False),
    ],
    metadata={"schema": SCHEMA_VERSION},
)


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as one Parquet file and return how many there were.

    The bytes depend on the samples alone, so equal samples give equal files.
    """
    num_rows = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for chunk in _chunks(samples, ROW_GROUP_ROWS):
            writer.write_table(pa.Table.from_pylist([_to_row(sample) for sample in chunk], schema=SCHEMA))
            num_rows += len(chunk)
    return num_rows


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _to_row(sample: Sample) -> dict[str, object]:
    images = [{"bytes": image.data, "width": image.width, "height": image.height} for image in sample.images]
    return {
        "sample_id": sample.sample_id,
        "source": sample.source,
        "task": sample.task,
        "question": sample.question,
        "images": images,
        "options": list(sample.options),
        "answer": sample.answer,
        "answer_type": sample.answer_type,
    }


def _to_sample(row: dict[str, object]) -> Sample:
    images = tuple(ImageBytes(data=i["bytes"], width=i["width"], height=i["height"]) for i in row["images"])  # type: ignore[attr-defined]
    return Sample(
        sample_id=str(row["sample_id"]),
        source=str(row["source"]),
        task=str(row["task"]),
        question=str(row["question"]),
        images=images,
        options=tuple(row["options"]),  # type: ignore[arg-type]
        answer=str(row["answer"]),
        answer_type=str(row["answer_type"]),
    )


class SampleTable:
    """Random access to a Parquet file of samples without loading it whole.

    Example:
        >>> SampleTable(Path("train.parquet"))[0].task  # doctest: +SKIP
        'chart'
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check its schema.

        Raises:
            RolloutError: the file is missing, is not Parquet, or holds another schema.
        """
        if not path.is_file():
            raise RolloutError(f"no dataset at {path}; build one or point data.train / data.held_out at a Parquet file")
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise RolloutError(f"{path} is not a readable Parquet file: {error}") from error
        found = (self._file.schema_arrow.metadata or {}).get(b"schema", b"none").decode()
        if found != SCHEMA_VERSION:
            raise RolloutError(f"{path} has schema {found!r}; this version reads {SCHEMA_VERSION!r}: rebuild the data")
        rows = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self._cache: OrderedDict[int, list[dict[str, object]]] = OrderedDict()
        if not len(self):
            raise RolloutError(f"{path} holds no rows")

    def __len__(self) -> int:
        """Rows in the file."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        """Read one row."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if group not in self._cache:
            self._cache[group] = self._file.read_row_group(group).to_pylist()
            if len(self._cache) > CACHED_ROW_GROUPS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return _to_sample(self._cache[group][index - int(self._starts[group])])

    def tasks_and_sources(self) -> list[tuple[str, str]]:
        """(task, source) of every row, read from those columns alone."""
        columns = self._file.read(columns=["task", "source"])
        return list(zip(columns.column("task").to_pylist(), columns.column("source").to_pylist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDraw:
    """One position of the prompt stream."""

    position: int
    """0, 1, 2, ... over the whole run; step s trains on positions [s * groups_per_step, (s + 1) * groups_per_step)."""
    epoch: int
    sample: Sample


class PromptStream:
    """The order in which a run meets its prompts: a pure function of (seed, position).

    Every epoch visits each row once, in an order of its own. Nothing is kept between calls, so a resumed run asks for
    the position it needs and meets the same prompt.
    """

    def __init__(self, table: SampleTable, *, seed: int) -> None:
        """Draw from `table` in an order that `seed` fixes."""
        self._table = table
        self._seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def draw(self, position: int) -> PromptDraw:
        """Give the prompt of one position, counted from 0."""
        epoch, offset = divmod(position, len(self._table))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._table))
            self._epoch = epoch
        return PromptDraw(position=position, epoch=epoch, sample=self._table[int(self._order[offset])])
