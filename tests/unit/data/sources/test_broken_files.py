"""Files that break off, are something else, or are not there: rows before are given, then the fault is named."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.data.sources import streams
from orchestration.data.sources.files import records
from orchestration.data.sources.json_stream import READ_BYTES
from orchestration.data.sources.rows import BadRow, RejectReason
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError
from tests.unit.data.sources.reading import GOLDEN, bad, good, read, write_table

ROW = '{"answer": 1, "image": "a.jpg", "question": "How many?", "question_id": %d}'
MAPPING = {"question": "q", "answer": "a", "task": {"constant": "chart"}}


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        (', {"answer": 1, "ima', "the file ends within a value"),
        (', {"answer": 1, "image": "a.jpg"', "the file ends within a value"),
        (', {"answer": 1},', "the file ends within a value"),
        ("", "',' or ']' should stand where the end of the file stands"),
        (', {"answer": wrong}]', "Expecting value, at 'wrong}]'"),
        (', {"answer": ' + "9" * 5000 + "}]", "Exceeds the limit"),
        ('] {"more": 1}', "trailing garbage"),
        (", " + "[" * 100_000, "brackets open at once"),
    ],
)
def test_rows_before_a_break_are_given_and_the_break_is_placed(tmp_path: Path, ending: str, fault: str) -> None:
    (tmp_path / "train.json").write_text("[" + ROW % 1 + ", " + ROW % 2 + ending, encoding="utf-8")
    rows = read("tallyqa", tmp_path)
    assert [row.source_id for row in good(rows)] == ["1", "2"]
    last = rows[-1]
    assert isinstance(last, BadRow)
    assert last.reason is RejectReason.BROKEN_FILE
    assert last.detail.startswith("train.json breaks off before byte ")
    assert fault in last.detail


def test_numbers_that_json_does_not_know_cost_their_row_and_not_the_file(tmp_path: Path) -> None:
    rows = [ROW % 1, '{"question_id": 2, "question": "How many?", "image": "a.jpg", "answer": NaN}', ROW % 3]
    (tmp_path / "train.json").write_text("[" + ", ".join(rows) + ", " + ROW % 10**30 + "]", encoding="utf-8")
    found = read("tallyqa", tmp_path)
    assert [row.source_id for row in good(found)] == ["1", "3"]
    assert [reason for _, reason in bad(found)] == ["missing_field", "unreadable_row"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"questions": []}', "7", "\ufeff[]", "\x00"])
def test_a_file_without_an_array_is_one_bad_row(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.json").write_text(content, encoding="utf-8")
    rows = read("tallyqa", tmp_path)
    assert bad(rows)[-1] == ("train.json", "broken_file")
    assert not good(rows)


def test_a_table_that_is_no_parquet_is_one_bad_row(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", [{"q": "How many?", "a": "1"}])
    path.write_bytes(path.read_bytes()[:-10])
    (tmp_path / "b.parquet").write_text("not a table", encoding="utf-8")
    rows = read("parquet", tmp_path, mapping=MAPPING)
    assert bad(rows) == [("a.parquet", "broken_file"), ("b.parquet", "broken_file")]


def test_an_arrow_file_that_breaks_off_gives_its_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "data-0.arrow"
    table = pa.table({"q": ["How many?"] * 30, "a": ["1"] * 30})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    path.write_bytes(path.read_bytes()[:-200])
    rows = list(streams.arrow_rows(path))
    assert [isinstance(row, BadRow) for row in rows] == [False] * 20 + [True]
    assert "cannot be read after row 20" in str(rows[-1])


def test_lines_that_are_no_json_are_named_one_by_one(tmp_path: Path) -> None:
    lines = [b'{"q": "a?", "a": 1}', b"\xff\xfe", b"[" * 100_000, b'"text"', b'{"q": "b?", "a": 2}', b"9" * 5000]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows = read("jsonl", tmp_path, mapping=MAPPING)
    assert [row.answer for row in good(rows)] == ["1", "2"]
    assert bad(rows) == [
        ("a.jsonl/2", "unreadable_row"),
        ("a.jsonl/3", "unreadable_row"),
        ("a/4", "unreadable_row"),
        ("a.jsonl/6", "broken_file"),  # the last line: the file was cut there
    ]


def test_large_arrays_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text("[" + ",".join(ROW % index for index in range(20_000)) + "]", encoding="utf-8")
    records = streams.json_array(path)
    first = next(records)
    assert isinstance(first, streams.Record)
    assert path.stat().st_size > 20 * READ_BYTES
    records.close()  # type: ignore[attr-defined]  # a generator: the file is closed with it


def test_rows_come_in_one_order_with_ids_that_stand_once(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[" + ", ".join([ROW % 1, ROW % 2, ROW % 1, ROW % 1]) + "]", encoding="utf-8")
    assert [row.source_id for row in read("tallyqa", tmp_path)] == ["1", "2", "1#2", "1#3"]
    assert read("tallyqa", tmp_path) == read("tallyqa", tmp_path)


def test_an_unknown_adapter_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(
        ConfigError, match=r"no adapter is called 'chart_qa'; did you mean chartqa. Known adapters: ai2d"
    ):
        read("chart_qa", GOLDEN)


def packed(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_tar_whose_rows_are_in_pieces_is_broken_and_its_texts_are_not_asked_without_pictures(tmp_path: Path) -> None:
    texts, pictures = [("1.json", b'{"q": "a"}'), ("2.json", b'{"q": "b"}')], [("1.png", b"x"), ("2.png", b"y")]
    found = list(records(packed(tmp_path / "a.tar", *texts, *pictures)))
    assert [record.value for record in found[:2] if isinstance(record, Record)] == [
        {"__key__": "1", "json": {"q": "a"}},
        {"__key__": "2", "json": {"q": "b"}},
    ]
    (broken,) = found[2:]
    assert isinstance(broken, BadRow)
    assert broken.reason is RejectReason.BROKEN_FILE
    assert broken.detail.endswith("files of 1 are apart; pack them by name: tar --sort=name")


def test_what_macos_packs_beside_a_file_is_no_part_of_a_row(tmp_path: Path) -> None:
    members = [("d/._1.png", b"m"), ("d/1.png", b"x"), ("d/._1.json", b"m"), ("d/1.json", b'{"q": "a"}')]
    (record,) = records(packed(tmp_path / "a.tar", *members))
    assert isinstance(record, Record)
    assert record.value == {"__key__": "d/1", "png": b"x", "json": {"q": "a"}}


def test_numbers_of_32_bits_are_read_as_they_were_written(tmp_path: Path) -> None:
    values = {"f32": pa.array([0.1, None, 3.0], pa.float32()), "f16": pa.array([0.1, None, 3.0], pa.float16())}
    pq.write_table(pa.table({**values, "f64": [0.1, None, 1 / 3]}), tmp_path / "a.parquet")
    rows = [record.value for record in records(tmp_path / "a.parquet") if isinstance(record, Record)]
    assert rows[1:] == [{"f32": None, "f16": None, "f64": None}, {"f32": 3.0, "f16": 3.0, "f64": 1 / 3}]
    assert isinstance(rows[0], dict)
    assert (rows[0]["f32"], rows[0]["f64"]) == (0.1, 0.1)


def test_one_line_with_a_list_of_objects_is_a_row_of_a_file_of_lines(tmp_path: Path) -> None:
    row = {"images": ["a.png"], "texts": [{"user": "How many?", "assistant": "3"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"q": "?"}]}))
    assert [record.value for record in records(tmp_path / "a.jsonl") if isinstance(record, Record)] == [row]
    assert [record.value for record in records(tmp_path / "a.json") if isinstance(record, Record)] == [{"q": "?"}]
