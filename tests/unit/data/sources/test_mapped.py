"""Sources read by a mapping: JSON, Parquet, and folders of the datasets library."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestration.data.sources.rows import BadRow, RawBox, RawImage, RawRow
from orchestration.settings.errors import ConfigError, DataError
from tests.unit.data.sources.reading import GOLDEN, PNG, bad, cell, good, read, write_table

CHOICES = {
    "id": "name", "question": "prompt", "answer": "meta.gold", "options": "choices", "images": "file", "task": "kind",
    "part": {"constant": "own"}, "metadata": {"kind": "kind", "version": {"constant": 2}},
}  # fmt: skip
SHORT = {"question": "q", "answer": "a", "task": {"constant": "chart"}}


def test_a_mapping_reads_fields_and_constants() -> None:
    rows = read("jsonl", GOLDEN / "jsonl", mapping=CHOICES, answer_is="index", images="pictures")
    assert rows[0] == RawRow(
        source_id="a",
        task="match_mcq",
        question="Which animal?",
        options=("dog", "cat"),
        answer="B",
        images=(RawImage(path="pictures/0.png"),),
        part="own",
        metadata={"kind": "match_mcq", "version": "2"},
    )
    last = good(rows)[1]
    assert (last.source_id, last.options, last.images[0].path) == ("c", ("dog", "cat"), "pictures/../0.png")
    assert bad(rows) == [("rows/2", "missing_field"), ("rows.jsonl/3", "unreadable_row")]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({**SHORT, "awnser": "a"}, "options.mapping.awnser is not a setting; did you mean options.mapping.answer"),
        ({"question": "q", "answer": "a"}, "options.mapping.task is missing"),
        ({"question": "q", "task": "t"}, "options.mapping.answer or boxes is missing"),
        ({**SHORT, "id": None}, "options.mapping.id is None; write a field path"),
        ({**SHORT, "id": {"constnt": 1}}, "options.mapping.id is {'constnt': 1}; write a field path"),
        ({**SHORT, "box_form": {"constant": "yxyx"}}, "options.mapping.box_form is 'yxyx'; allowed: xyxy, xywh"),
        ({**SHORT, "metadata": "a"}, "options.mapping.metadata must be a mapping"),
        ({**SHORT, "task": {"by_answer": "word"}}, "options.mapping.task.by_answer is 'word'; allowed: chart, plot"),
        ({**SHORT, "images": {"format": "{name"}}, "options.mapping.images.format is '{name': expected '}'"),
        ({**SHORT, "part": {"first": "a"}}, "options.mapping.part is {'first': 'a'}; write a field path"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_explained(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", r"\{")):
        read("jsonl", GOLDEN / "jsonl", mapping=mapping)


def test_values_are_looked_up_put_into_texts_and_taken_from_the_first_field_that_is_there(tmp_path: Path) -> None:
    rows = [
        {"q": "How many?", "a": None, "b": " <answer> 3 </answer>", "number": 7, "file": "x/1.png", "easy": True},
        {"q": "Is it?", "a": "yes", "number": "8", "file": "2.png", "easy": 1},
        {"q": "Is it?", "number": "8", "file": "2.png"},
        {"q": "Is it?", "a": "yes", "number": "eight", "file": "2.png"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    mapping = {
        "question": "q", "answer": {"first": ["a", "b"]}, "task": {"by_answer": "short"},
        "images": {"format": "{file:stem}-{number:03d}.png"}, "part": {"field": "easy", "values": {True: "easy"}},
    }  # fmt: skip
    found = read("jsonl", tmp_path, mapping=mapping, answer_is="tagged")
    assert [(row.task, row.answer, row.answer_type, row.images[0].path, row.part) for row in good(found)] == [
        ("chart", "3", "number", "1-007.png", "easy"),
        ("match_yesno", "yes", "", "2-008.png", ""),
    ]
    assert [row.detail for row in found if isinstance(row, BadRow)] == [
        "a or b is missing",
        "number is 'eight'; it should be a whole number",
    ]


def test_json_arrays_and_patterns_by_split_are_read(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "b.json").write_text('[{"q": "Sum?", "a": 3.0}, {"q": "Sum?", "a": [1, 2]}]', encoding="utf-8")
    rows = read("jsonl", tmp_path, split="val", files=["{split}/*.json"], mapping=SHORT)
    assert [(row.source_id, row.answer) for row in good(rows)] == [("val/b/0", "3"), ("val/b/1", '["1", "2"]')]
    with pytest.raises(DataError, match=r"holds no train/\*.json"):
        read("jsonl", tmp_path, files=["{split}/*.json"], mapping=SHORT)


def test_boxes_come_in_lists_objects_and_columns(tmp_path: Path) -> None:
    rows = [
        {"q": "dog", "b": [1, 2, 3, 4]},
        {"q": "dog", "b": [[1, 2, 3, 4], [5, 6, 7, 8]], "l": ["dog", "cat"]},
        {"q": "dog", "b": [{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]},
        {"q": "dog", "b": []},
        {"q": "dog", "b": None},
        {"q": "dog", "b": [["1", 2, 3, 4]]},
        {"q": "dog", "b": [[1, 2, 3, 4]], "l": ["dog", "cat"]},
        {"q": "dog", "b": [1, 2, 3, float("nan")]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    mapping = {
        "question": "q", "task": {"constant": "iou"}, "boxes": "b", "box_labels": "l",
        "box_form": {"constant": "xywh"}, "box_frame": {"constant": "norm1000"},
    }  # fmt: skip
    read_rows = read("jsonl", tmp_path, mapping=mapping)
    one, two, three, none, nan = good(read_rows)
    assert (one.boxes, one.box_form, one.box_frame) == ((RawBox(values=(1.0, 2.0, 3.0, 4.0)),), "xywh", "norm1000")
    assert [box.label for box in two.boxes or ()] == ["dog", "cat"]
    assert three.boxes == (RawBox(values=(1.0, 2.0, 3.0, 4.0), label="dog"),)
    assert none.boxes == ()
    assert str(nan.boxes).count("nan") == 1
    assert [reason for _, reason in bad(read_rows)] == ["missing_field", "unreadable_row", "unreadable_row"]


def test_a_constant_is_never_a_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "Which?", "a": "x", "chart": "iou"}', encoding="utf-8")
    assert good(read("jsonl", tmp_path, mapping=SHORT))[0].task == "chart"
    assert good(read("jsonl", tmp_path, mapping={**SHORT, "task": "chart"}))[0].task == "iou"


def test_options_by_text_become_letters_and_names_with_dots_are_lists(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q.text": "Which?", "a": "cat", "o": ["dog", "cat"]}', encoding="utf-8")
    mapping = {"question": ["q.text"], "answer": "a", "options": "o", "task": {"constant": "match_mcq"}}
    assert good(read("jsonl", tmp_path, mapping=mapping, answer_is="option"))[0].answer == "B"


def test_parquet_cells_hold_one_image_or_several(tmp_path: Path) -> None:
    write_table(
        tmp_path / "a.parquet",
        [
            {"q": "<image>How many?", "a": "1", "i": [cell(), cell(None, "train2014/COCO_train2014_000000000009.jpg")]},
            {"q": "How many?", "a": "1", "i": []},
            {"q": "How many?", "a": "1", "i": [cell(None, None)]},
        ],
    )
    rows = read("parquet", tmp_path, mapping={**SHORT, "images": "i"}, remove_markers=False)
    assert good(rows)[0].question == "<image>How many?"
    assert good(rows)[0].images == (
        RawImage(data=PNG),
        RawImage(path="train2014/COCO_train2014_000000000009.jpg", image_id="coco/9"),
    )
    assert [reason for _, reason in bad(rows)] == ["missing_field", "missing_field"]
    with pytest.raises(DataError, match=r"holds no \*.parquet"):
        read("parquet", tmp_path / "b", mapping=SHORT)


def save_to_disk(folder: Path, rows: list[dict[str, Any]], num_files: int = 1) -> None:
    """Write what Dataset.save_to_disk writes: Arrow stream files and two JSON files."""
    folder.mkdir(parents=True)
    names = [f"data-{index:05d}-of-{num_files:05d}.arrow" for index in range(num_files)]
    for index, name in enumerate(names):
        table = pa.Table.from_pylist(rows[index::num_files])
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text('{"features": {}}', encoding="utf-8")


def test_saved_datasets_are_read_in_the_order_of_their_files(tmp_path: Path) -> None:
    mapping = {**SHORT, "images": "image"}
    rows = [{"q": f"Question {index}?", "a": str(index), "image": cell()} for index in range(40)]
    save_to_disk(tmp_path / "one", rows, num_files=2)
    found = good(read("huggingface", tmp_path / "one", mapping=mapping))
    assert [row.answer for row in found] == [str(index) for index in (*range(0, 40, 2), *range(1, 40, 2))]
    assert (found[0].source_id, found[0].images) == ("data-00000-of-00002/0", (RawImage(data=PNG),))


def test_saved_splits_and_hub_tables_are_found(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "dict" / "train", [{"q": "a?", "a": "1"}])
    save_to_disk(tmp_path / "dict" / "test", [{"q": "b?", "a": "2"}, {"q": None, "a": "2"}])
    rows = read("huggingface", tmp_path / "dict", split="test", mapping=SHORT)
    assert [row.source_id for row in good(rows)] == ["test/data-00000-of-00001/0"]
    assert bad(rows) == [("test/data-00000-of-00001/1", "missing_field")]
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "default/train/0000", "data/test-0"):
        write_table(tmp_path / "hub" / f"{name}.parquet", [{"q": "c?", "a": "3"}])
    assert [row.source_id for row in good(read("huggingface", tmp_path / "hub", mapping=SHORT))] == [
        "data/train-00000-of-00002/0",
        "data/train-00001-of-00002/0",
        "default/train/0000/0",
    ]


def test_a_folder_that_is_no_dataset_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train-\*.parquet and no state.json; expected layout"):
        read("huggingface", tmp_path, mapping=SHORT)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data-0.arrow"}]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no data-0.arrow"):
        read("huggingface", tmp_path, mapping=SHORT)
    (tmp_path / "state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"names no data files"):
        read("huggingface", tmp_path, mapping=SHORT)


def test_rows_without_the_optional_id_have_a_running_number(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "q": "How many?", "a": "1"}, {"q": "How many?", "a": "2"}, {"id": None, "q": "How many?", "a": "3"},
        {"id": float("nan"), "q": "How many?", "a": "4"}, {"id": "a", "q": "How many?", "a": "5"},
        {"id": 0, "q": "How many?", "a": "6"}, {"id": [1], "q": "How many?", "a": "7"},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = {"id": "id?", "question": "q", "answer": "a", "task": {"constant": "chart"}}
    found = read("jsonl", tmp_path, mapping=mapping)
    assert [(row.source_id, row.answer) for row in good(found)] == [
        ("a", "1"), ("rows/2", "2"), ("rows/3", "3"), ("rows/4", "4"), ("a#2", "5"), ("0", "6"),
    ]  # fmt: skip
    assert bad(found) == [("rows/7", "unreadable_row")]
    required = read("jsonl", tmp_path, mapping={**mapping, "id": "id"})
    assert bad(required)[:3] == [(f"rows/{number}", "missing_field") for number in (2, 3, 4)]
