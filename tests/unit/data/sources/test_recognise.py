"""Columns of a user's own rows, recognised in the forms of other trainers and public sets."""

import base64
import json
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.mapping import KEYS, build_mapping
from orchestration.data.sources.recognise import Recognised, recognise
from orchestration.data.sources.rows import RawRow
from orchestration.data.sources.streams import Record
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError
from tests.unit.data.sources.reading import PNG, cell

BASE64 = base64.b64encode(PNG).decode()
IMAGE = cell()
USER = [{"role": "user", "content": "<image>How many?"}]
HUMAN = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
PARTS = [{"type": "image"}, {"type": "text", "text": "How many?"}]
URL = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + BASE64}},
    {"type": "text", "text": "What?"},
]
ANY = {"by_answer": "any"}
DESCRIBE = {"constant": "Describe this image in detail."}
BOX = [1, 2, 30, 40]
FRAMES = {"real": "pixel", "norm1": "norm1", "norm1000": "norm1000"}


def found(
    *rows: dict[str, Any],
    columns: dict[str, Any] | None = None,
    name: str = "rows.jsonl",
    files: Sequence[str] = (),
    folders: Sequence[str] = ("",),
) -> Recognised:
    return recognise(rows, columns=columns or {}, name=name, folders=folders, has_file=lambda path: path in files)


def read(recognised: Recognised, row: dict[str, Any]) -> RawRow:
    mapping = build_mapping(recognised.mapping, recognised.answer_is, recognised.images)  # type: ignore[arg-type]
    return mapping.row(Record("0", row), "rows")


VERL = {
    "data_source": "hiyouga/geometry3k", "prompt": [{"role": "user", "content": "<image>Find x."}], "images": [IMAGE],
    "ability": "math", "reward_model": {"style": "rule", "ground_truth": "13"},
    "extra_info": {"split": "train", "index": 0, "answer": "13.0", "question": "Find x?"},
}  # fmt: skip
R1V = {"image": IMAGE, "problem": "How many?", "solution": "<answer> 3 </answer>"}
OPEN_R1 = {**R1V, "solution": "<think>half</think><answer> \\frac{1}{2} </answer>", "original_question": "Q",
           "original_answer": "A"}  # fmt: skip
EUREKA = [{"role": "user", "content": [{"type": "image", "image": "file:///d/1.jpg"}, PARTS[1]]}]
TSV = {"index": "1", "image": BASE64, "question": "Which?", "hint": "Look.", "A": "cat", "B": "dog", "C": "cow",
       "D": None, "answer": "B", "category": "x"}  # fmt: skip
VQA = {"question_id": 1, "image": IMAGE, "question": "Is it?", "answers": [{"answer": "yes", "answer_id": 1}] * 10,
       "multiple_choice_answer": "yes", "answer_type": "yes/no"}  # fmt: skip
