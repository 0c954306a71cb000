"""Streaming readers of raw files: JSON arrays and objects, JSON lines, Parquet and Arrow."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.rows import BadRow, RawRow, RejectReason

BATCH_ROWS = 16
"""Rows in memory at once, with their images."""
MAX_DEPTH = 1_000
"""Nesting depth at which a file is refused; real rows have about ten. The parser's memory grows as its square."""
READ_BYTES = 16_384
"""Small, so that deep nesting within one read does no harm either."""

_ESCAPE = re.compile(rb"\\.", re.DOTALL)

_BROKEN_JSON = (ijson.JSONError, OSError, ValueError, ArithmeticError, RecursionError)
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
        path: The file.
        array: Name of the array inside an outermost object; empty if the file is the array.

    Returns:
        Records placed by running number; a BadRow where the file is truncated or has no such array. The parser also
        stops at NaN, and at a number beyond 64 bits.
    """
    prefix = f"{array}.item" if array else "item"
    found = False
    for record in _stream(path, lambda file: enumerate(ijson.items(file, prefix, use_float=True))):
        found = True
        yield record
    if not found:
        yield broken_file(path, f"has no entries in {array or 'an outermost array'}")


def json_members(path: Path) -> Records:
    """Return the members of a JSON object, streamed; placed by their names."""
    found = False
    for record in _stream(path, lambda file: ijson.kvitems(file, "", use_float=True)):
        found = True
        yield record
    if not found:
        yield broken_file(path, "is no object with members")


def json_lines(path: Path) -> Records:
    """Return the lines of a JSON-lines file, placed by line number from 1; blank lines are skipped."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield Record(str(number), json.loads(line))
                except (ValueError, RecursionError) as error:
                    yield broken_file(path, f"line {number} is no JSON: {_first_line(error)}", str(number))
    except OSError as error:
        yield broken_file(path, f"cannot be read after line {number}: {error}")


def parquet_rows(path: Path) -> Records:
    """Return the rows of a Parquet file, a few at a time, placed by running number."""
    return _arrow_records(path, lambda: pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS))


def arrow_rows(path: Path) -> Records:
    """Return the rows of an Arrow stream file (what `save_to_disk` writes), mapped, not loaded."""
    return _arrow_records(path, lambda: pa.ipc.open_stream(pa.memory_map(str(path))))


def _stream(path: Path, parse: Callable[[BinaryIO], Iterable[tuple[object, object]]]) -> Records:
    with path.open("rb") as file:
        guarded = _Guarded(file)
        try:
            for place, value in parse(guarded):  # type: ignore[arg-type]  # the parser calls read alone
                yield Record(str(place), value)
        except _BROKEN_JSON as error:
            yield broken_file(path, f"breaks off before byte {guarded.num_bytes}: {_first_line(error)}")


class _Guarded:
    """A file that counts the bytes read, and refuses nesting that would exhaust the parser's memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._depth = 0
        self._in_text = False
        self._in_escape = False
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, READ_BYTES) if size >= 0 else READ_BYTES)
        self.num_bytes += len(data)
        plain = _ESCAPE.sub(b"", data[1:] if self._in_escape else data)
        self._in_escape = plain.endswith(b"\\")
        pieces = plain.split(b'"')
        outside = b"".join(pieces[1::2] if self._in_text else pieces[::2])
        self._in_text ^= len(pieces) % 2 == 0
        self._depth += sum(map(outside.count, (b"[", b"{"))) - sum(map(outside.count, (b"]", b"}")))
        if self._depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} brackets open at once")
        return data


def _arrow_records(path: Path, batches: Callable[[], Iterable[Any]]) -> Records:
    index = 0
    try:
        for batch in batches():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                for row in _python_rows(batch.slice(start, BATCH_ROWS)):
                    bad = isinstance(row, Exception)
                    yield broken_file(path, f"row {index}: {row}", str(index)) if bad else Record(str(index), row)
                    index += 1
    except _BROKEN_ARROW as error:
        yield broken_file(path, f"cannot be read after row {index}: {_first_line(error)}")


def _python_rows(batch: Any) -> Iterable[object]:
    """Convert a batch; if a value cannot be converted, row by row, with the error in place of that row."""
    try:
        rows: list[object] = batch.to_pylist()
    except _BROKEN_ARROW:
        return [_python_row(batch.slice(index, 1)) for index in range(batch.num_rows)]
    return rows


def _python_row(batch: Any) -> object:
    try:
        return batch.to_pylist()[0]
    except _BROKEN_ARROW as error:
        return error


def broken_file(path: Path, detail: str, place: str = "") -> BadRow:
    """Return the bad row of a broken file, or of one of its rows if `place` names it."""
    name = f"{path.name}/{place}" if place else path.name
    return BadRow(source_id=name, reason=RejectReason.UNREADABLE_ROW, detail=f"{path.name} {detail}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()[:200]
