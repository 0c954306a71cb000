"""Files that users bring: read by what is in them, whatever they are called."""

import csv
import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.data.sources.files import records
from orchestration.data.sources.json_stream import READ_BYTES
from orchestration.data.sources.rows import BadRow, RejectReason
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError
from tests.unit.data.sources.reading import PNG, bad, good, read

ROWS = [{"q": f"What is {word}?", "a": word} for word in ("one", "two", "dreißig")]
MAPPING = {"question": "q", "answer": "a", "task": {"constant": "match_text"}}
ANNOTATED = {"info": {"year": 2014}, "version": "1", "data": ROWS}


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["q", "a"], *([row["q"], row["a"]] for row in ROWS)])
    return text.getvalue().encode()


def parquet(rows: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def arrow(new: Callable[..., Any]) -> bytes:
    file, whole = io.BytesIO(), pa.Table.from_pylist(ROWS)
    with new(file, whole.schema) as writer:
        writer.write_table(whole)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, row in enumerate(ROWS):
            for ending, data in (("json", json.dumps(row).encode()), ("png", PNG), ("txt", b"a caption\n")):
                member = tarfile.TarInfo(f"shard/{number:04d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


FORMS = {
    "an array": json.dumps(ROWS).encode(),
    "an array over several lines": json.dumps(ROWS, indent=1).encode(),
    "lines": lines(ROWS),
    "lines without an end": lines(ROWS).rstrip(),
    "lines with carriage returns": lines(ROWS).replace(b"\n", b"\r\n"),
    "an object with one list": json.dumps(ANNOTATED).encode(),
    "an object over several lines": json.dumps({"annotations": ROWS, "licenses": []}, indent=1).encode(),
    "rows by their names": json.dumps({f"r{number}": row for number, row in enumerate(ROWS)}).encode(),
    "commas": table(","),
    "semicolons": table(";"),
    "tabs": table("\t"),
    "parquet": parquet(ROWS),
    "an arrow stream": arrow(pa.ipc.new_stream),
    "an arrow file": arrow(pa.ipc.new_file),
}
TEXTS = [name for name, data in FORMS.items() if data[:1] in b"{[q"]


def values(path: Path, array: str = "") -> list[object]:
    return [record.value if isinstance(record, Record) else record for record in records(path, array)]


@pytest.mark.parametrize("ending", ["json", "jsonl", "txt", "csv", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_any_ending_is_read_by_what_is_in_it(form: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(FORMS[form])
    if form == "an object with one list" and ending == "jsonl":
        assert values(path) == [ANNOTATED], "one line of JSON lines that holds a value is one row"
        return
    assert values(path) == ROWS


@pytest.mark.parametrize("form", TEXTS)
def test_gzip_and_a_byte_order_mark_around_a_text_do_not_matter(form: str, tmp_path: Path) -> None:
    marked = b"\xef\xbb\xbf" + FORMS[form]
    for name, data in {"a.json": marked, "b.json.gz": gzip.compress(FORMS[form]), "c": gzip.compress(marked)}.items():
        (tmp_path / name).write_bytes(data)
        assert values(tmp_path / name) == ROWS, name


def test_a_mapping_reads_lines_in_a_json_file_and_an_array_in_a_jsonl_file(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(FORMS["lines"])
    (tmp_path / "val.jsonl").write_bytes(FORMS["an array"])
    for name in ("train.json", "val.jsonl"):
        assert [row.answer for row in good(read("jsonl", tmp_path, files=[name], mapping=MAPPING))] == [
            "one", "two", "dreißig",
        ]  # fmt: skip


def test_of_several_lists_the_option_names_the_one_with_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"info": {}, "images": [{"id": 1}], "annotations": ROWS}), encoding="utf-8")
    with pytest.raises(
        ConfigError,
        match=r"coco.json is an object with the lists images, annotations; .* data.rows=annotations, or options",
    ):
        read("jsonl", tmp_path, files=["coco.json"], mapping=MAPPING)
    rows = read("jsonl", tmp_path, files=["coco.json"], mapping=MAPPING, array="annotations")
    assert [row.answer for row in good(rows)] == ["one", "two", "dreißig"]
    path.write_text(json.dumps({"version": 1, "data": {"x": ROWS[0], "y": ROWS[1]}}), encoding="utf-8")
    assert values(path, "data") == ROWS[:2]


def test_one_object_with_a_conversation_or_without_a_list_is_one_row(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "How many?"}], "images": ["a.jpg"], "solution": "3"}
    for name, value in {"a.json": row, "b.json": ROWS[0]}.items():
        (tmp_path / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
        assert values(tmp_path / name) == [value]


def test_cells_hold_quoted_newlines_long_pictures_and_nothing(tmp_path: Path) -> None:
    picture = "A" * 300_000
    text = f'index\tquestion\tA\tB\timage\n0\t"two\nlines, ""quoted"""\tcat\t\t{picture}\n1\tnone\tnan\tNone\tx\n'
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    assert values(tmp_path / "a.tsv") == [
        {"index": "0", "question": 'two\nlines, "quoted"', "A": "cat", "B": None, "image": picture},
        {"index": "1", "question": "none", "A": None, "B": "None", "image": "x"},
    ]


def test_files_of_one_stem_in_a_tar_are_a_row(tmp_path: Path) -> None:
    for name, data in {"a.tar": tar(), "b.tar.gz": gzip.compress(tar())}.items():
        (tmp_path / name).write_bytes(data)
        mapping = {"question": "json.q", "answer": "json.a", "images": "png", "task": {"constant": "match_text"}}
        rows = good(read("jsonl", tmp_path, files=[name], mapping=mapping))
        assert [(row.answer, row.images[0].data) for row in rows] == [(row["a"], PNG) for row in ROWS]
    assert values(tmp_path / "a.tar")[0] == {"__key__": "shard/0000", "json": ROWS[0], "png": PNG, "txt": "a caption"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (FORMS["lines"].decode().encode("utf-16"), "is text in UTF-16; write it as UTF-8"),
        (FORMS["an array"].decode().encode("utf-16-le"), "is text in UTF-16 or UTF-32 without a mark"),
        (FORMS["lines"].decode().encode("utf-32"), "is text in UTF-32; write it as UTF-8"),
        (FORMS["commas"].decode().encode("utf-16-be"), "holds NUL bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "is an HTML or XML page"),
        (b"PK\x03\x04...", "is a zip archive"),
        (b"\x80\x04\x95", "is a pickle"),
        (b"BZh9", "is packed by bzip2"),
        (gzip.compress(FORMS["parquet"]), "is Parquet or Arrow inside of gzip"),
        (b"words and more words", "is none of JSON, JSON lines, CSV"),
        (b"q,a\n", "has no row below its header"),
        (b"q,q\n1,2\n", "the header has 'q' twice"),
        (b"[]", "has no entries"),
        (b'{"data": []}', "holds no rows: all lists in it are empty"),
        (b'{"file_name": "1.png", "qa": [{"q": "A dog?", "a": "no"}]}', "list qa and file_name beside it"),
        (b'{"question": ["A dog?", "A cat?"], "answer": ["no", "yes"]}', "perhaps of columns; write an object"),
    ],
)
def test_what_holds_no_rows_is_one_broken_file_that_says_what_it_is(content: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    (only,) = records(path)
    assert isinstance(only, BadRow)
    assert (only.source_id, only.reason) == ("rows.json", RejectReason.BROKEN_FILE)
    assert only.detail.startswith("rows.json ")
    assert fault in only.detail


@pytest.mark.parametrize("form", [name for name in FORMS if "end" not in name])
def test_a_file_that_is_cut_gives_the_rows_before_and_is_broken(form: str, tmp_path: Path) -> None:
    whole = FORMS[form]
    data = whole.rpartition(b'"a"')[0] if whole[:1] in b"[{" else whole[:-20]
    if form in ("commas", "semicolons", "tabs"):
        data = whole.rstrip().rpartition(whole[1:2])[0]  # the last row has lost its last cell
    path = tmp_path / "rows.json"
    path.write_bytes(data)
    found = values(path)
    assert found[:-1] == (ROWS[:2] if whole[:1] in b"[{q" else []), "these have their lists of rows at the end"
    assert isinstance(found[-1], BadRow)
    assert found[-1].reason is RejectReason.BROKEN_FILE, found[-1]


def test_cut_gzip_tar_and_quotes_are_broken_files(tmp_path: Path) -> None:
    many = lines([{"q": f"What is {number}?", "a": str(number * 7919)} for number in range(5000)])
    for name, data in {
        "a.jsonl.gz": gzip.compress(many)[:-3000],
        "b.tar": tar()[: len(tar()) // 3],
        "c.csv": b'q,a\nWhat?,one\nWhat?,"two',
        "d.jsonl": FORMS["lines"] + b'{"q": "Wha',
        "e.json": FORMS["an array"] + b" and more",
        "f.csv": b"q,a\nWhat?,one\n\xff\xfe,two\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        found = values(tmp_path / name)
        assert isinstance(found[-1], BadRow), name
        assert found[-1].reason is RejectReason.BROKEN_FILE, found[-1]


def test_a_bad_row_in_the_middle_costs_that_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'q,a\nWhat?,one,more\n"Who"se?,two\nWhat?,three\n')
    (tmp_path / "b.json").write_bytes(b'{"q": "What?", "a\n' + FORMS["lines"])
    for name, places in {"a.csv": ["0", "1"], "b.json": ["1"]}.items():
        found = read("jsonl", tmp_path, files=[name], mapping=MAPPING)
        assert bad(found) == [(f"{name}/{place}", "unreadable_row") for place in places]
        assert len(good(found)) == (1 if name == "a.csv" else 3)


@pytest.mark.parametrize("form", ["array", "lines", "object", "names", "csv"])
def test_memory_does_not_grow_with_the_file(form: str, tmp_path: Path) -> None:
    row = {"q": "What is it?" * 20, "a": "one"}
    rows = [row] * 20_000
    path = tmp_path / "rows"
    path.write_bytes(
        {
            "array": lambda: json.dumps(rows).encode(),
            "lines": lambda: lines(rows),
            "object": lambda: json.dumps({"data": rows}).encode(),
            "names": lambda: json.dumps(dict(enumerate(rows))).encode(),
            "csv": lambda: "\n".join(["q,a", *(f"{row['q']},{row['a']}" for row in rows)]).encode(),
        }[form]()
    )
    assert path.stat().st_size > 60 * READ_BYTES
    tracemalloc.start()
    assert sum(isinstance(record, Record) for record in records(path)) == len(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * READ_BYTES


def test_a_row_that_is_longer_than_a_read_is_whole(tmp_path: Path) -> None:
    rows = [{"a": "\\u00e9é\n" * READ_BYTES, "n": -1234567890.5}, {"a": 1}, 12, -7, {"b": [1, {}]}]
    for name, data in {"a.json": json.dumps(rows), "b.json": json.dumps(rows, ensure_ascii=False, indent=2)}.items():
        (tmp_path / name).write_text(data, encoding="utf-8")
        assert values(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("value", "reason"), [("NaN", "missing_field"), ("Infinity", "not_finite"), ("null", "missing_field")]
)
def test_nan_is_no_value_and_never_a_word(value: str, reason: str, tmp_path: Path) -> None:
    rows = ['"q": "What?", "a": "one", "i": NaN, "o": NaN', f'"q": "What?", "a": {value}', '"q": NaN, "a": "one"']
    (tmp_path / "a.jsonl").write_text("\n".join(f"{{{row}}}" for row in rows), encoding="utf-8")
    found = read("jsonl", tmp_path, mapping={**MAPPING, "images": "i?", "options": "o?"})
    assert [(row.answer, row.images, row.options) for row in good(found)] == [("one", (), ())]
    assert bad(found) == [("a/2", reason), ("a/3", "missing_field")]
    table = pa.table({"q": ["What?", "What?"], "a": pa.array([1.0, float("nan")])})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read("parquet", tmp_path, mapping=MAPPING)
    assert [row.answer for row in good(found)] == ["1"]
    assert bad(found) == [("a/1", "missing_field")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "chart"}, r"mapping.task: the path chart .*first 3 rows; a task for all rows is \{constant: chart\}"),
        ({"question": "query"}, "mapping.question: the path query leads nowhere .*; the fields there are a, q"),
        ({"answer": "a.b.c", "question": "x.y"}, r"options.mapping.question: the path x.y leads nowhere"),
        ({"images": "image"}, r"options.mapping.images: .*where rows may lack it, write image\?"),
        ({"images": {"format": "{name}.png"}}, "options.mapping.images: the path .* leads nowhere"),
        ({"answer": {"first": ["b", "c"]}}, "options.mapping.answer: the path b or c leads nowhere"),
        ({"metadata": {"topic": "topics"}}, "options.mapping.metadata.topic: the path topics leads nowhere"),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_named_before_anything_is_read(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    with pytest.raises(ConfigError, match=message):
        read("jsonl", tmp_path, mapping={**MAPPING, **change})


def test_a_field_that_is_null_or_rare_or_optional_leads_somewhere(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "hint": None, "meta": None}, {**ROWS[1], "options": ["one", "two"]}]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    more = {"options": "options", "part": "hint", "images": "image?", "metadata": {"x": "meta.x"}}
    assert len(good(read("jsonl", tmp_path, mapping={**MAPPING, **more}))) == 2


@pytest.mark.parametrize("pattern", ["/data/own/rows.jsonl", "../rows.jsonl", "a/../../rows.jsonl", "~/rows.jsonl", ""])
def test_files_are_patterns_under_the_path_of_the_source(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="files are patterns under the source's path"):
        read("jsonl", tmp_path, files=[pattern], mapping=MAPPING)
    with pytest.raises(ConfigError, match="is no pattern"):
        read("jsonl", tmp_path, files=["**.jsonl"], mapping=MAPPING)