DOCVQA = {"questionId": "1", "question": "What is the date?", "image": IMAGE, "answers": ["1 Jan", "1 January"]}
POPE = {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a dog?", "label": "yes"}
SCIENCE = {"image": IMAGE, "question": "Which?", "choices": ["a cat", "a dog"], "answer": 0, "hint": "H",
           "lecture": "L", "topic": "geography", "solution": "It purrs."}  # fmt: skip
AOKVQA = {"image": IMAGE, "question_id": "q", "question": "Which?", "choices": ["cat", "dog"], "correct_choice_idx": 0,
          "direct_answers": "['cat', 'kitten']"}  # fmt: skip
VISTA = {"pid": "1", "question": "What?", "image": "images/1.jpg", "decoded_image": IMAGE, "choices": ["big", "small"],
         "answer": "small"}  # fmt: skip
MMMU = {"id": "v", "question": "See <image 2>?", "options": "['a <image 2>', 'b']", "image_1": None, "image_2": IMAGE,
        "answer": "B", "explanation": "", "question_type": "multiple-choice"}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "question", "answer", "task", "options"),
    [
        (VERL, "Find x.", "13", "math", ()),
        ({"images": [IMAGE], "problem": "<image>Find x.", "answer": "\\sqrt{3}"}, "Find x.", "\\sqrt{3}", "math", ()),
        (R1V, "How many?", "3", "counting", ()),
        (OPEN_R1, "How many?", "\\frac{1}{2}", "math", ()),
        ({"messages": USER, "images": ["1.jpg"], "solution": "<answer> 3 </answer>"}, "How many?", "3", "counting", ()),
        ({"prompt": [{"role": "user", "content": PARTS}], "image": IMAGE, "answer": "2"}, "How many?", "2",
         "counting", ()),
        ({"id": "0", "message": json.dumps(EUREKA), "answer": "1"}, "\ufffcHow many?".lstrip("\ufffc"), "1",
         "counting", ()),
        (TSV, "Look.\nWhich?", "B", "match_mcq", ("cat", "dog", "cow")),
        ({**TSV, "hint": "", "answer": "cow"}, "Which?", "cow", "match_mcq", ("cat", "dog", "cow")),
        (VQA, "Is it?", "yes", "match_yesno", ()),
        (DOCVQA, "What is the date?", '["1 Jan", "1 January"]', "match_text", ()),
        (POPE, "Is there a dog?", "yes", "match_yesno", ()),
        (SCIENCE, "H\nWhich?", "A", "match_mcq", ("a cat", "a dog")),
        (AOKVQA, "Which?", "A", "match_mcq", ("cat", "dog")),
        ({**AOKVQA, "choices": None, "correct_choice_idx": None}, "Which?", '["cat", "kitten"]', "match_text", ()),
        (VISTA, "What?", "small", "match_mcq", ("big", "small")),
        ({**VISTA, "choices": None, "answer": "2.5"}, "What?", "2.5", "math", ()),
        (MMMU, "See image 1?", "B", "match_mcq", ("a image 1", "b")),
        ({"__key__": "1", "jpg": PNG, "json": {"question": "How many?", "answer": 3}}, "How many?", "3",
         "counting", ()),
        ({"__key__": "1", "png": PNG, "txt": "a dog runs"}, DESCRIBE["constant"], "a dog runs", "open", ()),
        ({"__key__": "1", "jpg": PNG, "json": {"problem": "A dog?"}, "cls": "no"}, "A dog?", "no", "match_yesno", ()),
        ({"question": "What is 3 + 4?", "answer": "3 + 4 = 7\n#### 7"}, "What is 3 + 4?", "7", "math", ()),
        ({"imgname": "1.png", "query": "The max?", "label": ["0.72"]}, "The max?", "0.72", "math", ()),
        ({"image": "1.jpg", "caption": ["A dog.", "A cat."]}, DESCRIBE["constant"], "A dog.", "open", ()),
        ({"instruction": "Answer.", "input": "A dog?", "output": "yes"}, "Answer.\nA dog?", "yes", "match_yesno", ()),
        ({"instruction": "A dog?", "input": "", "output": "yes"}, "A dog?", "yes", "match_yesno", ()),
        ({"image": IMAGE, "question": "Which?\nA. cat\nB. dog", "answer": "B"}, "Which?", "B", "match_mcq",
         ("cat", "dog")),
        ({"q": "How many dogs?", "answer": 2, "img": "x.png"}, "How many dogs?", "2", "counting", ()),
        ({"q": "How many?", "a": "two", "image": "data:image/jpeg;base64,/9j/"}, "How many?", "two", "counting", ()),
        ({"question": "Which word is it?", "answer": "eight"}, "Which word is it?", "eight", "match_text", ()),
        ({"question": "Which?", "option_a": "cat", "option_b": "dog", "correctAnswer": "b"}, "Which?", "B",
         "match_mcq", ("cat", "dog")),
        ({"question": "Which?", "choices": {"label": ["A", "B"], "text": ["cat", "dog"]}, "answerKey": "B"},
         "Which?", "B", "match_mcq", ("cat", "dog")),
    ],
)  # fmt: skip
def test_rows_of_public_forms_are_read(
    row: dict[str, Any], question: str, answer: str, task: str, options: tuple[str, ...]
) -> None:
    made = read(found(row), row)
    assert (made.question, made.answer, made.task, made.options) == (question, answer, task, options)


