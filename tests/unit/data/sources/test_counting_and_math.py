"""CLEVR, TallyQA, CLEVR-CoGenT, GeoQA and Geometry3K against rows worked by hand."""

from pathlib import Path

import pytest

from orchestration.data.sources.rows import RawImage, RawRow
from orchestration.settings.errors import DataError
from tests.unit.data.sources.reading import GOLDEN, PNG, bad, cell, good, read, write_table


def test_clevr_sends_each_answer_to_the_reward_that_reads_it() -> None:
    rows = read("clevr", GOLDEN / "clevr")
    assert rows[1] == RawRow(
        source_id="questions/CLEVR_train_questions/1",
        task="chart",
        question="How many blue cubes are there?",
        answer="2",
        answer_type="number",
        images=(RawImage(path="images/train/CLEVR_train_000000.png", image_id="clevr/CLEVR_train_000000"),),
        metadata={"template": "12"},
    )
    assert [(row.task, row.answer) for row in good(rows)] == [
        ("match_yesno", "no"), ("chart", "2"), ("match_text", "rubber"),
    ]  # fmt: skip
    assert bad(rows) == [("questions/CLEVR_train_questions/3", "missing_field")]
    with pytest.raises(DataError, match=r"questions/CLEVR_val_questions.json"):
        read("clevr", GOLDEN / "clevr", split="val")


def test_tallyqa_counts_and_names_pictures_of_both_collections() -> None:
    rows = read("tallyqa", GOLDEN / "tallyqa")
    assert rows[0] == RawRow(
        source_id="30095774",
        task="chart",
        question="How many headlights does the black bus have?",
        answer="4",
        answer_type="number",
        images=(RawImage(path="VG_100K_2/2410408.jpg", image_id="vg/2410408"),),
        part="complex",
        metadata={"data_source": "imported_genome"},
    )
    second = good(rows)[1]
    assert (second.answer, second.part, second.images[0].image_id) == ("0", "simple", "coco/9")
    assert bad(rows) == [("train/2", "unreadable_row")]
    with pytest.raises(DataError, match=r"holds no test.json"):
        read("tallyqa", GOLDEN / "tallyqa", split="test")


def test_geoqa_takes_the_answer_from_between_its_tags(tmp_path: Path) -> None:
    write_table(
        tmp_path / "data" / "train-0.parquet",
        [
            {"image": cell(), "problem": "<image>Find angle A.", "solution": "<answer> 145\u00b0 </answer>"},
            {"image": cell(), "problem": "Find x.", "solution": "2"},
            {"image": None, "problem": "Find y.", "solution": "<answer> 3 </answer>"},
            {"image": cell(), "problem": None, "solution": "<answer> 3 </answer>"},
        ],
    )
    rows = read("geoqa", tmp_path)
    assert rows[0] == RawRow(
        source_id="data/train-0/0",
        task="math",
        question="Find angle A.",
        answer="145\u00b0",
        images=(RawImage(data=PNG),),
    )
    assert good(rows)[1].answer == "2"
    assert bad(rows) == [("data/train-0/2", "missing_field"), ("data/train-0/3", "missing_field")]


def test_geoqa_reads_lists_of_images_with_plain_answers(tmp_path: Path) -> None:
    write_table(tmp_path / "data" / "train-0.parquet", [{"images": [cell()], "problem": "Find x.", "answer": "50"}])
    assert [(row.answer, len(row.images)) for row in good(read("geoqa", tmp_path))] == [("50", 1)]
    with pytest.raises(DataError, match=r"test-\*.parquet"):
        read("geoqa", tmp_path, split="test")


def test_clevr_cogent_is_graded_by_the_kind_of_its_answer(tmp_path: Path) -> None:
    write_table(
        tmp_path / "data" / "train-0.parquet",
        [
            {"image": cell(), "problem": "How many?", "solution": "<answer> 3 </answer>", "thinking": "1, 2, 3"},
            {"image": cell(), "problem": "Is it red?", "solution": "<answer> yes </answer>", "thinking": ""},
            {"image": cell(), "problem": "Is it red?", "solution": None, "thinking": ""},
        ],
    )
    rows = read("clevr_cogent", tmp_path)
    assert [(row.task, row.answer, row.answer_type) for row in good(rows)] == [
        ("chart", "3", "number"), ("match_yesno", "yes", ""),
    ]  # fmt: skip
    assert bad(rows) == [("data/train-0/2", "missing_field")]
    with pytest.raises(DataError, match=r"val-\*.parquet"):
        read("clevr_cogent", tmp_path, split="val")


def test_geometry3k_folders_give_the_value_or_the_letter() -> None:
    free = read("geometry3k", GOLDEN / "geometry3k")
    assert free[0] == RawRow(
        source_id="train/11",
        task="math",
        question="In $\\odot X, A B=30, C D=30,$ and $m \\widehat{C Z}=40$. Find $m\\widehat{A B}$",
        answer="80",
        images=(RawImage(path="train/11/img_diagram.png", image_id="geometry3k/11"),),
    )
    assert (good(free)[1].question, good(free)[1].answer) == ("Find x.", "2 \\sqrt { 5 }")
    assert bad(free) == [("data.json/13", "broken_file")]
    lettered = good(read("geometry3k", GOLDEN / "geometry3k", form="choices"))
    assert [(row.task, row.answer, row.options) for row in lettered] == [
        ("match_mcq", "D", ("30", "40", "60", "80")),
        ("match_mcq", "B", ("5", "2 \\sqrt { 5 }")),
    ]


def test_geometry3k_tables_find_the_letter_by_the_answer_where_none_is_given(tmp_path: Path) -> None:
    row = {"images": [cell()], "problem": "<image>Find x.", "answer": "40", "choices": ["30", "40"]}
    write_table(
        tmp_path / "data" / "train-0.parquet",
        [
            {**row, "id": 5, "ground_truth": "B", "choices": ["40", "40"]},
            {**row, "id": 6, "ground_truth": "40"},
            {**row, "id": 7, "ground_truth": "B", "images": []},
        ],
    )
    assert [(r.source_id, r.task, r.answer, r.question) for r in good(read("geometry3k", tmp_path))] == [
        ("5", "math", "40", "Find x."),
        ("6", "math", "40", "Find x."),
    ]
    lettered = read("geometry3k", tmp_path, form="choices")
    assert [row.answer for row in good(lettered)] == ["B", "B"]
    assert bad(lettered) == [("data/train-0/2", "missing_field")]
    with pytest.raises(DataError, match=r"no val/<id>/data.json"):
        read("geometry3k", tmp_path, split="val")
