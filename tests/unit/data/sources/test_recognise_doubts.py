"""Columns that are named as pictures, options or boxes and hold something else: refused or said, never left out."""

from typing import Any

import pytest

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.rows import RawRow
from orchestration.settings.errors import ConfigError
from tests.unit.data.sources.test_recognise import found, read

ASKED = {"question": "How many dots?", "answer": "3"}
WHICH = {"image": "a.png", "question": "Which one?"}


def paths(row: RawRow) -> list[str | None]:
    return [image.path for image in row.images]


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (["a.png", None], None),
        ("['a.png', 'b.png']", ["a.png", "b.png"]),
        ('["a.png", "b.png"]', ["a.png", "b.png"]),
        ([{"url": "a.png"}], ["a.png"]),
        ([{"path": "a.png", "url": None}], ["a.png"]),
        ("pictures/17", ["pictures/17"]),
        (17, None),
        ([{"type": "image", "image": "a.png"}], None),
    ],
)
def test_a_column_named_as_pictures_is_read_or_its_rows_are_refused(value: Any, read_as: list[str] | None) -> None:
    row = {"images": value, **ASKED}
    recognised = found(row)
    assert recognised.mapping["images"] == "images"
    if read_as is None:
        with pytest.raises(RowError, match="images"):
            read(recognised, row)
    else:
        assert paths(read(recognised, row)) == read_as


def test_a_path_in_an_object_is_a_picture() -> None:
    row = {"image": {"file_name": "a.png", "width": 200}, **ASKED}
    assert paths(read(found(row), row)) == ["a.png"]


def test_a_link_without_an_ending_is_a_picture() -> None:
    row = {"image_url": "https://x.test/a?id=4", **ASKED}
    assert [image.link for image in read(found(row), row).images] == ["https://x.test/a?id=4"]


def test_a_setting_may_leave_pictures_out() -> None:
    row = {"image": 17, **ASKED}
    assert read(found(row, columns={"images": {"constant": []}}), row).images == ()


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ({"image_before": "a.png", "image_after": "b.png"}, "image_after"),
        ({"image": "a.png", "image_2": "b.png", "mask": "c.png"}, "image_2, mask"),
    ],
)
def test_pictures_that_are_not_read_are_named(columns: dict[str, str], left: str) -> None:
    sentence = f"pictures in {left} are not read; 'data.columns.images={{columns: [FIRST, SECOND]}}'"
    assert any(note.startswith(sentence) for note in found({**columns, **ASKED}).uncertain)
    taken = found({**columns, **ASKED}, columns={"images": {"columns": list(columns)}})
    assert paths(read(taken, {**columns, **ASKED})) == list(columns.values())


def test_a_row_has_its_pictures_in_one_of_several_columns() -> None:
    rows: list[dict[str, Any]] = [
        {"image": "a.png", **ASKED},
        {"images": ["b.png", "c.png"], **ASKED},
        {"image": "d.png", "images": [], **ASKED},
        ASKED,
    ]
    recognised = found(*rows)
    assert [paths(read(recognised, row)) for row in rows] == [["a.png"], ["b.png", "c.png"], ["d.png"], []]
    assert found({"image": "a.png", "decoded_image": "b.png", **ASKED}).mapping["images"] == "decoded_image"


def test_a_row_has_its_options_in_one_of_several_columns() -> None:
    rows: list[dict[str, Any]] = [
        {**WHICH, "options": ["cat", "dog"], "answer": "B"},
        {**WHICH, "choices": ["cow", "pig"], "answer": "B"},
    ]
    recognised = found(*rows)
    assert [read(recognised, row).options for row in rows] == [("cat", "dog"), ("cow", "pig")]


def test_numbered_columns_count_by_their_numbers() -> None:
    row = {"image_10": "j.png", "image_2": "b.png", "image_1": "a.png", **ASKED}
    assert paths(read(found(row), row)) == ["a.png", "b.png", "j.png"]
    rows = [{**WHICH, "option_c": "cow", "option_a": "cat", "option_b": "dog", "answer": place} for place in (0, 2, 1)]
    assert [read(found(*rows), row).answer for row in rows] == ["A", "C", "B"]
    assert read(found(*rows), rows[0]).options == ("cat", "dog", "cow")


def test_columns_a_to_d_in_small_letters_are_options() -> None:
    row = {**WHICH, "a": "cat", "b": "dog", "c": "cow", "answer": "b"}
    assert (read(found(row), row).options, read(found(row), row).answer) == (("cat", "dog", "cow"), "B")


@pytest.mark.parametrize("options", ["cat, dog, cow", "cat|dog", "cat\ndog"])
def test_options_of_no_known_form_are_refused_and_not_left_out(options: str) -> None:
    row = {**WHICH, "options": options, "answer": "B"}
    recognised = found(row)
    with pytest.raises(RowError, match="should be a list of texts"):
        read(recognised, row)
    assert "options holds no list of options" in "\n".join(recognised.uncertain)
    left_out = read(found(row, columns={"options": {"constant": []}}), row)
    assert (left_out.options, left_out.task) == ((), "match_text")