GROUNDING = {
    "messages": [{"role": "user", "content": "<image>Find the <ref-object>"},
                 {"role": "assistant", "content": "<bbox>"}],
    "images": ["1.jpg"],
    "objects": {"ref": ["cup"], "bbox": [[1, 2, 300, 400]], "bbox_type": "norm1000", "image_id": [0]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "question", "expected"),
    [
        (GROUNDING, "Find the cup", ("iou", "xyxy", "norm1000")),
        ({**GROUNDING, "objects": {"ref": ["cup"], "bbox": [[0.1, 0.2, 0.3, 0.4]]}}, "Find the cup",
         ("iou", "xyxy", "norm1")),
        ({"image": "1.jpg", "bbox": BOX, "sentence": "the cup"}, "Give the bounding box of: the cup",
         ("iou", "xyxy", "pixel")),
        ({"image": "1.jpg", "bbox": [90, 80, 30, 40], "sentences": [{"raw": "the cup"}]},
         "Give the bounding box of: the cup", ("iou", "xywh", "pixel")),
        ({"image": "1.jpg", "problem": "Where is it?", "solution": BOX}, "Where is it?", ("iou", "xyxy", "pixel")),
        ({"image": "1.jpg", "problem": "Where is it?", "solution": "<answer>[[1, 2, 30, 40]]</answer>"}, "Where is it?",
         ("iou", "xyxy", "pixel")),
        ({"img_filename": "1.png", "instruction": "close it", "bbox": [10, 20, 5, 6], "data_type": "icon"}, "close it",
         ("pointing", "xywh", "pixel")),
        ({"image": IMAGE, "instruction": "close it", "bbox": [0.1, 0.2, 0.3, 0.4]}, "close it",
         ("pointing", "xyxy", "norm1")),
    ],
)  # fmt: skip
def test_boxes_are_read_with_their_form_and_frame(row: dict[str, Any], question: str, expected: Any) -> None:
    made = read(found(row), row)
    assert made.boxes
    assert made.question == question
    assert (made.task, made.box_form, made.box_frame) == expected


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"id": "0", "image": "1.jpg", "conversations": HUMAN}, "conversations", "conversations"),
        ({"messages": [{"role": "user", "content": URL}, {"role": "assistant", "content": "A dog."}]}, "messages",
         "messages"),
        ({"messages": [*USER, {"role": "assistant", "content": "3"}], "images": ["1.jpg"]}, "messages", "messages"),
        ({"prompt": USER, "completion": [{"role": "assistant", "content": "3"}], "images": [IMAGE]}, "prompt",
         "completion"),
        ({"messages": [*USER, {"role": "assistant", "content": "so 3"}], "solution": "3"}, "messages", "solution"),
    ],
)  # fmt: skip
def test_conversations_ask_and_the_reply_answers_where_nothing_else_does(
    row: dict[str, Any], question: str, answer: str
) -> None:
    mapping = found(row).mapping
    assert (mapping["question"], mapping["answer"], mapping["task"]) == (question, answer, ANY)


def test_system_and_history_are_mapped() -> None:
    row = {"instruction": "A dog?", "output": "yes", "system": "Be kind.", "history": [["a", "b"]]}
    mapping = found(row, {**row, "system": None, "history": []}).mapping
    assert (mapping["system"], mapping["history"]) == ("system?", "history?")


@pytest.mark.parametrize(
    ("answers", "options", "answer_is", "doubts"),
    [
        ([0, 1, 2], ["a1", "b", "c"], "index", False),
        ([1, 2, 3], ["a1", "b", "c"], "index1", False),
        (["0", "2"], ["a1", "b", "c"], "index", False),
        ([1, 2], ["a1", "b", "c"], "index", True),
        (["A", "2"], ["a1", "b", "c"], "any", False),
        (["3", "5"], ["3", "4", "5"], "any", False),
        ([2, 1], ["1", "2", "3"], "any", True),
        ([7, 9], ["a1", "b"], "any", True),
    ],
)
def test_numbers_that_answer_are_positions_or_texts(
    answers: list[Any], options: list[str], answer_is: str, doubts: bool
) -> None:
    recognised = found(*({"question": "Which?", "options": options, "answer": answer} for answer in answers))
    assert recognised.answer_is == answer_is
    assert any(sentence.startswith("answers ") for sentence in recognised.uncertain) == doubts


@pytest.mark.parametrize(
    ("row", "files", "images", "mapping"),
    [
        ({"image": "1.jpg"}, ["1.jpg"], "", "image"),
        ({"image": "1.jpg"}, ["pictures/1.jpg"], "pictures", "image"),
        ({"image": ["a/1.jpg", "a/2.jpg"]}, ["pictures/a/1.jpg", "pictures/a/2.jpg"], "pictures", "image"),
        ({"image": {"bytes": None, "path": "1.jpg"}}, ["pictures/1.jpg"], "pictures", "image"),
        ({"image": "/d/1.jpg"}, [], "", "image"),
        ({"image": IMAGE}, [], "", "image"),
        ({"image_id": 9}, ["pictures/000000000009.jpg"], "pictures", {"format": "{image_id:012d}.jpg"}),
        ({"image_id": "ab3"}, ["pictures/ab3.jpg"], "pictures", {"format": "{image_id}.jpg"}),
    ],
)
def test_the_folder_of_pictures_is_found_by_what_is_in_it(
    row: dict[str, Any], files: list[str], images: str, mapping: Any
) -> None:
    recognised = found({"question": "A dog?", "answer": "no", **row}, files=files, folders=("", "pictures"))
    assert (recognised.images, recognised.mapping["images"]) == (images, mapping)
    assert not any("picture" in sentence for sentence in recognised.uncertain)


