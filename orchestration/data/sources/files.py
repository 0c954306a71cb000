"""Rows of a file of any form, read by what is in it: JSON, JSON lines, CSV, Parquet, Arrow, tar; also in gzip."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestration.data.sources.delimited import find_delimiter, table_rows
from orchestration.data.sources.json_stream import JsonStream
from orchestration.data.sources.streams import (
    BROKEN,
    Record,
    Records,
    arrow_file_rows,
    arrow_rows,
    broken_file,
    first_line,
    json_array,
    json_lines,
    json_members,
    opened,
    parquet_rows,
)
from orchestration.data.sources.tars import tar_rows
from orchestration.settings.errors import ConfigError

HEAD_BYTES = 65_536
"""Beginning of a file that is looked at, besides the first JSON object."""
LINE_ENDINGS = (".jsonl", ".jsonlines", ".ndjson")
TURN_KEYS = ("role", "from")
"""A list of objects with one of these is a conversation, and the object around it one row."""
PICTURE_KEYS = ("file_name", "filename", "image", "image_file", "image_path", "images", "img", "img_path", "picture")
"""Members of an object that name its picture: a list beside them holds parts of one row."""
MAX_NAMED = 12
"""Lists that a message names."""
TAR_MAGIC = slice(257, 262)
NO_ANNOTATIONS = {
    b"PK\x03\x04": "a zip archive (or an Excel sheet): unpack it, or save it as CSV",
    b"BZh": "packed by bzip2: unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz: unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it, or pack it by gzip",
    b"\x80": "a pickle, which is not read because it can run code: save it as JSON lines or Parquet",
    b"\x89HDF": "HDF5: save it as JSON lines or Parquet",
    b"SQLite format 3": "an SQLite database: save its table as CSV",
    b"version http": "a pointer of Git LFS, not the file: git lfs pull",
    b"<": "an HTML or XML page, such as the answer to a download that failed",
}
"""What files that hold no rows begin with."""

Kind = Literal["parquet", "arrow file", "arrow stream", "tar", "lines", "array", "members", "row", "table"]


class FormError(ValueError):
    """A file whose form is not known; the message goes on after its name."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a file is."""

    kind: Kind
    array: str = ""
    """Of an object that holds the rows in one of its members: the name of that member."""
    delimiter: str = ","


def records(path: Path, array: str = "") -> Records:
    """Return the rows of a file, read by what is in it and not by its ending, streamed.

    JSON: an array; one object a line; one object with a list of rows, or of rows by their names. CSV, TSV and the like
    with a header. Parquet; Arrow, file or stream. A tar of WebDataset: files of one stem are a row, by their endings.
    Texts are UTF-8, with or without a byte order mark; gzip around a text or a tar is unpacked.

    Args:
        path: The file.
        array: Of a JSON object that holds several lists: the name of the list of rows.

    Returns:
        Records placed by running number, line number or name; the BadRow of a file that breaks off, is damaged, or has
        no known form.
    """
    try:
        form = find_form(path, array)
    except (FormError, ConfigError, *BROKEN) as error:
        return iter((broken_file(path, first_line(error)),))
    return READERS[form.kind](path, form)


