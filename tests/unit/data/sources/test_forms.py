"""Rows in the forms of other trainers: turns, content parts, markers, tags, labels, base64, and NaN."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.rows import RawImage
from tests.unit.data.sources.reading import PNG, bad, good, read

CHART = {"answer": "a", "images": "images?", "task": {"constant": "chart"}}
CHOICE = {"question": "q", "answer": "a", "options": "options", "task": {"constant": "match_mcq"}}
IMAGE, OTHER = RawImage(path="1.png"), RawImage(path="2.png")
PICTURE = RawImage(data=PNG)
BASE64 = base64.b64encode(PNG).decode()
TEXT = {"type": "text", "text": "How many?"}


def rows_of(folder: Path, mapping: dict[str, Any], *rows: dict[str, Any], **options: Any) -> list[Any]:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return read("jsonl", folder, mapping=mapping, **options)


HUMAN = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "2"}]
FILE = {"type": "image", "image": "file://2.png"}
URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + BASE64}}
SOURCE = {"type": "image", "source": {"type": "base64", "data": BASE64}}


def asked(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("turns", "images", "question", "expected"),
    [
        (asked("<image>How many?"), ["1.png"], "How many?", (IMAGE,)),
        ([{"role": "system", "content": "Hi."}, *asked("See: <image>")], ["1.png"], "See: \ufffc", (IMAGE,)),
        (HUMAN, ["1.png"], "How many?", (IMAGE,)),
        (asked([{"type": "image"}, TEXT]), ["1.png"], "How many?", (IMAGE,)),
        (asked([TEXT, FILE]), [], "How many?\ufffc", (OTHER,)),
        (asked([URL, TEXT]), None, "How many?", (PICTURE,)),
        (asked([SOURCE, TEXT]), None, "How many?", (PICTURE,)),
    ],
)
@pytest.mark.parametrize("is_json", [False, True])
def test_the_user_s_turn_asks(
    turns: Any, images: Any, question: str, expected: Any, is_json: bool, tmp_path: Path
) -> None:
    row = {"messages": json.dumps(turns) if is_json else turns, "images": images, "a": "2"}
    (found,) = rows_of(tmp_path, {**CHART, "question": "messages"}, row)
    assert (found.question, found.images) == (question, expected)


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([{"role": "system", "content": "x"}], "0 turns of the user"),
        ([{"role": "assistant", "content": "x"}], "0 turns of the user"),
        ([{"role": "assistant", "content": "x"}, *asked("y")], "begins with the assistant"),
        ([*asked("y"), {"role": "system", "content": "x"}, *asked("z")], "a system turn behind others"),
        ([*asked("y"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, *asked("z")], "tool_calls"),
        ([{"from": "function_call", "value": "x"}, *asked("y")], "a turn of role 'function_call'"),
        ([{"role": "tool", "content": "x"}, *asked("y")], "a turn of role 'tool'"),
        (asked([{"type": "video"}]), "a part of type 'video'"),
        (asked(3), "content is 3"),
    ],
)
def test_turns_that_ask_no_one_question_are_refused(turns: Any, words: str, tmp_path: Path) -> None:
    (found,) = rows_of(tmp_path, {**CHART, "question": "messages"}, {"messages": turns, "a": "2"})
    assert found.reason.value == "unreadable_row"
    assert words in found.detail


def test_a_path_to_one_turn_takes_its_images_and_never_a_system_turn(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "<image>Who are they?"},
        {"role": "assistant", "content": "Two players."},
        {"role": "user", "content": "What are they doing?<image>"},
    ]
    row = {"messages": turns, "images": ["1.png", "2.png"], "a": "2"}
    found = [
        rows_of(tmp_path, {**CHART, "question": f"messages.{number}.content"}, row)[0] for number in range(len(turns))
    ]
    assert [(row.question, row.images) for row in found[::2]] == [
        ("Who are they?", (IMAGE,)),
        ("What are they doing?\ufffc", (OTHER,)),
    ]
    assert "messages.1.content is a turn of role 'assistant'" in found[1].detail
    system = {"messages": [{"role": "system", "content": "Be kind."}], "a": "2"}
    assert bad(rows_of(tmp_path, {**CHART, "question": "messages.0.content"}, system)) == [("rows/1", "unreadable_row")]


@pytest.mark.parametrize(
    ("question", "num_images", "expected"),
    [
        ("<image>\n<image> Which is red?", 2, "Which is red?"),
        ("Which is red?", 2, "Which is red?"),
        ("Compare <image> with <image>.", 2, "Compare \ufffc with \ufffc."),
        ("<image> and <image>: same?", 2, "\ufffc and \ufffc: same?"),
    ],
)
def test_images_stand_where_their_markers_stand(question: str, num_images: int, expected: str, tmp_path: Path) -> None:
    row = {"q": question, "a": "1", "images": ["1.png", "2.png"][:num_images]}
    assert good(rows_of(tmp_path, {**CHART, "question": "q"}, row))[0].question == expected


@pytest.mark.parametrize("question", ["<image><image> Which?", "Which \ufffc is red?", "Compare <image> with <image>."])
def test_markers_that_name_other_images_than_the_row_has_are_refused(question: str, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {**CHART, "question": "q"}, {"q": question, "a": "1", "images": ["1.png"]})
    assert [reason for _, reason in bad(rows)] in (["markers_unequal"], ["text_not_clean"])


def test_options_with_labels_keep_them_and_the_answer_follows(tmp_path: Path) -> None:
    rows = [
        {"q": "Which?", "options": {"B": "dog", "A": "cat", "C": "cow"}, "a": "A"},
        {"q": "Which?", "options": {"A": "cat", "B": None, "C": "cow", "D": "pig"}, "a": "C"},
        {"q": "Which?", "options": {"10": "ten", "2": "two"}, "a": "10"},
        {"q": "Which?", "options": {"A": "cat", "C": "cow"}, "a": "cow"},
    ]
    found = good(rows_of(tmp_path, CHOICE, *rows))
    assert [(row.options, row.answer) for row in found] == [
        (("cat", "dog", "cow"), "A"),
        (("cat", "cow", "pig"), "B"),
        (("two", "ten"), "B"),
        (("cat", "cow"), "cow"),
    ]


def test_references_are_what_stands_between_answer_tags(tmp_path: Path) -> None:
    answers = ["<answer> 3 </answer>", "<think>two and one</think><answer>3</answer>", "3"]
    rows = good(rows_of(tmp_path, {**CHART, "question": "q"}, *({"q": "How many?", "a": text} for text in answers)))
    assert [row.answer for row in rows] == ["3", "3", "3"]


def test_labels_of_boxes_stand_where_the_question_points_to_them(tmp_path: Path) -> None:
    mapping = {"question": "q", "boxes": "o.bbox", "box_labels": "o.ref", "task": {"constant": "iou"}}
    rows = [
        {"q": "Find the <ref-object>", "o": {"ref": ["cup"], "bbox": [[1, 2, 30, 40]]}},
        {"q": "Find <ref-object> and <ref-object>", "o": {"ref": ["cup"], "bbox": [[1, 2, 30, 40]]}},
    ]
    assert [row.question for row in good(rows_of(tmp_path, mapping, *rows))] == ["Find the cup", rows[1]["q"]]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (BASE64, (PICTURE,)),
        ("data:image/png;base64," + BASE64, (PICTURE,)),
        ("file:///data/1.png", (RawImage(path="/data/1.png"),)),
        ("/9j/1.png", (RawImage(path="/9j/1.png"),)),
        ("", ()),
        (None, ()),
    ],
)
def test_images_are_read_from_base64_and_file_names(cell: Any, expected: Any, tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, {**CHART, "question": "q"}, {"q": "How many?", "a": "1", "images": cell})
    assert row.images == expected


@pytest.mark.parametrize(
    ("cell", "reason", "words"),
    [
        ("data:image/png;base64,????", "image_corrupt", "no base64"),
        (5, "unreadable_row", "an image: bytes, a path, or both"),
    ],
)
def test_images_that_cannot_be_read_are_refused_by_what_they_are(
    cell: str, reason: str, words: str, tmp_path: Path
) -> None:
    (row,) = rows_of(tmp_path, {**CHART, "question": "q"}, {"q": "How many?", "a": "1", "images": cell})
    assert row.reason.value == reason
    assert words in row.detail


@pytest.mark.parametrize(
    ("number", "reason"), [("NaN", "missing_field"), ("Infinity", "not_finite"), ("-Infinity", "not_finite")]
)
@pytest.mark.parametrize("task", ["match_text", "chart", "open"])
def test_no_value_of_a_table_becomes_a_word(number: str, reason: str, task: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "How many?", "a": ' + number + "}")
    rows = read("jsonl", tmp_path, mapping={"question": "q", "answer": "a", "task": {"constant": task}})
    assert bad(rows) == [("rows/1", reason)]
