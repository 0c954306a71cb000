"""Streaming readers of raw files: JSON arrays and objects, JSON lines, Parquet and Arrow."""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.json_stream import JsonStream
from orchestration.data.sources.rows import BadRow, RawRow, RejectReason

BATCH_ROWS = 16
"""Rows in memory at once, with their images."""
GZIP = b"\x1f\x8b"
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of texts that are refused."""

BROKEN = (OSError, EOFError, ValueError, ArithmeticError, RecursionError, zlib.error)
"""What reading a damaged text raises."""
_BROKEN_ARROW = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Record:
    """A raw value and its place in its file: a running number, or its name there."""

    place: str
    value: object


Records = Iterator[Record | BadRow]
Convert = Callable[[Record], Iterable[RawRow]]


def read_rows(records: Records, convert: Convert, part: str) -> Iterator[RawRow | BadRow]:
    """Convert records one by one; a record that cannot be read becomes a BadRow.

    A repeated id is numbered: `7#2` is the second row with id 7. Running numbers, part/place, cannot repeat and are not
    remembered: a part may have 29 million of them.

    Args:
        records: From one of the readers below.
        convert: Returns the rows of one record, or raises RowError.
        part: Name of the part; names broken rows, which may have no id of their own.
    """
    times: dict[str, int] = {}
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            rows = list(convert(record))
        except RowError as error:
            yield BadRow(source_id=f"{part}/{record.place}", reason=error.reason, detail=str(error))
            continue
        for row in rows:
            if row.source_id == f"{part}/{record.place}":
                yield row
                continue
            count = times[row.source_id] = times.get(row.source_id, 0) + 1
            yield row if count == 1 else replace(row, source_id=f"{row.source_id}#{count}")


def of_split(records: Records, split: str) -> Records:
    """Skip the rows of other splits; a row whose `split` cannot be read is kept, to be rejected with its reason."""
    for record in records:
        value = record.value if isinstance(record, Record) else None
        other = value.get("split") if isinstance(value, dict) else None
        if not isinstance(other, str) or other == split:
            yield record


def json_array(path: Path, array: str = "") -> Records:
    """Return the entries of a JSON array, streamed.

    Args:
        path: The file; gzip and a byte order mark are accepted.
        array: Name of the array inside an outermost object; empty if the file is the array.

    Returns:
        Records placed by running number; a BadRow where the file breaks off or has no such array.
    """

    def entries(stream: JsonStream) -> Iterator[Record]:
        if array and stream.peek() == "{":
            for name in stream.names():
                if name != array:
                    stream.skip()
                elif stream.peek() == "{":
                    for place in stream.names():
                        yield Record(place, stream.value())
                else:
                    for index, value in enumerate(stream.entries()):
                        yield Record(str(index), value)
        elif stream.peek() == "[":
            for index, value in enumerate(stream.entries()):
                yield Record(str(index), value)
        else:
            stream.skip()
        stream.finish()

    return _entries(path, entries, f"has no entries in {array or 'an outermost array'}")


def json_members(path: Path) -> Records:
    """Return the members of a JSON object, streamed; placed by their names."""

    def members(stream: JsonStream) -> Iterator[Record]:
        for name in stream.names():
            yield Record(name, stream.value())
        stream.finish()

    return _entries(path, members, "is no object with members")


def json_lines(path: Path) -> Records:
    """Return the lines of a JSON-lines file, placed by line number from 1; blank lines are skipped."""
    return last_breaks_off(_lines(path))


def _lines(path: Path) -> Records:
    number = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield Record(str(number), json.loads(line))
                except (ValueError, RecursionError) as error:
                    yield bad_row(path, str(number), f"line {number} is no JSON: {first_line(error)}")
    except BROKEN as error:
        yield broken_file(path, f"cannot be read after line {number}: {first_line(error)}")


def last_breaks_off(records: Records) -> Records:
    """Return the records; if the last one cannot be read, its file was cut there, and counts as broken."""
    held = None
    for record in records:
        if held is not None:
            yield held
        held = record if isinstance(record, BadRow) else None
        if held is None:
            yield record
    if held is not None:
        yield replace(held, reason=RejectReason.BROKEN_FILE)


def parquet_rows(path: Path) -> Records:
    """Return the rows of a Parquet file, a few at a time, placed by running number."""
    # Threads cost more than they gain for a few rows at a time, and each worker has one core.
    return _arrow_records(path, lambda: pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS, use_threads=False))


def arrow_rows(path: Path) -> Records:
    """Return the rows of an Arrow stream file (what `save_to_disk` writes), mapped, not loaded."""
    return _arrow_records(path, lambda: pa.ipc.open_stream(pa.memory_map(str(path))))


def arrow_file_rows(path: Path) -> Records:
    """Return the rows of an Arrow file (Feather), mapped, not loaded."""

    def batches() -> Iterator[Any]:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        return (file.get_batch(index) for index in range(file.num_record_batches))

    return _arrow_records(path, batches)


def _entries(path: Path, read: Callable[[JsonStream], Iterator[Record]], nothing: str) -> Records:
    """Read a JSON file; `nothing` is said of one without entries."""
    num_read = num_bytes = 0
    try:
        with opened(path) as file:
            stream = JsonStream(file)
            try:
                for record in read(stream):
                    num_read += 1
                    yield record
            finally:
                num_bytes = stream.num_bytes
    except BROKEN as error:
        yield broken_file(path, f"breaks off before byte {num_bytes}, after {num_read} rows: {first_line(error)}")
    else:
        if not num_read:
            yield broken_file(path, nothing)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a text file as bytes of UTF-8, after its byte order mark if it has one; gzip is unpacked.

    Raises:
        ValueError: It is UTF-16 or UTF-32.
    """
    with path.open("rb") as packed:
        is_gzip = packed.read(len(GZIP)) == GZIP
        packed.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if is_gzip else packed
        head = file.read(4)
        for mark, name in OTHER_ENCODINGS.items():
            if head.startswith(mark):
                raise ValueError(f"is text in {name}; write it as UTF-8: iconv -f {name} -t UTF-8")
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        yield file