def test_pictures_that_are_nowhere_are_said() -> None:
    row = {"question": "A dog?", "answer": "no", "image": "1.jpg"}
    (sentence,) = found(row, folders=("", "pictures")).uncertain
    assert "'1.jpg'" in sentence
    assert "data.columns.images_from=FOLDER" in sentence
    set_ = found(row, columns={"images_from": "elsewhere"})
    assert (set_.images, set_.uncertain) == ("elsewhere", ())


def test_what_the_user_sets_holds() -> None:
    row = {"question": "A dog?", "asked": "How many?", "answer": "no", "count": 3, "a.b": "x"}
    columns = {"question": "asked", "answer": "count", "task": {"constant": "chart"}, "answer_is": "integer"}
    recognised = found(row, columns=columns)
    assert recognised.mapping == {"question": "asked", "answer": "count", "task": {"constant": "chart"}}
    assert recognised.answer_is == "integer"
    assert recognised.reasons == {"question": "set", "answer": "set", "task": "set"}
    assert found(row, columns={"answer": "a.b"}).mapping["answer"] == ["a.b"]
    assert found(row, columns={"task": "counting"}).mapping["task"] == {"constant": "counting"}


def test_forms_and_frames_of_boxes_are_set_as_words() -> None:
    row = {"question": "The cat", "boxes": [[10, 20, 30, 40]], "image": IMAGE}
    by_word = found(row, columns={"box_form": "xywh", "box_frame": "norm1000"})
    assert (by_word.mapping["box_form"], by_word.mapping["box_frame"]) == (
        {"constant": "xywh"},
        {"constant": "norm1000"},
    )
    assert by_word.uncertain == ()
    by_column = found({**row, "xywh": "xyxy"}, columns={"box_form": "xywh"})
    assert by_column.mapping["box_form"] == "xywh"
    (form, frame) = reversed(found(row).uncertain)
    assert "data.columns.box_form=xywh where" in form
    assert "data.columns.box_frame=norm1000 where" in frame


def test_steps_to_a_field_within_another_are_no_list_of_columns() -> None:
    row = {"question": "A dog?", "meta": {"answer": "no"}, "answer": "yes"}
    assert found(row, columns={"answer": ["meta", "answer"]}).mapping["answer"] == ["meta", "answer"]


@pytest.mark.parametrize(
    "row", [{"image": IMAGE, "caption": "A dog on a mat."}, {"image": IMAGE, "phrase": "a dog", "bbox": [1, 2, 30, 40]}]
)
def test_the_setting_that_a_note_names_can_be_typed_as_it_stands(row: dict[str, Any]) -> None:
    (setting,) = [part for note in found(row).uncertain for part in re.findall(r"'(data\.columns\..*})'$", note)]
    columns = compose([setting])["data"]["columns"]
    assert found(row, columns=columns).mapping["question"] == columns["question"]


def test_reasons_say_why_a_column_is_taken() -> None:
    assert found(VERL).reasons == {
        "images": "named so",
        "question": "a list of turns",
        "answer": "named so",
        "hint": "names a kind of task in 1 of the first rows",
        "task": "by the answer of each row",
    }


def test_the_file_s_name_is_a_hint_where_no_column_is() -> None:
    row = {"question": "The max?", "answer": "0.72"}
    recognised = found(row, name="/data/ChartQA/train.jsonl")
    assert recognised.mapping["hint"] == {"constant": "ChartQA/train.jsonl"}
    assert (read(recognised, row).task, recognised.uncertain) == ("chart", ())
    (doubt,) = found(row, row, name="/data/mine/train.jsonl").uncertain
    assert doubt == "2 of 2 rows: a number, taken as math; data.columns.task=chart, or another task"


