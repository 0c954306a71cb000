"""Data in the forms that users bring is read as what it is, and a mapping gives the rows that it holds."""

from pathlib import Path
from typing import Any

import pytest

from orchestration.data.own_files import find_own_files
from orchestration.data.sources.files import find_form, records
from orchestration.data.sources.rows import BadRow, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import Record
from tests.unit.data.own_forms import FORMS, utf16_lines
from tests.unit.data.own_questions import NUM_ROWS, OwnData, base64_of, squares
from tests.unit.data.sources.reading import read

BEYOND_MAPPINGS = ("swift_grounding", "factory_alpaca", "vlmevalkit_tsv")
"""Forms whose rows no mapping gives: frames of boxes by row, two columns as one question, options in columns."""


def values(path: Path) -> list[Any]:
    return [record.value if isinstance(record, Record) else record for record in records(path)]


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_known_by_its_content_and_gives_its_rows(name: str, tmp_path: Path) -> None:
    own = FORMS[name](tmp_path)
    assert {find_form(path).kind for path in own.files} == {own.kind}
    assert [value for path in own.files for value in values(path)] == list(own.raw)
    assert len(own.rows) == len(own.raw) == NUM_ROWS
    if own.held_out:
        answers = [value.get("answer", value.get("reward_model")) for path in own.held_out for value in values(path)]
        assert answers == [row.get("answer", row.get("reward_model")) for row in own.raw[::-1]]


def content(own: OwnData, image: RawImage) -> bytes:
    folder = own.path if own.path.is_dir() else own.path.parent
    return image.data if image.data is not None else (folder / str(image.path)).read_bytes()


@pytest.mark.parametrize("name", [name for name in FORMS if name not in BEYOND_MAPPINGS])
def test_a_mapping_gives_the_rows_that_are_asked(name: str, tmp_path: Path) -> None:
    own = FORMS[name](tmp_path)
    root = own.path if own.path.is_dir() else own.path.parent
    files = [path.relative_to(root).as_posix() for path in own.files]
    found = read("jsonl", root, files=files, mapping=dict(own.mapping), answer_is=own.answer_is)
    assert [row.detail for row in found if isinstance(row, BadRow)] == []
    for row, asked in zip(found, own.rows, strict=True):
        assert isinstance(row, RawRow)
        assert (row.question, row.options, row.answer) == (asked.question, asked.options, asked.answer)
        assert tuple(content(own, image) for image in row.images) == asked.images
        assert row.task in asked.tasks


def test_utf16_is_refused_by_name(tmp_path: Path) -> None:
    (bad,) = records(utf16_lines(tmp_path))
    assert isinstance(bad, BadRow)
    assert bad.reason is RejectReason.BROKEN_FILE
    assert "is text in UTF-16; write it as UTF-8" in bad.detail


def shared(tmp_path: Path, *rows: tuple[str, str], names: str = "index\timage") -> list[object]:
    path = tmp_path / "own.tsv"
    path.write_text("\n".join([names, *map("\t".join, rows)]) + "\n", encoding="utf-8")
    return [value["image"] for value in values(path)]


ONE, TWO = base64_of(squares(1)), base64_of(squares(2))


def test_an_image_that_is_the_index_of_another_row_is_its_picture(tmp_path: Path) -> None:
    above = shared(tmp_path, ("1", ONE), ("2", "1"), ("x", TWO), ("3", "1"), ("4", "x"), ("5", ONE))
    assert above == [ONE, ONE, TWO, ONE, TWO, ONE]
    assert shared(tmp_path, ("1", "2"), ("3", "2"), ("2", TWO), ("4", "2")) == [TWO] * 4


def test_only_a_row_with_a_picture_of_its_own_is_meant(tmp_path: Path) -> None:
    chain = shared(tmp_path, ("1", "2"), ("2", "1"), ("3", "9"), ("4", ""), ("5", "5"))
    assert chain == ["2", "1", "9", None, "5"]  # read as paths, and refused where there are no such files
    assert shared(tmp_path, ("1", "1.png"), ("1.png", ONE), ("3", "p/1")) == ["1.png", ONE, "p/1"]
    assert shared(tmp_path, ("1", ONE), ("2", "1"), names="number\timage") == [ONE, "1"]
    assert shared(tmp_path, ("1", ONE), ("2", "01"), ("3", " 1")) == [ONE, "01", " 1"]


def test_a_cut_table_still_gives_the_pictures_of_the_rows_before(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text(f"index\timage\n1\t{ONE}\n2\t1\n3", encoding="utf-8")
    one, two, broken = values(path)
    assert (one["image"], two["image"]) == (ONE, ONE)
    assert broken.reason is RejectReason.BROKEN_FILE


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised_as_what_is_asked(name: str, tmp_path: Path) -> None:
    own = FORMS[name](tmp_path)
    files = find_own_files(own.path, "train", columns={})
    assert files.files == own.files
    options = files.source("train").options
    found = read("jsonl", files.root, **options)
    assert [row.detail for row in found if isinstance(row, BadRow)] == []
    for row, asked in zip(found, own.rows, strict=True):
        assert isinstance(row, RawRow)
        assert (row.question, row.options, row.answer) == (asked.question, asked.options, asked.answer)
        assert row.system == asked.system
        assert tuple(content(own, image) for image in row.images) == asked.images
        assert row.task in asked.tasks
        assert tuple(box.values for box in row.boxes or ()) == asked.boxes
        assert row.box_frame == asked.box_frame
