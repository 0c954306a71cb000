"""Whatever stands in a field: a row or a bad row, never an exception."""

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.settings.errors import ConfigError
from tests.unit.data.sources.reading import GOLDEN, cell, read, write_table

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 10**14, 10**15, -(10**15), 10**18, 0.5, -0.0, 3.0, 1e308, "", " ", "0", "3", "-1",
    "A", "\x00", "\ud800", "\u0663", "<image>", "../../etc/passwd", "/etc/passwd", "9" * 5000, "x" * 100_000,
    "[" * 3000,
    "['a'", "{}", [], {}, [[]], [None], [{}], [[1, 2], ["a"]], {"a": 1}, {"bytes": 3}, {"path": 4, "bytes": None},
    [1, 2, 3, 4], [True, 1, 2, 3], {"": None}, {"bbox": "x"},
)  # fmt: skip
UNJSON = (math.nan, math.inf, 10**40)
"""What a JSON parser may stop at; a row before stays, and reading ends without an exception."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TALK = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
SENTENCES = [{"sent_id": 1, "sent": "a man"}]
MAPPING = {
    "id": "id", "question": "q", "answer": "a.0", "options": "o", "images": "i", "image_id": "n", "task": "t",
    "answer_type": "y", "boxes": "b", "box_labels": "l", "box_form": "f", "box_frame": "g", "part": "p",
    "metadata": {"m": "m"},
}  # fmt: skip
MAPPED = {
    "id": 1, "q": "Which?", "a": ["A"], "o": ["a", "b"], "i": "a.png", "n": "coco/1", "t": "match_mcq", "y": "text",
    "b": [[1, 2, 3, 4]], "l": ["dog"], "f": "xyxy", "g": "pixel", "p": "x", "m": "y",
}  # fmt: skip

Write = Callable[[Path, list[Any]], None]


def text_file(name: str, form: Callable[[list[Any]], Any]) -> Write:
    def write(root: Path, rows: list[Any]) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(form(rows)), encoding="utf-8")

    return write


def lines(name: str) -> Write:
    def write(root: Path, rows: list[Any]) -> None:
        (root / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    return write


def several_files(form: str) -> Write:
    def write(root: Path, rows: list[Any]) -> None:
        for index, row in enumerate(rows):
            text_file(form.format(index), lambda some: some[0])(root, [row])
        (root / "ai2d_test_ids.csv").touch()

    return write


def pickled(root: Path, rows: list[Any]) -> None:
    folder = root / "refcoco"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(rows))
    source = GOLDEN / "refcoco" / "refcoco" / "instances.json"
    (folder / "instances.json").write_bytes(source.read_bytes())


def instances(root: Path, rows: list[Any]) -> None:
    """References stay as they are; the annotation is mutated."""
    ref = {"ref_id": 0, "ann_id": 5, "image_id": 6, "split": "train", "sentences": SENTENCES}
    pickled(root, [ref])
    image = {"id": 6, "file_name": "a.jpg"}
    text_file("refcoco/instances.json", lambda some: {"images": [image, *some], "annotations": some})(root, rows)


CASES: dict[str, tuple[str, Write, Any, dict[str, Any]]] = {
    "chartqa": ("chartqa", text_file("train/train_human.json", list), {"imgname": "a", "query": "q", "label": "1"}, {}),
    "plotqa": (
        "plotqa",
        text_file("train/qa_pairs.json", list),
        {"image_index": 1, "question_string": "q", "answer": 1.25, "template": "t", "type": "line"},
        {},
    ),
    "dvqa": (
        "dvqa",
        text_file("qa/train_qa.json", list),
        {"image": "a.png", "question": "q", "answer": "2", "question_id": 1, "template_id": "data"},
        {},
    ),
    "ai2d": (
        "ai2d",
        several_files("questions/{}.json"),
        {"imageName": "0.png", "questions": {"q": {"abcLabel": True, "answerTexts": ["a"], "correctAnswer": 0,
                                                   "questionId": "1"}}},
        {},
    ),
    "scienceqa": (
        "scienceqa",
        text_file("problems.json", lambda rows: {str(index): row for index, row in enumerate(rows)}),
        {"question": "q", "choices": ["a"], "answer": 0, "hint": "h", "image": "i", "split": "train", "grade": "1"},
        {"text_only": True},
    ),
    "aokvqa": (
        "aokvqa",
        text_file("aokvqa_v1p0_train.json", list),
        {"question_id": "a", "image_id": 1, "question": "q", "choices": ["a", "b"], "correct_choice_idx": 1},
        {},
    ),
    "clevr": (
        "clevr",
        text_file("questions/CLEVR_train_questions.json", lambda rows: {"info": {}, "questions": rows}),
        {"image_filename": "a.png", "question": "q", "answer": "yes", "question_family_index": 3},
        {},
    ),
    "tallyqa": (
        "tallyqa",
        text_file("train.json", list),
        {"image": "a", "answer": 1, "question": "q", "question_id": 1, "issimple": True, "data_source": "amt"},
        {},
    ),
    "geometry3k": (
        "geometry3k",
        several_files("train/{}/data.json"),
        {"problem_text": "q", "annotat_text": "q", "choices": ["1", "2"], "answer": "B"},
        {},
    ),
    "llava": ("llava", text_file("a.json", list), {"id": 1, "image": ["a"], "conversations": TALK},
              {"annotations": ["a.json"], "turns": "all", "strip_openings": True}),
    "sharegpt4v": ("sharegpt4v", text_file("a.json", list), {"id": 1, "image": "a", "conversations": TALK},
                   {"annotations": ["a.json"]}),
    "docci": ("docci", lines("docci_descriptions.jsonlines"),
              {"example_id": "a", "split": "train", "image_file": "a.jpg", "description": "d"}, {}),
    "refcoco": ("refcoco", pickled,
                {"ref_id": 0, "ann_id": 77, "image_id": 581857, "split": "train", "sentences": SENTENCES}, {}),
    "refcoco instances": ("refcoco", instances, {"id": 5, "file_name": "a.jpg", "bbox": [1, 2, 3, 4]}, {}),
    "coco annotations": (
        "coco_detection",
        text_file("annotations/instances_train.json", lambda rows: {
            "images": [{"id": 1, "file_name": "a"}], "annotations": rows,
            "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]}),
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"negatives": 1},
    ),
    "coco images and categories": (
        "coco_detection",
        text_file("annotations/instances_train.json", lambda rows: {
            "images": rows, "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            "categories": rows}),
        {"id": 1, "file_name": "a", "name": "dog"},
        {"negatives": 1, "rows": "image"},
    ),
    "jsonl": ("jsonl", lines("a.jsonl"), MAPPED, {"mapping": MAPPING}),
}  # fmt: skip
IMAGES = {f"image_{number}": None for number in range(2, 8)}
TABLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chartqa": ({"image": cell(), "query": "q", "label": ["1"], "human_or_machine": 0}, {}),
    "ai2d": ({"question": "q", "options": ["a", "b"], "answer": "1", "image": cell()}, {}),
    "scienceqa": ({"image": cell(), "question": "q", "choices": ["a"], "answer": 0, "hint": "", "grade": "1"}, {}),
    "geoqa": ({"image": cell(), "problem": "p", "solution": "<answer>1</answer>"}, {}),
    "clevr_cogent": ({"image": cell(), "problem": "p", "solution": "<answer>1</answer>"}, {}),
    "geometry3k": (
        {"images": [cell()], "problem": "p", "answer": "1", "id": 1, "choices": ["1", "2"], "ground_truth": "A"},
        {"form": "choices"},
    ),
    "mmmu": (
        {"id": "a", "question": "q", "options": "['a', 'b']", "image_1": cell(), "answer": "A", "subfield": "s",
         "question_type": "multiple-choice", **IMAGES},
        {},
    ),
    "refcoco_table": ({"ref_id": 1, "image_id": 2, "image_path": "a", "bbox": [1.0, 2.0, 3.0, 4.0],
                       "sentences": SENTENCES}, {}),
    "parquet": (MAPPED, {"mapping": MAPPING}),
    "huggingface": (MAPPED, {"mapping": MAPPING}),
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, the whole of it first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def mutated(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = new
    return value


def read_any(name: str, root: Path, **options: Any) -> list[RawRow | BadRow]:
    """Read rows; a file whose rows all lack a mapped field is refused before it is read."""
    try:
        return read(name, root, **options)
    except ConfigError as error:
        if "leads nowhere in the first" not in str(error):
            raise
        return []


def check(rows: list[RawRow | BadRow]) -> None:
    for row in rows:
        assert isinstance(row.source_id, str)
        if isinstance(row, BadRow):
            assert row.detail
            assert len(row.detail) < 1000
            continue
        texts = [row.task, row.question, row.answer, row.answer_type, row.part, *row.options, *row.metadata.values()]
        assert all(type(text) is str for text in texts)
        for image in row.images:
            assert (type(image.data) is bytes) != (type(image.path) is str)
        for box in row.boxes or ():
            assert type(box.label) is str
            assert all(type(number) is float for number in box.values)
    ids = [row.source_id for row in rows if isinstance(row, RawRow)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("case", CASES)
def test_hostile_values_in_any_field_never_raise(case: str, tmp_path: Path) -> None:
    name, write, base, options = CASES[case]
    rows = [mutated(base, path, value) for path in places(base) for value in HOSTILE]
    write(tmp_path, [base, *rows, base])
    found = read(name, tmp_path, **options)
    assert any(isinstance(row, RawRow) for row in found)
    check(found)


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_json_does_not_know_never_raise(case: str, tmp_path: Path) -> None:
    name, write, base, options = CASES[case]
    for index, (path, value) in enumerate((path, value) for path in places(base) for value in UNJSON):
        root = tmp_path / str(index)
        root.mkdir()
        write(root, [base, mutated(base, path, value)])
        check(read(name, root, **options))


@pytest.mark.parametrize("name", TABLES)
def test_columns_of_other_types_never_raise(name: str, tmp_path: Path) -> None:
    base, options = TABLES[name]
    num_read = 0
    for path in places(base):
        for value in (*HOSTILE, math.nan, b"\xff", b""):
            try:
                write_table(tmp_path / "train-0.parquet", [mutated(base, path, value)])
            except (pa.ArrowException, UnicodeEncodeError, OverflowError, AttributeError, TypeError):
                continue  # no table can hold that
            check(read_any(name, tmp_path, **options))
            num_read += 1
    assert num_read > 100


@pytest.mark.parametrize("case", ["chartqa", "refcoco", "coco annotations", "llava", "jsonl", "ai2d"])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_values_in_any_field_never_raise(case: str, data: st.DataObject, tmp_path: Path) -> None:
    name, write, base, options = CASES[case]
    path = data.draw(st.sampled_from(list(places(base))))
    write(tmp_path, [mutated(base, path, data.draw(JSON))])
    check(read_any(name, tmp_path, **options))