def _arrow_records(path: Path, batches: Callable[[], Iterable[Any]]) -> Records:
    index = 0
    try:
        for batch in batches():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                for row in _python_rows(batch.slice(start, BATCH_ROWS)):
                    bad = isinstance(row, Exception)
                    yield bad_row(path, str(index), f"row {index}: {row}") if bad else Record(str(index), row)
                    index += 1
    except _BROKEN_ARROW as error:
        yield broken_file(path, f"cannot be read after row {index}: {first_line(error)}")


def _python_rows(batch: Any) -> Iterable[object]:
    """Convert a batch; if a value cannot be converted, row by row, with the error in place of that row."""
    try:
        rows: list[object] = _with_shortest_floats(batch).to_pylist()
    except _BROKEN_ARROW:
        return [_python_row(batch.slice(index, 1)) for index in range(batch.num_rows)]
    return rows


def _with_shortest_floats(batch: Any) -> Any:
    """Return a batch whose columns of 32 bits or fewer hold the shortest number: 0.1, and not 0.10000000149011612."""
    for place, field in enumerate(batch.schema):
        if pa.types.is_floating(field.type) and field.type != pa.float64():
            column = batch.column(place).cast(pa.float32()).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(place, field.name, column)
    return batch


def _python_row(batch: Any) -> object:
    try:
        return _with_shortest_floats(batch).to_pylist()[0]
    except _BROKEN_ARROW as error:
        return error


def broken_file(path: Path, detail: str, place: str = "") -> BadRow:
    """Return the bad row of a file that breaks off or cannot be read; `place` names a small file by its folder."""
    return replace(bad_row(path, place, detail), reason=RejectReason.BROKEN_FILE)


def bad_row(path: Path, place: str, detail: str) -> BadRow:
    """Return the bad row at a place of a file that can be read on."""
    name = f"{path.name}/{place}" if place else path.name
    return BadRow(source_id=name, reason=RejectReason.UNREADABLE_ROW, detail=f"{path.name} {detail}")


def first_line(error: BaseException) -> str:
    """Return the beginning of an error's message, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip()[:200]
