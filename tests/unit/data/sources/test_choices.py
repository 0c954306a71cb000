"""AI2D, ScienceQA, A-OKVQA and MMMU against rows worked by hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources import answers
from orchestration.data.sources.rows import RawImage, RawRow
from orchestration.settings.errors import ConfigError, DataError
from tests.unit.data.sources.reading import GOLDEN, PNG, bad, cell, good, read, write_table


def test_ai2d_questions_are_split_by_the_list_of_test_images() -> None:
    rows = read("ai2d", GOLDEN / "ai2d")
    assert rows[0] == RawRow(
        source_id="0.png-0",
        task="match_mcq",
        question="What is A in the diagram?",
        options=("ears", "nose", "mouth", "face"),
        answer="D",
        images=(RawImage(path="abc_images/0.png", image_id="ai2d/0"),),
    )
    assert [(row.answer, row.images[0].path) for row in good(rows)[1:]] == [("B", "images/0.png")]
    assert bad(rows) == [("questions/0.png.json/2", "missing_field"), ("2.png.json", "broken_file")]
    assert [row.source_id for row in read("ai2d", GOLDEN / "ai2d", split="test")] == ["1.png-0"]


def test_ai2d_tables_write_the_index_as_text(tmp_path: Path) -> None:
    write_table(
        tmp_path / "data" / "test-00000-of-00001.parquet",
        [
            {"question": "Which?", "options": ["a", "b", "c"], "answer": "2", "image": cell()},
            {"question": "Which?", "options": ["a", "b", "c"], "answer": "c", "image": cell()},
        ],
    )
    rows = read("ai2d", tmp_path, split="test")
    assert (good(rows)[0].answer, good(rows)[0].images) == ("C", (RawImage(data=PNG),))
    assert bad(rows) == [("data/test-00000-of-00001/1", "unreadable_row")]


def test_ai2d_needs_its_list_of_test_images(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "ai2d" / "questions", tmp_path / "questions")
    with pytest.raises(DataError, match=r"ai2d_test_ids.csv"):
        read("ai2d", tmp_path)
    with pytest.raises(ConfigError, match=r"splits train and test"):
        read("ai2d", tmp_path, split="val")
    with pytest.raises(DataError, match=r"no questions/\*.json; expected layout"):
        read("ai2d", tmp_path / "nowhere")


def test_scienceqa_problems_keep_hints_and_count_questions_without_image() -> None:
    rows = read("scienceqa", GOLDEN / "scienceqa")
    assert rows[0] == RawRow(
        source_id="1",
        task="match_mcq",
        question="Which of these states is farthest north?",
        options=("West Virginia", "Louisiana", "Arizona", "Oklahoma"),
        answer="A",
        images=(RawImage(path="images/train/1/image.png"),),
        metadata={"subject": "social science", "grade": "grade2", "topic": "geography"},
    )
    assert (good(rows)[1].source_id, good(rows)[1].question) == ("4", "Ana and Bo had lunch.\nWhat can Ana trade?")
    assert bad(rows) == [("problems/2", "text_only"), ("problems/5", "unreadable_row")]


def test_scienceqa_options_keep_text_rows_and_drop_hints() -> None:
    rows = good(read("scienceqa", GOLDEN / "scienceqa", text_only=True, hint=False))
    assert [(row.source_id, row.question, len(row.images)) for row in rows[1:]] == [
        ("2", "Identify the question that this experiment can best answer.", 0),
        ("4", "What can Ana trade?", 1),
    ]


def test_scienceqa_tables_have_null_where_there_is_no_image(tmp_path: Path) -> None:
    row: dict[str, Any] = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "lecture": "B it is."}
    write_table(tmp_path / "data" / "train-0.parquet", [{**row, "image": cell()}, {**row, "image": None}])
    rows = read("scienceqa", tmp_path)
    assert [(row.answer, row.images) for row in good(rows)] == [("B", (RawImage(data=PNG),))]
    assert bad(rows) == [("data/train-0/1", "text_only")]
    with pytest.raises(DataError, match=r"val-\*.parquet and no problems.json"):
        read("scienceqa", tmp_path, split="val")


def test_scienceqa_refuses_two_folders_that_hold_the_same_rows(tmp_path: Path) -> None:
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": cell()}
    for folder in ("ScienceQA-FULL", "ScienceQA-IMG"):
        write_table(tmp_path / folder / "train-00000-of-00001.parquet", [row])
    with pytest.raises(ConfigError, match=r"holds train in ScienceQA-FULL, ScienceQA-IMG.*set the source's path"):
        read("scienceqa", tmp_path)
    assert [row.answer for row in good(read("scienceqa", tmp_path / "ScienceQA-IMG"))] == ["B"]


def test_aokvqa_names_coco_pictures_and_passes_on_an_index_without_option() -> None:
    rows = read("aokvqa", GOLDEN / "aokvqa")
    assert rows[0] == RawRow(
        source_id="22MexNkBPpdZGX6sxbxVBH",
        task="match_mcq",
        question="What is the man by the bags awaiting?",
        options=("skateboarder", "train", "delivery", "cab"),
        answer="D",
        images=(RawImage(path="train2017/000000299207.jpg", image_id="coco/299207"),),
    )
    assert good(rows)[1].answer == "H"
    assert bad(rows) == [("aokvqa_v1p0_train/2", "missing_field"), ("aokvqa_v1p0_train/3", "unreadable_row")]
    with pytest.raises(DataError, match=r"aokvqa_v1p0_val.json"):
        read("aokvqa", GOLDEN / "aokvqa", split="val")


def test_a_benchmark_without_answers_still_guards() -> None:
    guards = good(read("aokvqa", GOLDEN / "aokvqa", role="guard"))
    assert [(row.source_id, row.answer) for row in guards][2:] == [("2bbb", "")]
    assert good(read("clevr", GOLDEN / "clevr", role="guard"))[3].answer == ""


def mmmu_row(**changes: Any) -> dict[str, Any]:
    images = {f"image_{number}": None for number in range(1, 8)}
    return {
        "id": "validation_Art_1", "question": "Which is <image 1>?", "options": "['Dada', \"It's <image 3>\"]",
        "explanation": "", **images, "image_1": cell(), "image_3": cell(), "img_type": "['Paintings']", "answer": "B",
        "topic_difficulty": "Easy", "question_type": "multiple-choice", "subfield": "Art Theory", **changes,
    }  # fmt: skip


def test_mmmu_numbers_images_by_their_place_and_reads_options_written_as_python(tmp_path: Path) -> None:
    rows = [
        mmmu_row(),
        mmmu_row(id="validation_Art_2", question_type="open", options="[]", answer="4.5", question="How long?"),
        mmmu_row(id="validation_Art_3", question_type="open", options="[]", answer="['two', '2']", question="Many?"),
        mmmu_row(id="validation_Art_4", options="__import__('os').getcwd()"),
        mmmu_row(id="validation_Art_5", options="[" * 5000),
        mmmu_row(id="validation_Art_6", image_1=None, image_3=None),
    ]
    write_table(tmp_path / "Art" / "validation-00000-of-00001.parquet", rows)
    read_rows = read("mmmu", tmp_path, split="validation")
    assert read_rows[0] == RawRow(
        source_id="validation_Art_1",
        task="match_mcq",
        question="Which is [image 1]?",
        options=("Dada", "It's [image 2]"),
        answer="B",
        images=(RawImage(data=PNG), RawImage(data=PNG)),
        metadata={"subfield": "Art Theory", "topic_difficulty": "Easy"},
    )
    assert [(row.task, row.answer, row.answer_type, row.options) for row in good(read_rows)[1:]] == [
        ("chart", "4.5", "number", ()),
        ("chart", "two", "number", ()),
    ]
    assert [reason for _, reason in bad(read_rows)] == ["unreadable_row", "unreadable_row", "missing_field"]
    with pytest.raises(DataError, match=r"holds no dev-\*.parquet; expected layout: <subject>"):
        read("mmmu", tmp_path, split="dev")


@pytest.mark.parametrize(
    ("value", "letters"), [(0, "A"), ("3", "D"), (2.0, "C"), (25, "Z"), (26, "26"), (-1, "-1"), ([0, 2], "A, C")]
)
def test_an_index_becomes_a_letter_or_stays_a_number(value: object, letters: str) -> None:
    assert answers.from_index(value, "answer") == letters