def test_optional_columns_are_marked_and_ids_repeat_nowhere() -> None:
    rows = [{"id": 1, "question": "A dog?", "answer": "no", "image": IMAGE},
            {"id": 1, "question": "A dog?", "answer": "no", "image": None}]  # fmt: skip
    assert found(*rows).mapping == {"images": "image?", "question": "question", "answer": "answer", "task": ANY}
    assert found({**rows[0], "id": 2}, rows[1]).mapping["id"] == "id?"


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        ({"foo": "x", "image": IMAGE}, {}, ["no column is known as the question", "data.columns.question=COLUMN"]),
        ({"question": "A dog?", "awnser": {"x": 1}}, {}, ["as the answer or as boxes", "data.columns.answer=awnser",
                                                         "data.columns.boxes=COLUMN"]),
        ({"qestion": "Is it", "answer": "a", "image": PNG * 9}, {}, ["data.columns.question=qestion", "qestion: 'Is",
                                                                  f"image: {len(PNG) * 9} bytes"]),
        ({"foo": "x" * 99, "image": IMAGE}, {}, ["(99 chars)", f"image: an image of {len(PNG)} bytes"]),
        ({"foo": [1, 2], "image": BASE64}, {}, ["foo: a list of 2: 1, ...", f"image: base64 of {len(BASE64)}"]),
        ({"question": "?", "answer": "a"}, {"question": "qestion"}, ["no row has such a column", "mean question?"]),
        ({"question": "?", "answer": "a"}, {"awnser": "a"}, ["data.columns.awnser is not a setting", "answer?"]),
        ({"question": "?", "answer": "a"}, {"answer_is": "indx"}, ["is 'indx'; it is one of text, single, integer"]),
        ({"question": "?", "answer": "a", "left": IMAGE, "right": IMAGE}, {"images": ["left", "right"]},
         ["'data.columns.images={columns: [left, right]}'"]),
        ({"project": 1, "data": {"image": "1.png"}, "meta": {}}, {}, ["question=COLUMN", "an empty object"]),
        ({"question": "?", "answer": float("nan")}, {}, ["the column answer has no value in the first 1 rows"]),
        ({"messages": USER}, {}, ["as the answer or as boxes", "messages: a list of 1: an object with role, content"]),
    ],
)  # fmt: skip
def test_rows_that_are_not_recognised_are_shown_with_the_keys_to_set(
    row: dict[str, Any], columns: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        found(row, columns=columns)
    assert [word for word in words if word not in str(caught.value)] == []


def test_answers_win_over_boxes_that_only_illustrate_them() -> None:
    row = {"image": IMAGE, "question": "What is it?", "answer": "a cup", "bboxes": [BOX]}
    recognised = found(row)
    assert recognised.mapping["answer"] == "answer"
    assert "boxes" not in recognised.mapping
    assert recognised.uncertain == (
        "bboxes is not read, as answer is the answer; data.columns.boxes=bboxes asks for boxes",
    )


NAMES = (
    "question", "prompt", "messages", "answer", "answers", "solution", "options", "A", "B", "image", "images",
    "image_1", "image_2", "image_id", "bbox", "objects", "hint", "text", "caption", "label", "id", "task",
    "history", "json", "q?", "instruction", "input", "correct_choice_idx", "sentence", "option_a",
    "option_b", "{x}", "a.b",
)  # fmt: skip
KEYS_INSIDE = ("bytes", "path", "label", "text", "role", "content", "bbox", "ref", "image_id", "bbox_type", "A", "B")
PLAIN: tuple[Any, ...] = (
    None, "", float("nan"), float("inf"), True, 3, 0.5, 10**30, "How many?", "['a', 'b']", "[1,2,3,4]", "A. x\nB. y",
    "\\boxed{3", "<answer>", PNG, IMAGE, USER, HUMAN, json.dumps(EUREKA), BOX, [], {},
)  # fmt: skip


def anything(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(4) if depth < 2 else 0
    if kind == 1:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 2:
        return {draw.choice(KEYS_INSIDE): anything(draw, depth + 1) for _ in range(draw.randrange(4))}
    return draw.choice(PLAIN)


@pytest.mark.parametrize("seed", range(8))
def test_rows_of_any_content_are_recognised_or_refused_in_words(seed: int) -> None:
    draw = random.Random(seed)
    num_recognised = 0
    for _ in range(150):
        names = draw.sample(NAMES, draw.randrange(1, 8))
        rows = [{name: anything(draw) for name in names if draw.random() < 0.9} for _ in range(3)]
        try:
            recognised = found(*rows, folders=("", "pictures"), files=["1.jpg"])
        except ConfigError:
            continue
        num_recognised += 1
        known = {key: value for key, value in recognised.mapping.items() if key in KEYS}
        mapping = build_mapping(known, recognised.answer_is, recognised.images)  # type: ignore[arg-type]
        for row in rows:
            with suppress(RowError):
                mapping.row(Record("0", row), "rows")
    assert num_recognised