def test_a_place_that_is_not_known_spoils_no_other_row() -> None:
    rows = [{**WHICH, "choices": ["cat", "dog"], "answer": place} for place in (0, -1, 1)]
    recognised = found(*rows)
    assert recognised.answer_is == "index"
    assert [read(recognised, row).answer for row in (rows[0], rows[2])] == ["A", "B"]


@pytest.mark.parametrize("answer", ["0.0", "0", 0, 0.0])
def test_places_may_be_written_as_pandas_writes_them(answer: Any) -> None:
    rows = [{**WHICH, "choices": ["cat", "dog"], "answer": place} for place in (answer, "1.0")]
    recognised = found(*rows)
    assert (recognised.answer_is, [read(recognised, row).answer for row in rows]) == ("index", ["A", "B"])


def swift(text: str, reply: str, boxes: list[list[int]]) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"<image>{text}"}, {"role": "assistant", "content": reply}]
    return {"messages": turns, "images": ["a.png"], "objects": {"ref": ["cat"] * len(boxes), "bbox": boxes}}


def test_a_row_without_boxes_is_answered_by_its_reply() -> None:
    rows = [swift("Find <ref-object>", "<bbox>", [[1, 2, 30, 40]]), swift("What colour?", "red", [])]
    recognised = found(*rows)
    boxed, plain = (read(recognised, row) for row in rows)
    assert (boxed.task, boxed.question, boxed.answer, [box.values for box in boxed.boxes or ()]) == (
        "iou", "Find cat", "", [(1.0, 2.0, 30.0, 40.0)],
    )  # fmt: skip
    assert (plain.task, plain.answer, plain.boxes) == ("match_text", "red", None)


def test_no_boxes_are_an_answer_only_where_the_task_says_so() -> None:
    rows: list[dict[str, Any]] = [{**WHICH, "bbox": [1, 2, 30, 40]}, {**WHICH, "bbox": []}]
    with pytest.raises(RowError, match="boxes is empty, and whether nothing is to be found"):
        read(found(*rows), rows[1])
    assert read(found(*rows, columns={"task": "iou"}), rows[1]).boxes == ()


@pytest.mark.parametrize(
    "answer",
    [
        "[10, 20, 110, 120]",
        "<answer>[50, 60]</answer>",
        "[[1, 2, 3, 4], [5, 6, 7, 8]]",
        '```json\n[{"bbox_2d": [10, 20, 110, 120], "label": "cat"}]\n```',
    ],
)
def test_numbers_in_brackets_are_no_text_to_match(answer: str) -> None:
    rows = [{**WHICH, "answer": "red"}, {**WHICH, "answer": "blue"}, {**WHICH, "answer": answer}]
    with pytest.raises(RowError, match="may be a box, a point, an interval or a list"):
        read(found(*rows), rows[2])
    assert read(found(*rows, columns={"task": "iou"}), rows[2]).task == "iou"


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"answer": "[1, 2]", "dataset": "math"}, "match_text"),
        ({"answer": "[1, 2]", "dataset": "chartqa"}, "chart"),
        ({"answer": "[1, 2]", "options": ["[1, 2]", "[3, 4]"]}, "match_mcq"),
        ({"answer": '[{"answer": "red"}, {"answer": "dark red"}]'}, "match_text"),
    ],
)
def test_numbers_in_brackets_are_read_where_a_set_or_options_say_how(row: dict[str, Any], task: str) -> None:
    assert read(found({**WHICH, **row}), {**WHICH, **row}).task == task


def test_the_history_and_system_text_of_a_row_are_found_by_their_usual_names() -> None:
    row = {**WHICH, "answer": "red", "chat_history": [["Hello?", "Hi."]], "system_message": "Be short."}
    read_row = read(found(row), row)
    assert (read_row.system, [turn.text for turn in read_row.history]) == ("Be short.", ["Hello?", "Hi."])


def test_pairs_of_user_and_assistant_are_turns() -> None:
    row = {"images": ["a.png"], "texts": [{"user": "Colour?", "assistant": "red"}, {"user": "And?", "assistant": "no"}]}
    read_row = read(found(row), row)
    assert (read_row.question, read_row.answer, [turn.text for turn in read_row.history]) == (
        "And?", "no", ["Colour?", "red"],
    )  # fmt: skip


def test_images_beside_the_content_of_a_turn_are_not_left_out() -> None:
    turns = [{"role": "user", "content": "How many?", "images": ["a.png"]}, {"role": "assistant", "content": "3"}]
    row = {"messages": turns}
    with pytest.raises(RowError, match="images beside its content"):
        read(found(row), row)


def test_a_message_suggests_no_column_that_is_taken() -> None:
    with pytest.raises(ConfigError) as raised:
        found({"image": "a.png", "question": "Which?"})
    assert "data.columns.answer=COLUMN or data.columns.boxes=COLUMN, with dots" in str(raised.value)
    assert "did you mean" not in str(raised.value)


def test_an_unknown_way_to_write_answers_is_said() -> None:
    with pytest.raises(ConfigError, match=r"data\.columns\.answer_is is 'index0'; it is one of text, single"):
        found({**WHICH, "options": ["cat", "dog"], "answer": 1}, columns={"answer_is": "index0"})
