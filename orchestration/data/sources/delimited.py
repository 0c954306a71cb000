"""CSV, TSV and the like: tables in texts, streamed."""

import codecs
import csv
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestration.data.sources.rows import BadRow
from orchestration.data.sources.streams import (
    BROKEN,
    Record,
    Records,
    bad_row,
    broken_file,
    first_line,
    last_breaks_off,
    opened,
)

MAX_CELL_CHARS = 100_000_000
"""Longest cell of a CSV file: a picture of 75 MB as base64."""
TABLE_ENDINGS = {".csv": ",;\t", ".tsv": "\t,;"}
"""Delimiters by ending; of those that split the header alike, the first one counts."""
INDEX, IMAGE = "index", "image"
MAX_REFERENCE_CHARS = 64
"""An `image` that is longer holds a picture, as VLMEvalKit tells them apart."""
MAX_AHEAD = 100_000
"""Indexes that are looked for below the rows that name them."""
NO_VALUE = ("", "nan", "NaN", "<NA>")
"""Cells without a value, as pandas writes them."""


def find_delimiter(ending: str, head: bytes) -> str | None:
    r"""Return what splits the header of a table into most names; None if it is no table.

    Args:
        ending: Of the file's name; `.csv` and `.tsv` may have one column.
        head: Beginning of the file.

    Example:
        >>> find_delimiter(".txt", b"question;answer, short\nHow many?;3\n")
        ';'
    """
    lines = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(head).splitlines(keepends=True)
    found = {delimiter: _widths(lines, delimiter) for delimiter in TABLE_ENDINGS.get(ending, "\t,;")}
    best = max(found, key=lambda delimiter: (found[delimiter][0], len(set(found[delimiter])) == 1))
    header, row = found[best]
    is_table = ending in TABLE_ENDINGS or (header > 1 and (row == header or len(lines) < 3))
    return best if is_table else None


def _widths(lines: Sequence[str], delimiter: str) -> tuple[int, int]:
    """Return the number of cells of the first two rows."""
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        return len(next(reader, [])), len(next(reader, []))
    except csv.Error:
        return 0, 0


def table_rows(path: Path, delimiter: str) -> Records:
    """Return the rows of a table with a header, placed by running number; a cell without a value is None.

    As in VLMEvalKit's tables, `image` may be the `index` of a row whose picture is shared: it becomes that picture.
    """
    return last_breaks_off(_with_shared_pictures(path, delimiter))


def _with_shared_pictures(path: Path, delimiter: str) -> Records:
    """Return the rows; the file is read twice where it has the columns `index` and `image`."""
    rows = _rows(path, delimiter)
    first = next(rows, None)
    if first is None:
        return
    rows = itertools.chain([first], rows)
    if not isinstance(first, Record) or not isinstance(first.value, dict) or not {INDEX, IMAGE} <= first.value.keys():
        yield from rows
        return
    uses, pictures = _shared_pictures(_rows(path, delimiter))
    for row in rows:
        index, image = _index_and_image(row)
        if len(image) > MAX_REFERENCE_CHARS and uses[index]:
            pictures[index] = image
        elif isinstance(row, Record) and isinstance(row.value, dict) and image in pictures:
            row.value[IMAGE] = pictures[image]
            uses[image] -= 1
            if not uses[image]:
                del pictures[image]  # after its last row
        yield row


def _shared_pictures(rows: Records) -> tuple[Counter[str], dict[str, str]]:
    """Return how many rows share the picture of each row by its index, and the pictures that stand below such a row."""
    uses, ahead = Counter[str](), Counter[str]()
    have, pictures = set[str](), dict[str, str]()
    for row in rows:
        index, image = _index_and_image(row)
        if len(image) > MAX_REFERENCE_CHARS:
            have.add(index)
            if index in ahead:
                uses[index] += ahead.pop(index)
                pictures[index] = image
        elif image in have:
            uses[image] += 1
        elif image and not set("./") & set(image) and len(ahead) < MAX_AHEAD:  # no path
            ahead[image] += 1
    return uses, pictures


def _index_and_image(row: Record | BadRow) -> tuple[str, str]:
    values = row.value if isinstance(row, Record) and isinstance(row.value, dict) else {}
    return values.get(INDEX) or "", values.get(IMAGE) or ""


def _rows(path: Path, delimiter: str) -> Records:
    csv.field_size_limit(MAX_CELL_CHARS)
    index = 0
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"the header has {', '.join(map(repr, twice))} twice; name each column once")
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield bad_row(path, str(index), f"line {reader.line_num} is no row: {error}")
                    index += 1
                    continue
                if cells is None:
                    break
                if not cells:
                    continue  # a blank line
                if len(cells) != len(names):
                    detail = f"line {reader.line_num} has {len(cells)} cells, and the header {len(names)}"
                    yield bad_row(path, str(index), detail)
                else:
                    values = (None if cell in NO_VALUE else cell for cell in cells)
                    yield Record(str(index), dict(zip(names, values, strict=True)))
                index += 1
    except (*BROKEN, csv.Error) as error:
        yield broken_file(path, f"breaks off after {index} rows: {first_line(error)}")
        return
    if not index:
        yield broken_file(path, "has no row below its header")
