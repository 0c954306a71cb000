"""RefCOCO in both forms, and detection in COCO form, against rows worked by hand."""

import json
import pickle
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.rows import RawBox, RawImage, RawRow
from orchestration.settings.errors import ConfigError, DataError
from tests.unit.data.sources.reading import GOLDEN, PNG, bad, cell, good, read, write_table


def sentence(number: int, text: str) -> dict[str, Any]:
    return {"sent_id": number, "sent": text, "raw": text.title(), "tokens": text.split()}


def ref(**changes: Any) -> dict[str, Any]:
    return {
        "ref_id": 0, "ann_id": 1719310, "image_id": 581857, "category_id": 1, "split": "train", "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "sentences": [sentence(0, "the lady with the blue shirt"), sentence(1, "lady w back to us")], **changes,
    }  # fmt: skip


@pytest.fixture
def refcoco(tmp_path: Path) -> Path:
    """The authors' download with a pickle made here, so that its rows can be read in this file."""
    shutil.copytree(GOLDEN / "refcoco", tmp_path / "refer")
    refs = [
        ref(),
        ref(ref_id=1, split="val"),
        ref(ref_id=2, ann_id=404),
        ref(ref_id=3, sentences=[]),
        "no reference",
        ref(ref_id=4, sentences=[sentence(7, "man"), {"sent_id": 8}]),
    ]
    with (tmp_path / "refer" / "refcoco" / "refs(unc).p").open("wb") as file:
        pickle.dump(refs, file, protocol=0)
    return tmp_path / "refer"


def test_refcoco_gives_one_row_for_each_expression(refcoco: Path) -> None:
    rows = read("refcoco", refcoco)
    assert rows[0] == RawRow(
        source_id="0-0",
        task="iou",
        question="the lady with the blue shirt",
        images=(
            RawImage(path="images/mscoco/images/train2014/COCO_train2014_000000581857.jpg", image_id="coco/581857"),
        ),
        boxes=(RawBox(values=(0.0, 79.19, 138.9, 320.58)),),
        box_form="xywh",
    )
    assert [(row.source_id, row.question) for row in good(rows)[1:]] == [("0-1", "lady w back to us")]
    assert bad(rows) == [
        ("refcoco-unc-train/2", "missing_field"),
        ("refcoco-unc-train/3", "missing_field"),
        ("refcoco-unc-train/4", "unreadable_row"),
        ("refcoco-unc-train/5", "missing_field"),
    ]


def test_refcoco_can_take_first_expressions_alone(refcoco: Path) -> None:
    assert [row.source_id for row in good(read("refcoco", refcoco, expressions="first"))] == ["0-0", "4-7"]
    assert [row.source_id for row in good(read("refcoco", refcoco, split="val"))] == ["1-0", "1-1"]


def test_a_pickle_that_names_a_class_is_refused_and_nothing_of_it_runs(refcoco: Path) -> None:
    class Opener:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (refcoco / "ran",)

    for content in ([Opener()], [{"bbox": Decimal(1)}]):
        (refcoco / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"only plain containers, texts and numbers are loaded"):
            read("refcoco", refcoco)
    assert not (refcoco / "ran").exists()


def test_a_broken_pickle_is_named(refcoco: Path) -> None:
    (refcoco / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([ref()])[:50])
    with pytest.raises(DataError, match=r"refs\(unc\).p is no readable pickle .* download it again"):
        read("refcoco", refcoco)


def test_refcoco_says_which_of_its_files_is_missing(refcoco: Path) -> None:
    with pytest.raises(DataError, match=r"holds no refcocog/refs\(umd\).p; expected layout: <dataset>/refs"):
        read("refcoco", refcoco, dataset="refcocog", split_by="umd")
    with pytest.raises(ConfigError, match=r"did you mean refcoco"):
        read("refcoco", refcoco, dataset="refcoc")


def test_refcoco_tables_have_corner_boxes(tmp_path: Path) -> None:
    row = {
        "ref_id": 49996, "image_id": 110, "split": "train", "bbox": [230.0, 1.08, 640.0, 480.0],
        "image_path": "coco/train2014/COCO_train2014_000000000110.jpg", "captions": ["mom in blue shirt", "woman"],
        "sentences": [sentence(142199, "mom in blue shirt"), sentence(142201, "woman")],
        "file_name": "COCO_train2014_000000000110_6.jpg",
    }  # fmt: skip
    write_table(tmp_path / "data" / "train-0.parquet", [row, {**row, "bbox": None}])
    rows = read("refcoco_table", tmp_path)
    assert rows[0] == RawRow(
        source_id="49996-142199",
        task="iou",
        question="mom in blue shirt",
        images=(RawImage(path="coco/train2014/COCO_train2014_000000000110.jpg", image_id="coco/110"),),
        boxes=(RawBox(values=(230.0, 1.08, 640.0, 480.0)),),
        box_form="xyxy",
    )
    assert [row.source_id for row in good(rows)] == ["49996-142199", "49996-142201"]
    assert bad(rows) == [("data/train-0/1", "missing_field")]
    assert len(good(read("refcoco_table", tmp_path, expressions="first"))) == 1
    with pytest.raises(DataError, match=r"testB-\*.parquet"):
        read("refcoco_table", tmp_path, split="testB")


