"""Rows whose options, answers and task are read by what is in them; proven by the rewards that score them."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.normalise import ReferenceCheck, normalise
from orchestration.data.options import rendered
from orchestration.data.sources.any_task import hinted_task, task_of_row
from orchestration.data.sources.rows import Candidate, RawRow
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig
from rewards.core.base import RewardRequest
from rewards.core.config import DEFAULT_ROUTES, RewardConfig
from rewards.mixed import MixedReward
from tests.unit.data.rows import IMAGE
from tests.unit.data.sources.reading import bad, good, read

MCQ = {"question": "q", "answer": "a", "options": "o?", "task": {"constant": "match_mcq"}}
ANY = {"question": "q", "answer": "a", "task": {"by_answer": "any"}}
LISTED = "Which?\nChoices:\nA:40°\nB:60°\nC:120°\nD:140°"
DEGREES = ("40°", "60°", "120°", "140°")


def rows_of(folder: Path, mapping: dict[str, Any], *rows: dict[str, Any], **options: Any) -> list[Any]:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return read("jsonl", folder, mapping=mapping, **options)


def canonical(row: RawRow) -> Candidate:
    made = normalise(
        row, [IMAGE], source="s", role="train", license="", config=NormaliseConfig(), limits=LimitsConfig(), seed=1
    )
    with ReferenceCheck(RewardConfig()) as references:
        references.check(made)
    return made


def earned(row: Candidate, response: str) -> float:
    request = RewardRequest(
        task=row.task, question=row.question, answer=row.answer, options=row.options, answer_type=row.answer_type,
        response=f"<think>.</think><answer>{response}</answer>",
    )  # fmt: skip
    with MixedReward(RewardConfig()) as rewards:
        return rewards.score([request])[0].task_reward or 0.0


@pytest.mark.parametrize("mapping", [MCQ, {**ANY, "options": "o?"}])
@pytest.mark.parametrize(
    ("row", "options", "answer"),
    [
        ({"q": LISTED, "a": "D"}, DEGREES, "D"),
        ({"q": LISTED, "a": "D:140°"}, DEGREES, "D"),
        ({"q": LISTED, "a": "140°"}, DEGREES, "D"),
        ({"q": "Which? (A) cat (B) dog", "a": "<answer>(B)</answer>"}, ("cat", "dog"), "B"),
        ({"q": "Which?\nA. cat\nB. dog", "a": "It is a dog: \\boxed{B}"}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "A", "o": {"B": "dog", "A": "cat", "C": "cow"}}, ("cat", "dog", "cow"), "A"),
        ({"q": "Which?", "a": "C", "o": {"A": "cat", "B": None, "C": "cow", "D": "pig"}}, ("cat", "cow", "pig"), "B"),
        ({"q": "Which?", "a": "C. cow", "o": {"A": "cat", "B": "", "C": "cow"}}, ("cat", "cow"), "B"),
        ({"q": "Which?", "a": "C", "o": ["cat", None, "cow"]}, ("cat", "cow"), "B"),
        ({"q": "Which?", "a": "B", "o": ["cat", "dog", None, ""]}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "B", "o": "['cat', 'dog']"}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "B", "o": '["cat", "dog"]'}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "b", "o": "A. cat\nB. dog"}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "B", "o": {"label": ["A", "B"], "text": ["cat", "dog"]}}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "2", "o": {"label": ["1", "2"], "text": ["cat", "dog"]}}, ("cat", "dog"), "B"),
        ({"q": "Which?", "a": "B", "o": [{"label": "B", "text": "dog"}, {"label": "A", "text": "cat"}]},
         ("dog", "cat"), "A"),
        ({"q": "Which?", "a": "A", "o": [{"A": "cat"}, {"B": "dog"}]}, ("cat", "dog"), "A"),
        ({"q": "Which?", "a": ["A", "C"], "o": ["cat", "dog", "cow"]}, ("cat", "dog", "cow"), "A, C"),
        ({"q": "Which?", "a": ["cow", "cat"], "o": ["cat", "dog", "cow"]}, ("cat", "dog", "cow"), "A, C"),
        ({"q": "Which?", "a": "A, C", "o": {"A": "cat", "B": None, "C": "cow", "D": "pig"}},
         ("cat", "cow", "pig"), "A, B"),
    ],
)  # fmt: skip
def test_options_and_letters_are_read_in_any_form(
    mapping: dict[str, Any], row: dict[str, Any], options: tuple[str, ...], answer: str, tmp_path: Path
) -> None:
    found = good(rows_of(tmp_path, mapping, row, answer_is="any"))[0]
    made = canonical(found)
    assert (made.task, made.options, made.answer) == ("match_mcq", options, answer)
    assert made.question == f"Which?\n{rendered(options)}"


COLUMNS = {"q": "What animal?", "A": "cat", "B": "dog", "C": "cow", "D": None}
NUMBERED = {"q": "What animal?", "option_1": "cat", "option_2": None, "option_3": "cow"}


@pytest.mark.parametrize(
    ("options", "row", "answer_is", "expected"),
    [
        ({"columns": ["A", "B", "C", "D"]}, {**COLUMNS, "a": "B"}, "any", (("cat", "dog", "cow"), "B")),
        (["A", "B", "C", "D"], {**COLUMNS, "a": "B"}, "text", (("cat", "dog", "cow"), "B")),
        (["A", "B", "C", "D", "E"], {**COLUMNS, "a": "cow"}, "any", (("cat", "dog", "cow"), "C")),
        ({"columns": ["A", "B", "C", "D"]}, {**COLUMNS, "B": float("nan"), "a": "C"}, "any", (("cat", "cow"), "B")),
        ({"columns": ["A", "B", "C", "D"]}, {**COLUMNS, "B": None, "a": 2}, "index", (("cat", "cow"), "B")),
        ({"columns": ["A", "B", "C", "D"]}, {**COLUMNS, "a": "3"}, "index1", (("cat", "dog", "cow"), "C")),
        ({"columns": list(NUMBERED)[1:]}, {**NUMBERED, "a": "3"}, "any", (("cat", "cow"), "B")),
        ({"columns": list(NUMBERED)[1:]}, {**NUMBERED, "a": "C"}, "any", (("cat", "cow"), "B")),
        ({"columns": list(NUMBERED)[1:]}, {**NUMBERED, "a": "option_3"}, "any", (("cat", "cow"), "B")),
        ({"columns": list(NUMBERED)[1:]}, {**NUMBERED, "a": 0}, "index", (("cat", "cow"), "A")),
    ],
)
def test_options_in_columns_keep_their_labels(
    options: Any, row: dict[str, Any], answer_is: str, expected: Any, tmp_path: Path
) -> None:
    mapping = {**MCQ, "options": options}
    made = canonical(good(rows_of(tmp_path, mapping, row, answer_is=answer_is))[0])
    assert (made.options, made.answer) == expected


@pytest.mark.parametrize(
    ("row", "answer_is"),
    [
        ({"q": "?", "a": "B", "o": {"A": "cat", "B": None, "C": "cow"}}, "any"),
        ({"q": "?", "a": "B", "o": {"A": "cat", "C": "cow"}}, "text"),
        ({"q": "?", "a": 1, "o": ["cat", None, "cow"]}, "index"),
        ({"q": "?", "a": "A, B", "o": {"A": "cat", "B": "", "C": "cow"}}, "any"),
    ],
)
def test_the_letter_of_an_empty_option_is_refused(row: dict[str, Any], answer_is: str, tmp_path: Path) -> None:
    assert [reason for _, reason in bad(rows_of(tmp_path, MCQ, row, answer_is=answer_is))] == ["answer_not_in_options"]


def test_a_path_by_steps_stays_a_path(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {**MCQ, "options": ["m", "o"]}, {"q": "?", "a": "B", "m": {"o": ["cat", "dog"]}})
    assert good(rows)[0].options == ("cat", "dog")


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        (["nokia", "Nokia", "nokia lumia"], ["nokia", "Nokia Lumia"], ["samsung", '["nokia"]']),
        ([{"answer": "cat", "answer_id": 1}, {"answer": "kitten", "answer_id": 2}], ["cat", "kitten"], ["dog"]),
        ("['cat', 'kitten']", ["cat", "kitten"], ["dog"]),
        ({"text": ["cat", "kitten"], "answer_start": [1, 2]}, ["cat", "kitten"], ["dog"]),
        ([{"answer": "yes"}] * 7 + [{"answer": "no"}] * 3, ["yes"], ["no"]),
        (["2"] * 6 + ["3"] * 4, ["2"], ["3"]),
        (["7", "seven"], ["7"], ["8"]),
    ],
)
def test_any_of_several_accepted_answers_is_right(
    answer: Any, right: list[str], wrong: list[str], tmp_path: Path
) -> None:
    made = canonical(good(rows_of(tmp_path, ANY, {"q": "What is it?", "a": answer}, answer_is="any"))[0])
    assert [earned(made, text) for text in (*right, *wrong)] == [1.0] * len(right) + [0.0] * len(wrong)


def test_numbers_of_which_one_or_all_may_be_right_are_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {**ANY, "hint": "h?"}, {"q": "?", "a": [1, 2]}, {"q": "?", "a": [1, 2], "h": "chartqa"})
    assert bad(rows) == [("rows/1", "unreadable_row")]
    assert (good(rows)[0].task, good(rows)[0].answer, good(rows)[0].answer_type) == ("chart", '["1", "2"]', "list")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("First \\boxed{1}\nso it is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("<think>2</think><answer> 3 </answer>", "3"),
        ("<answer>$\\boxed{4}$</answer>", "4"),
        ("<think>so</think>\n5", "5"),
        ("9 - 5 = 4\n#### 4", "4"),
        ("not closed \\boxed{4", "not closed \\boxed{4"),
        ("\\boxed{1} or \\boxed{2}", "\\boxed{1} or \\boxed{2}"),
    ],
)
def test_the_answer_of_a_solution_is_what_it_ends_in(answer: str, expected: str, tmp_path: Path) -> None:
    mapping = {**ANY, "task": {"constant": "math"}}
    for answer_is in ("text", "any"):
        assert good(rows_of(tmp_path, mapping, {"q": "?", "a": answer}, answer_is=answer_is))[0].answer == expected


@pytest.mark.parametrize(
    ("question", "answer", "hint", "task", "answer_type"),
    [
        ("Find x.", "13", "hiyouga/geometry3k", "math", ""),
        ("What is the max value?", "0.72", "chartqa", "chart", "number"),
        ("Which year is highest?", "2015", "PlotQA", "chart", "year"),
        ("Is it rising?", "Yes", "figureqa", "match_yesno", ""),
        ("How many dogs are there?", "3", "", "counting", ""),
        ("How many degrees is angle A?", "30", "geo170k", "math", ""),
        ("How many?", "12", "super_clevr", "counting", ""),
        ("What is it?", "\\frac{1}{2}", "", "math", ""),
        ("What is x?", "x=3", "", "math", ""),
        ("What is the price?", "12.5", "", "math", ""),
        ("What does the sign say?", "STOP", "lmms-lab/textvqa", "ocr", ""),
        ("What is the total?", "1,200", "docvqa_train.json", "ocr", ""),
        ("What colour?", "red", "", "match_text", ""),
        ("What shape?", "circle", "mathvista", "match_text", ""),
        ("Describe it.", "Two dogs run over a green field in the sun.", "", "open", ""),
        ("Describe it.", "A dog", "coco_captions", "open", ""),
        ("Is it true?", "False", "", "match_yesno", ""),
        ("Which?", "x", "match_text", "match_text", ""),
    ],
)
def test_the_task_is_that_of_answer_and_hint(
    question: str, answer: str, hint: str, task: str, answer_type: str
) -> None:
    found_task = task_of_row(question, answer, (), has_boxes=False, hint=hint)
    assert (found_task.task, found_task.answer_type) == (task, answer_type)
    assert RewardConfig().is_routed(found_task.task)


def test_options_and_boxes_decide_before_the_answer() -> None:
    assert task_of_row("?", "B", ("cat", "dog"), has_boxes=False, hint="math").task == "match_mcq"
    assert task_of_row("?", "", (), has_boxes=True, hint="refcoco").task == "iou"
    assert task_of_row("?", "", (), has_boxes=True, hint="data/screenspot.json").task == "pointing"
    assert {task_of_row("?", "x", (), has_boxes=False, hint=task).task for task in DEFAULT_ROUTES} <= {*DEFAULT_ROUTES}


@pytest.mark.parametrize(
    "hint",
    ["geography", "figurative language", "natural science", "", "train.jsonl", "aftermath", "Matthew"],
)
def test_names_that_say_no_task(hint: str) -> None:
    assert hinted_task(hint) == ""


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], ["", ""]),
        (None, ["", ""]),
        (["cup"], ["cup", "cup"]),
        ("cup", ["cup", "cup"]),
        (["cup", "jug"], ["cup", "jug"]),
    ],
)
def test_one_label_or_none_is_that_of_all_boxes(labels: Any, expected: list[str], tmp_path: Path) -> None:
    mapping = {"question": "q", "boxes": "b", "box_labels": "l?", "task": {"constant": "iou"}}
    row = {"q": "Where?", "b": [[1, 2, 30, 40], [5, 6, 70, 80]]}
    (found,) = good(rows_of(tmp_path, mapping, {**row, "l": labels}))
    assert [box.label for box in found.boxes or ()] == expected
    assert bad(rows_of(tmp_path, mapping, {**row, "l": ["a", "b", "c"]})) == [("rows/1", "unreadable_row")]


def test_tasks_by_row_follow_the_hint(tmp_path: Path) -> None:
    mapping = {**ANY, "hint": "data_source"}
    rows = [
        {"data_source": "geo3k", "q": "Find x.", "a": "13"},
        {"data_source": "chartqa", "q": "What is the max value?", "a": "0.72"},
        {"data_source": "vqa", "q": "A dog?", "a": "no"},
    ]
    assert [row.task for row in good(rows_of(tmp_path, mapping, *rows))] == ["math", "chart", "match_yesno"]


@pytest.mark.parametrize(
    "boxes",
    [
        "[10, 20, 30, 40]",
        "<answer>[[10, 20, 30, 40]]</answer>",
        [10, 20, 30, 40],
        '```json\n[{"bbox_2d": [10, 20, 30, 40]}]\n```',
        {"bbox": [10, 20, 30, 40]},
    ],
)
def test_boxes_are_read_from_lists_and_their_texts(boxes: Any, tmp_path: Path) -> None:
    mapping = {"question": "q", "boxes": "b", "task": {"by_answer": "any"}, "box_image": "i?"}
    found = good(rows_of(tmp_path, mapping, {"q": "Where?", "b": boxes}))[0]
    assert canonical(found).answer == "[10, 20, 30, 40]"
    assert bad(rows_of(tmp_path, mapping, {"q": "Where?", "b": boxes, "i": [1]})) == [("rows/1", "unreadable_row")]
