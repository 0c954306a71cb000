"""ChartQA, PlotQA and DVQA against rows worked by hand."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from orchestration.data.sources.rows import RawImage, RawRow
from orchestration.settings.errors import ConfigError, DataError
from tests.unit.data.sources.reading import GOLDEN, PNG, bad, cell, good, read, write_table


def test_chartqa_json_gives_typed_answers_and_names_its_halves() -> None:
    rows = read("chartqa", GOLDEN / "chartqa")
    assert rows[0] == RawRow(
        source_id="train/train_human/0",
        task="chart",
        question="Which year has the highest share?",
        answer="2015",
        answer_type="year",
        images=(RawImage(path="train/png/two_col_1.png"),),
        part="human",
    )
    assert [(row.answer, row.answer_type, row.part) for row in good(rows)[1:]] == [
        ("1950", "number", "human"),
        ("[India, Brazil]", "list", "human"),
        ("Yes", "text", "human"),
        ("45.5%", "number", "augmented"),
    ]
    assert bad(rows) == [("train/train_human/3", "missing_field"), ("train/train_augmented/1", "unreadable_row")]


def test_chartqa_tables_give_image_bytes_and_join_several_labels(tmp_path: Path) -> None:
    write_table(
        tmp_path / "data" / "val-00000-of-00001-e2cd0b7a0f9eb20d.parquet",
        [
            {"image": cell(), "query": "How many?", "label": ["3"], "human_or_machine": 0},
            {"image": cell(), "query": "Which two?", "label": ["India", "Brazil"], "human_or_machine": 1},
            {"image": cell(), "query": "Which?", "label": None, "human_or_machine": 1},
            {"image": None, "query": "Which?", "label": ["a"], "human_or_machine": 1},
        ],
    )
    rows = read("chartqa", tmp_path, split="val")
    assert rows[0] == RawRow(
        source_id="data/val-00000-of-00001-e2cd0b7a0f9eb20d/0",
        task="chart",
        question="How many?",
        answer="3",
        answer_type="number",
        images=(RawImage(data=PNG),),
        part="human",
    )
    assert (good(rows)[1].answer, good(rows)[1].answer_type, good(rows)[1].part) == (
        '["India", "Brazil"]',
        "list",
        "augmented",
    )
    assert [reason for _, reason in bad(rows)] == ["missing_field", "missing_field"]


def test_chartqa_tables_of_lmms_are_read_by_their_own_names(tmp_path: Path) -> None:
    write_table(
        tmp_path / "data" / "test-00000-of-00001.parquet",
        [
            {"type": "human_test", "question": "How many food items?", "answer": "14", "image": cell()},
            {"type": "augmented_test", "question": "Which two?", "answer": "[India, Brazil]", "image": cell()},
            {"type": "human_test", "question": "Which?", "answer": None, "image": cell()},
        ],
    )
    rows = read("chartqa", tmp_path, split="test", role="guard")
    assert [(row.question, row.answer, row.answer_type, row.part) for row in good(rows)] == [
        ("How many food items?", "14", "number", "human"),
        ("Which two?", "[India, Brazil]", "list", "augmented"),
    ]
    assert [reason for _, reason in bad(rows)] == ["missing_field"]


def test_chartqa_without_files_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-\*.parquet and no train/train_human.json; expected layout: data/train"):
        read("chartqa", tmp_path)


def test_an_option_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"options.image is not a setting; did you mean options.images"):
        read("dvqa", GOLDEN / "dvqa", image="x")


def test_plotqa_rounds_numbers_and_sends_yes_and_no_to_matching() -> None:
    rows = read("plotqa", GOLDEN / "plotqa")
    assert [(row.task, row.answer, row.answer_type, row.metadata["template"]) for row in good(rows)] == [
        ("match_yesno", "no", "", "structural"),
        ("chart", "51.67", "number", "arithmetic"),
        ("chart", "2008", "year", "data_retrieval"),
        ("chart", "0.0004", "number", "arithmetic"),
    ]
    assert good(rows)[0].images == (RawImage(path="train/png/0.png", image_id="plotqa/train/png/0"),)
    assert bad(rows) == [("train/qa_pairs_v1/3", "unreadable_row")]


def test_plotqa_reads_questions_inside_an_object_too(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    text = (GOLDEN / "plotqa" / "train" / "qa_pairs_v1.json").read_text(encoding="utf-8")
    (tmp_path / "train" / "qa_pairs.json").write_text(f'{{"qa_pairs": {text}}}', encoding="utf-8")
    assert len(good(read("plotqa", tmp_path))) == 4


def test_plotqa_asks_which_of_two_question_files_is_meant(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for version in (1, 2):
        (tmp_path / "train" / f"qa_pairs_v{version}.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"set options.questions"):
        read("plotqa", tmp_path)
    with pytest.raises(DataError, match=r"holds no test/qa_pairs\*.json"):
        read("plotqa", tmp_path, split="test")


def test_dvqa_takes_counts_in_words_for_numbers() -> None:
    rows = read("dvqa", GOLDEN / "dvqa")
    assert [(row.task, row.answer, row.answer_type, row.metadata["template"]) for row in good(rows)] == [
        ("match_yesno", "no", "", "structure"),
        ("chart", "3", "number", "data"),
        ("chart", "two", "number", "structure"),
    ]
    assert good(rows)[0].images == (RawImage(path="images/bar_train_00000001.png", image_id="dvqa/bar_train_00000001"),)
    assert bad(rows) == [("qa/train_qa/3", "missing_field")]
    with pytest.raises(DataError, match=r"qa/val_hard_qa.json"):
        read("dvqa", GOLDEN / "dvqa", split="val_hard")


def test_dvqa_question_files_may_lie_in_the_root(tmp_path: Path) -> None:
    row = {"image": "bar_val_easy_00000001.png", "question": "What is the value of cup?", "answer": "9",
           "question_type": "data", "bbox_answer": [], "question_id": 7}  # fmt: skip
    (tmp_path / "val_easy_qa.json").write_text(json.dumps([row]), encoding="utf-8")
    rows = good(read("dvqa", tmp_path, split="val_easy", questions="{split}_qa.json"))
    assert [(row.answer, row.images[0].path) for row in rows] == [("9", "images/bar_val_easy_00000001.png")]


def test_a_text_that_is_no_utf8_costs_its_own_row_alone(tmp_path: Path) -> None:
    broken = pa.array([b"How many?", b"\xff\xfe", b"Which?"], pa.binary()).view(pa.string())
    labels = pa.array([["1"], ["2"], ["3"]], pa.list_(pa.string()))
    images = pa.array([cell()] * 3)
    table = pa.table({"image": images, "query": broken, "label": labels, "human_or_machine": [0, 0, 0]})
    (tmp_path / "data").mkdir()
    pa.parquet.write_table(table, tmp_path / "data" / "train-0.parquet")
    rows = read("chartqa", tmp_path)
    assert [row.source_id for row in rows] == ["data/train-0/0", "train-0.parquet/1", "data/train-0/2"]
    assert bad(rows) == [("train-0.parquet/1", "unreadable_row")]
