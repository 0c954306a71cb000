"""Conversations in the forms of trainers: system turns, history, what is asked last, the reply as the reference."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.mapping import build_mapping
from orchestration.data.sources.rows import BadRow, RawImage, RawRow
from orchestration.data.sources.streams import Record
from rollout.conversation import Conversation
from rollout.records import Turn
from tests.unit.data.sources.reading import PNG, bad, read
from tests.unit.data.sources.test_forms import rows_of

MESSAGES = {"question": "m", "answer": "a", "images": "images?", "task": {"constant": "chart"}}
REPLIED = {**MESSAGES, "answer": "m"}
ONE, TWO = RawImage(path="1.png"), RawImage(path="2.png")


def turns(*spoken: tuple[str, Any], keys: tuple[str, str] = ("role", "content")) -> list[dict[str, Any]]:
    return [dict(zip(keys, turn, strict=True)) for turn in spoken]


def told(row: RawRow) -> tuple[str, list[tuple[str, str]], str]:
    return row.system, [(turn.role, turn.text) for turn in row.history], row.question


def only(folder: Path, mapping: dict[str, Any], row: dict[str, Any]) -> RawRow:
    (found,) = rows_of(folder, mapping, row)
    assert isinstance(found, RawRow), found
    return found


def refused(folder: Path, mapping: dict[str, Any], row: dict[str, Any]) -> BadRow:
    (found,) = rows_of(folder, mapping, row)
    assert isinstance(found, BadRow), found
    return found


BEFORE = [("user", "Who are they?"), ("assistant", "Two players.")]
OPENAI = turns(
    ("developer", "Be kind."),
    ("user", [{"type": "text", "text": "Who are they?"}]),
    ("assistant", [{"type": "output_text", "text": "Two players."}]),
    ("user", [{"type": "input_text", "text": "What do they do?"}]),
    ("assistant", "They play."),
)
SHAREGPT = turns(
    ("system", "Be kind."), ("human", "Who are they?"), ("gpt", "Two players."), ("human", "What do they do?"),
    ("gpt", "They play."), keys=("from", "value"),
)  # fmt: skip
PAIRS = [
    {"user": "Who are they?", "assistant": "Two players.", "source": "x"},
    {"user": "What do they do?", "assistant": "They play.", "source": "x"},
]


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize("form", [OPENAI, SHAREGPT, SHAREGPT[:-1]])
def test_system_history_and_question_of_messages(form: Any, is_json: bool, tmp_path: Path) -> None:
    row = only(tmp_path, MESSAGES, {"m": json.dumps(form) if is_json else form, "a": "2"})
    assert told(row) == ("Be kind.", BEFORE, "What do they do?")
    assert row.answer == "2"


def test_objects_of_user_and_assistant_are_two_turns_each(tmp_path: Path) -> None:
    row, _ = rows_of(tmp_path, REPLIED, {"m": PAIRS}, {"m": PAIRS})
    assert isinstance(row, RawRow), row
    assert (*told(row), row.answer) == ("", BEFORE, "What do they do?", "They play.")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("They play.", "They play."),
        ("<think>2 or 3</think><answer>3</answer>", "3"),
        ([{"type": "text", "text": "3"}], "3"),
    ],
)
def test_the_last_reply_is_the_reference(reply: Any, answer: str, tmp_path: Path) -> None:
    row = only(tmp_path, REPLIED, {"m": [*OPENAI[:-1], *turns(("assistant", reply))]})
    assert (row.answer, row.question) == (answer, "What do they do?")


def test_prompt_and_completion_as_trl_writes_them(tmp_path: Path) -> None:
    row = {"prompt": OPENAI[:-1], "completion": OPENAI[-1:]}
    found = only(tmp_path, {**MESSAGES, "question": "prompt", "answer": "completion"}, row)
    assert (*told(found), found.answer) == ("Be kind.", BEFORE, "What do they do?", "They play.")


@pytest.mark.parametrize("messages", [OPENAI[:-1], turns(("user", "x"))])
def test_without_a_reply_there_is_no_reference(messages: Any, tmp_path: Path) -> None:
    found = refused(tmp_path, REPLIED, {"m": messages})
    assert (found.reason.value, "of role 'user'" in found.detail) == ("missing_field", True)


ALPACA = {
    "question": "instruction", "answer": "output", "system": "system", "history": "history",
    "images": "images?", "task": {"constant": "match_text"},
}  # fmt: skip


@pytest.mark.parametrize(
    "history", [[["Who are they?", "Two players."]], turns(*BEFORE), json.dumps([["Who are they?", "Two players."]])]
)
def test_history_of_pairs_as_llama_factory_writes_it(history: Any, tmp_path: Path) -> None:
    row = {"instruction": "What do they do?", "output": "They play.", "system": "Be kind.", "history": history}
    assert told(only(tmp_path, ALPACA, row)) == ("Be kind.", BEFORE, "What do they do?")


@pytest.mark.parametrize("nothing", [None, "", []])
def test_rows_without_history_and_system_have_none(nothing: Any, tmp_path: Path) -> None:
    row = {"instruction": "What?", "output": "x", "system": nothing or "", "history": nothing}
    assert told(only(tmp_path, ALPACA, row)) == ("", [], "What?")


@pytest.mark.parametrize("history", ["before", [["a", "b", "c"]], [1], {"a": 1}, [["a", 2]]])
def test_a_history_of_another_form_is_refused(history: Any, tmp_path: Path) -> None:
    row = {"instruction": "What?", "output": "x", "system": "", "history": history}
    assert refused(tmp_path, ALPACA, row).reason.value == "unreadable_row"


def test_llama_factory_s_demo_rows_keep_both_images_in_their_places(tmp_path: Path) -> None:
    messages = turns(
        ("user", "<image>Who are they?"), ("assistant", "Two players."), ("user", "What are they doing?<image>"),
        ("assistant", "They celebrate."),
    )  # fmt: skip
    row = only(tmp_path, REPLIED, {"m": messages, "images": ["1.png", "2.png"]})
    assert told(row) == (
        "",
        [("user", "\ufffcWho are they?"), ("assistant", "Two players.")],
        "What are they doing?\ufffc",
    )
    assert (row.images, row.answer) == ((ONE, TWO), "They celebrate.")


def test_images_of_parts_stand_in_the_turns_that_hold_them(tmp_path: Path) -> None:
    messages = turns(
        ("user", [{"type": "image", "image": "1.png"}, {"type": "text", "text": "Who?"}]),
        ("assistant", "He."),
        ("user", [{"type": "text", "text": "And "}, {"type": "image", "image": "2.png", "text": None}]),
    )
    row = only(tmp_path, MESSAGES, {"m": messages, "a": "2"})
    assert (told(row), row.images) == (
        ("", [("user", "\ufffcWho?"), ("assistant", "He.")], "And \ufffc"),
        (ONE, TWO),
    )


def test_images_without_markers_come_first_in_the_question(tmp_path: Path) -> None:
    row = only(tmp_path, MESSAGES, {"m": turns(*BEFORE, ("user", "Why?")), "a": "2", "images": ["1.png"]})
    assert (told(row), row.images) == (("", BEFORE, "Why?"), (ONE,))


def test_turns_of_one_role_are_joined_and_lose_nothing(tmp_path: Path) -> None:
    messages = turns(
        ("system", "Be kind."), ("system", "Be brief."), ("user", "<image>"), ("user", "Who?"), ("assistant", "He."),
        ("assistant", "Or she."), ("user", ""), ("user", "Where?"), ("user", "When?"),
    )  # fmt: skip
    row = only(tmp_path, MESSAGES, {"m": messages, "a": "2", "images": ["1.png"]})
    assert told(row) == (
        "Be kind.\n\nBe brief.",
        [("user", "\ufffcWho?"), ("assistant", "He.\n\nOr she.")],
        "Where?\n\nWhen?",
    )


def test_a_system_field_comes_before_the_system_turn(tmp_path: Path) -> None:
    row = {"m": turns(("system", "Be brief."), ("user", "Who?")), "a": "2", "s": "Be kind."}
    assert only(tmp_path, {**MESSAGES, "system": "s"}, row).system == "Be kind.\n\nBe brief."


def test_a_reply_without_content_is_left_out(tmp_path: Path) -> None:
    row = only(tmp_path, MESSAGES, {"m": turns(*BEFORE, ("user", "Why?"), ("assistant", None)), "a": "2"})
    assert told(row) == ("", BEFORE, "Why?")


@pytest.mark.parametrize("system", [[{"type": "image", "image": "1.png"}], "Look at <image>.", "Look at <image 1>."])
def test_a_system_turn_shows_no_image(system: Any, tmp_path: Path) -> None:
    row = {"m": turns(("system", system), ("user", "Who?")), "a": "2", "images": None}
    assert refused(tmp_path, MESSAGES, row).reason.value == "markers_unequal"


def test_one_turn_or_its_parts_are_read_as_the_user_s(tmp_path: Path) -> None:
    row = {"m": turns(("user", [{"type": "image"}, {"type": "text", "text": "Who?"}])), "a": "2", "images": ["1.png"]}
    for path in ("m.0", "m.0.content"):
        found = only(tmp_path, {**MESSAGES, "question": path}, row)
        assert (found.question, found.images) == ("Who?", (ONE,))


def test_labels_are_counted_over_all_turns(tmp_path: Path) -> None:
    mapping = {
        "question": "m",
        "boxes": "o.bbox",
        "box_labels": "o.ref",
        "task": {"constant": "iou"},
        "images": "images",
    }
    messages = turns(
        ("user", "Is there a <ref-object>?"), ("assistant", "Yes."), ("user", "Find the <ref-object>"),
        ("assistant", "<bbox>"),
    )  # fmt: skip
    row = {"m": messages, "o": {"ref": ["cup", "dog"], "bbox": [[1, 2, 30, 40], [1, 2, 30, 40]]}, "images": ["1.png"]}
    assert told(only(tmp_path, mapping, row))[1:] == (
        [("user", "Is there a cup?"), ("assistant", "Yes.")],
        "Find the dog",
    )


def test_a_function_of_one_s_own_gives_system_and_history(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def rows(root, split):\n"
        "    yield {'task': 'chart', 'question': 'Why?', 'answer': 1, 'system': 'Be kind.',\n"
        f"           'history': [('<image>Who?', 'He.')], 'images': [{PNG!r}]}}\n"
    )
    (row,) = read(f"{tmp_path / 'mine.py'}:rows", tmp_path)
    assert isinstance(row, RawRow), row
    assert row.history == (Turn(role="user", text="\ufffcWho?"), Turn(role="assistant", text="He."))
    assert (row.system, row.images) == ("Be kind.", (RawImage(data=PNG),))


@pytest.mark.parametrize("key", ["type", "role"])
def test_answers_of_objects_are_no_turns(key: str, tmp_path: Path) -> None:
    answer = json.dumps([{key: "button", "bbox_2d": [1, 2, 30, 40]}])
    row = only(tmp_path, {"question": "q", "answer": "a", "task": {"constant": "iou"}}, {"q": "Where?", "a": answer})
    assert row.answer == answer


def test_markers_are_counted_over_all_turns(tmp_path: Path) -> None:
    row = {"m": turns(("user", "<image>Who?"), ("assistant", "He."), ("user", "<image>Why?")), "a": "2"}
    assert bad(rows_of(tmp_path, MESSAGES, {**row, "images": ["1.png"]})) == [("rows/1", "markers_unequal")]


def odd(draw: random.Random, depth: int) -> Any:
    """A value of any form, with words of conversations in it."""
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return draw.choice(
            [None, "", 1, True, 0.5, "x", "<image>", "<image 2>", "\ufffc", "user", "[{", '[["a", "b"]]']
        )
    if kind < 0.7:
        return [odd(draw, depth - 1) for _ in range(draw.randrange(4))]
    keys = draw.sample(["role", "content", "from", "value", "type", "text", "image", "user", "assistant"], 3)
    return {key: odd(draw, depth - 1) for key in keys}


def test_whatever_a_row_holds_its_turns_alternate_and_have_places_for_its_images() -> None:
    mapping = build_mapping({**MESSAGES, "system": "s?", "history": "h?"})
    draw = random.Random(0)
    contents = [
        "a",
        "<image>b",
        "<image 2> c",
        "<image 1>",
        "",
        None,
        [{"type": "image"}, {"type": "text", "text": "d"}],
    ]
    num_read = 0
    for _ in range(4000):
        spoken = [(draw.choice(["user", "assistant", "user", "system"]), draw.choice(contents)) for _ in range(4)]
        row = {"m": turns(*spoken[draw.randrange(4) :]), "a": "2", "images": ["1.png", "2.png"][: draw.randrange(3)]}
        if draw.random() < 0.5:
            row[draw.choice("mhs")] = odd(draw, 3)
        try:
            found = mapping.row(Record("0", row), "rows")
        except RowError:
            continue
        num_read += 1
        assert Conversation(found.question, found.system, found.history).has_places_for(len(found.images)), row
        assert [turn.role for turn in found.history] == ["user", "assistant"] * (len(found.history) // 2), row
    assert num_read > 400