def test_refcoco_tables_of_lmms_have_expressions_as_answers_and_boxes_by_width(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "question_id": "49996", "image": cell(), "question": "Please carefully observe the area circled in the image.",
        "answer": ["mom in blue shirt", "woman"], "segmentation": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "iscrowd": 0,
        "bbox": [230.0, 1.5, 410.0, 478.5], "file_name": "COCO_train2014_000000000110_6.jpg",
    }  # fmt: skip
    rows = [row, {**row, "answer": []}, {**row, "bbox": None}, {**row, "image": None}, {**row, "question_id": None}]
    write_table(tmp_path / "data" / "testA-00000-of-00001.parquet", rows)
    found = read("refcoco_table", tmp_path, split="testA", role="guard")
    assert found[0] == RawRow(
        source_id="49996-0",
        task="iou",
        question="mom in blue shirt",
        images=(RawImage(data=PNG, image_id="coco/110"),),
        boxes=(RawBox(values=(230.0, 1.5, 410.0, 478.5)),),
        box_form="xywh",
    )
    assert [(row.source_id, row.question) for row in good(found)[1:]] == [("49996-1", "woman")]
    assert [reason for _, reason in bad(found)] == ["missing_field"] * 4
    first = good(read("refcoco_table", tmp_path, split="testA", role="guard", expressions="first"))
    assert [row.question for row in first] == ["mom in blue shirt"]


def test_detection_gives_a_row_for_each_category_of_an_image() -> None:
    rows = read("coco_detection", GOLDEN / "coco_detection", split="train2017")
    assert good(rows) == [
        RawRow(
            source_id="9-18",
            task="iou",
            question="every dog",
            images=(RawImage(path="train2017/000000000009.jpg", image_id="coco/9"),),
            boxes=(
                RawBox(values=(1.5, 2.0, 10.0, 12.25), label="dog"),
                RawBox(values=(20.0, 20.0, 5.0, 5.0), label="dog"),
            ),
            box_form="xywh",
        ),
        RawRow(
            source_id="25-18",
            task="iou",
            question="every dog",
            images=(RawImage(path="train2017/000000000025.jpg", image_id="coco/25"),),
            boxes=(RawBox(values=(1.0, 1.0, 2.0, 2.0), label="dog"),),
            box_form="xywh",
        ),
    ]
    assert bad(rows) == [
        ("annotations/instances_train2017/annotations/5", "missing_field"),
        ("25-1", "unreadable_row"),
    ]


def test_detection_by_image_joins_categories_and_rejects_incomplete_truth() -> None:
    rows = read(
        "coco_detection", GOLDEN / "coco_detection", split="train2017", rows="image", question="Find {category}"
    )
    assert [(row.source_id, row.question, len(row.boxes or ())) for row in good(rows)] == [("9", "Find dog", 2)]
    assert bad(rows)[1:] == [("25", "unreadable_row")]


def test_negatives_are_drawn_by_the_seed_from_what_is_not_there() -> None:
    options: dict[str, Any] = {"split": "train2017", "negatives": 2}
    rows = good(read("coco_detection", GOLDEN / "coco_detection", **options))
    assert rows == good(read("coco_detection", GOLDEN / "coco_detection", **options))
    # Image 9 has dogs and a crowd of persons, image 25 dogs and an unreadable person: only toothbrushes are absent.
    assert [(row.source_id, row.question, row.boxes, row.part) for row in rows if not row.boxes] == [
        ("9-no-90", "every toothbrush", (), "negative"),
        ("25-no-90", "every toothbrush", (), "negative"),
    ]


def test_another_seed_draws_other_negatives_for_each_image(tmp_path: Path) -> None:
    table = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(8)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 1, 2, 2], "iscrowd": 0}],
        "categories": [{"id": number, "name": f"thing {number}"} for number in range(20)],
    }
    (tmp_path / "own.json").write_text(json.dumps(table), encoding="utf-8")
    drawn = [
        [row.question for row in good(read("coco_detection", tmp_path, annotations="own.json", negatives=1, seed=seed))]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > 3


def test_categories_with_a_crowd_can_be_left_out(tmp_path: Path) -> None:
    table = json.loads((GOLDEN / "coco_detection" / "annotations" / "instances_train2017.json").read_text("utf-8"))
    table["annotations"].append({"id": 8, "image_id": 9, "category_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 0})
    (tmp_path / "own.json").write_text(json.dumps(table), encoding="utf-8")
    options: dict[str, Any] = {"annotations": "own.json", "images": "pictures", "image_ids": ""}
    kept = good(read("coco_detection", tmp_path, **options))
    assert [row.source_id for row in kept] == ["9-18", "9-1", "25-18"]
    assert kept[0].images == (RawImage(path="pictures/000000000009.jpg"),)
    left = read("coco_detection", tmp_path, crowds="leave_out", **options)
    assert [row.source_id for row in good(left)] == ["9-18", "25-18"]
    with pytest.raises(ConfigError, match=r"use a text with {category}"):
        read("coco_detection", tmp_path, question="every", **options)


def test_detection_without_annotations_says_what_is_expected() -> None:
    with pytest.raises(DataError, match=r"holds no annotations/instances_val2017.json; expected layout"):
        read("coco_detection", GOLDEN / "coco_detection", split="val2017")