def find_form(path: Path, array: str = "") -> Form:
    """Return the form of a file; of a JSON object, all its members are passed once to find the list of rows.

    Raises:
        FormError: It is empty, of an unknown form, or of one that is not read.
        ConfigError: It is an object with several lists of rows, and `array` names none.
        OSError: It cannot be opened.
        ValueError: It is damaged, or in another encoding.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return Form("parquet")
    if head.startswith(b"ARROW1"):
        return Form("arrow file")
    if head.startswith(b"\xff\xff\xff\xff") or path.suffix == ".arrow":
        return Form("arrow stream")
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    if head[TAR_MAGIC] == b"ustar":
        return Form("tar")
    if head.startswith((b"PAR1", b"ARROW1")):
        raise FormError("is Parquet or Arrow inside of gzip: unpack it with gunzip")
    text = head.lstrip()
    for start, name in NO_ANNOTATIONS.items():
        if text.startswith(start):
            raise FormError(f"is {name}")
    if not text:
        raise FormError("is empty")
    if 0 in head[:1000] and not text.startswith((b"{", b"[")):
        raise FormError("holds NUL bytes: it is binary, or text in UTF-16; write texts as UTF-8")
    if 0 in head[:4]:
        raise FormError("is text in UTF-16 or UTF-32 without a mark; write it as UTF-8: iconv -f UTF-16LE -t UTF-8")
    if text.startswith(b"["):
        return Form("array")
    if text.startswith(b"{"):
        return _form_of_objects(path, head, array)
    if any(map(_is_object, head.splitlines())):
        return Form("lines")
    if (delimiter := find_delimiter(_ending(path), head)) is not None:
        return Form("table", delimiter=delimiter)
    if _ending(path) in LINE_ENDINGS:
        return Form("lines")  # all of them broken, or longer than what was looked at
    raise FormError("is none of JSON, JSON lines, CSV, TSV, Parquet, Arrow and tar")


def _form_of_objects(path: Path, head: bytes, array: str) -> Form:
    """Return the form of a file that begins with an object: lines of them, or one that holds the rows."""
    if array:
        return Form("members", array)
    kinds, lists, values = set[str](), list[str](), list[str]()
    is_whole, follows = False, ""
    try:
        with opened(path) as file:
            stream = JsonStream(file)
            for name in stream.names():
                for kind in _member_kinds(stream):
                    kinds.add(kind)
                    if kind == "rows" and len(lists) < MAX_NAMED:
                        lists.append(name)
                    if kind == "value" and name.lower() in PICTURE_KEYS:
                        values.append(name)
            is_whole = True
            follows = stream.peek()
    except BROKEN:
        pass  # reading says where; here it counts what was found before
    is_one_line = is_whole and b"\n" not in head.strip()
    if (
        follows == "{"
        or (follows and not lists and _is_object(head.splitlines()[0]))
        or (is_one_line and kinds & {"value", "list", "turns"} and _ending(path) in LINE_ENDINGS)  # one row
        or (not is_whole and _has_lines(path, head))
    ):
        return Form("lines")
    if len(lists) > 1:
        raise ConfigError(
            f"{path.name} is an object with the lists {', '.join(lists)}; name the one that holds the rows, such as "
            f"data.rows={lists[-1]}, or options: {{array: {lists[-1]}}} of a source in a recipe"
        )
    if lists and values:
        raise FormError(
            f"is one object with the list {lists[0]} and {values[0]} beside it, which its rows would lose; write "
            f"{values[0]} into each of them"
        )
    if lists:
        return Form("members", lists[0])
    if kinds <= {"object"}:
        return Form("members")
    if kinds <= {"empty list", "object"}:
        raise FormError("holds no rows: all lists in it are empty")
    if kinds == {"list"}:
        raise FormError("is an object of lists of values, perhaps of columns; write an object for each row")
    return Form("row")


def _member_kinds(stream: JsonStream) -> Iterator[str]:
    """Pass a member of an object; say what it is, before the whole of it is passed: it may be broken."""
    sign = stream.peek()
    if sign != "[":
        yield "object" if sign == "{" else "value"
        stream.skip()
        return
    index = -1
    for index, entry in enumerate(stream.entries()):
        if index == 0:
            is_turn = isinstance(entry, dict) and any(key in entry for key in TURN_KEYS)
            yield "turns" if is_turn else "rows" if isinstance(entry, dict) else "list"
    if index < 0:
        yield "empty list"


def _has_lines(path: Path, head: bytes) -> bool:
    """Return whether a file whose first object is broken holds lines; two objects in a row are nowhere else."""
    found = [_is_object(line) for line in head.splitlines()[1:]]
    return _ending(path) in LINE_ENDINGS or any(one and other for one, other in itertools.pairwise(found))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _row(path: Path, form: Form) -> Records:
    """Read a file whose one object is a row."""
    try:
        with opened(path) as file:
            stream = JsonStream(file)
            value = stream.value()
            stream.finish()
    except BROKEN as error:
        yield broken_file(path, f"breaks off before byte {path.stat().st_size}: {first_line(error)}")
        return
    yield Record("0", value)


READERS: Mapping[Kind, Callable[[Path, Form], Records]] = {
    "parquet": lambda path, form: parquet_rows(path),
    "arrow file": lambda path, form: arrow_file_rows(path),
    "arrow stream": lambda path, form: arrow_rows(path),
    "tar": lambda path, form: tar_rows(path),
    "lines": lambda path, form: json_lines(path),
    "array": lambda path, form: json_array(path),
    "members": lambda path, form: json_array(path, form.array) if form.array else json_members(path),
    "row": _row,
    "table": lambda path, form: table_rows(path, form.delimiter),
}
"""By kind: what reads it."""
