"""Rows as users hand them over, by a mapping and by the one argument data.train=PATH: tasks, options, answers, files.

A21 is in tests/unit/rewards/test_several_values.py; A16, A17 and A25 are in test_losses.py; the forms of files are in
sources/test_files.py and test_own_forms.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.rows import RejectReason
from orchestration.settings.errors import ConfigError
from rewards.core.base import RewardRequest
from rewards.core.config import RewardConfig
from rewards.core.envelope import write_response
from rewards.mixed import MixedReward
from tests.unit.data.asking import both, by_mapping, by_path, draw, kept, reason, write_rows

CHART = {"constant": "chart"}
TEXT = {"constant": "match_text"}
CHOICE = {"constant": "match_mcq"}
PLAIN = {"question": "q", "answer": "a", "images": "image", "task": CHART}
SWIFT = {"question": "messages.0.content", "answer": "solution", "images": "images", "task": CHART}


def earned(task: str, answer: str, response: str) -> float:
    config = RewardConfig()
    request = RewardRequest(task=task, question="", answer=answer, response=write_response(response, config.format))
    with MixedReward(config) as rewards:
        return rewards.score([request])[0].task_reward or 0.0


@pytest.mark.parametrize(
    "solution",
    ["<answer> 7 </answer>", "<think>4 and 3</think>\n<answer>7</answer>", "<ANSWER>7</ANSWER>", "\\boxed{7}"],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_solution_is_what_stands_between_its_tags(solution: str, ending: str, tmp_path: Path) -> None:
    """A03."""
    draw(tmp_path / "1.jpg")
    turns = [{"role": "user", "content": "How many boats are there in the image?"}]
    file = write_rows(tmp_path / f"rows.{ending}", [{"images": ["1.jpg"], "messages": turns, "solution": solution}])
    adapter = "parquet" if ending == "parquet" else "jsonl"
    for (row,) in (by_mapping(tmp_path, SWIFT, adapter=adapter), by_path(file)):
        assert (kept(row).answer, kept(row).question) == ("7", "How many boats are there in the image?")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("In the figure the size of angle ACB is ()\nChoices:\nA:35°\nB:55°\nC:70°", "C"),
        ("How large is angle ACB?\nOptions: (A) 35° (B) 55° (C) 70°", "(C)"),
        ("How large is angle ACB?\nA. 35°\nB. 55°\nC. 70°", "C:70°"),
        ("Find angle ACB.\na) 35°\nb) 55°\nc) 70°", "c"),
        ("Find angle ACB.\n(a) 35°\n(b) 55°\n(c) 70°", "(c)"),
        ("How large is angle ACB? A、35° B、55° C、70°", "Option C"),
    ],
)
def test_options_are_those_of_the_question(question: str, answer: str, tmp_path: Path) -> None:
    """A04; more in sources/test_question_options.py."""
    draw(tmp_path / "1.jpg")
    for (row,) in both(tmp_path, [{"q": question, "a": answer, "image": "1.jpg"}], {**PLAIN, "task": CHOICE}):
        assert (kept(row).options, kept(row).answer) == (("35°", "55°", "70°"), "C")
        assert kept(row).question.count("55°") == 1


@pytest.mark.parametrize(
    ("columns", "answer", "options", "letter"),
    [
        ({"A": "oak", "B": "elm", "C": "ash", "D": None}, "C", ("oak", "elm", "ash"), "C"),
        ({"A": "oak", "B": None, "C": "ash", "D": "yew"}, "D", ("oak", "ash", "yew"), "C"),
        ({"A": None, "B": "elm", "C": "ash", "D": None}, "B", ("elm", "ash"), "A"),
        ({"option_a": "oak", "option_b": "elm", "option_c": None}, "b", ("oak", "elm"), "B"),
        ({"A": "oak", "B": "elm", "C": "ash", "D": ""}, "elm", ("oak", "elm", "ash"), "B"),
    ],
)
def test_options_in_columns_keep_their_letters(
    columns: dict[str, Any], answer: str, options: tuple[str, ...], letter: str, tmp_path: Path
) -> None:
    """A05: also where a column is empty in all rows."""
    draw(tmp_path / "1.jpg")
    rows = [{"image": "1.jpg", "q": "Which tree?", **columns, "a": answer}]
    for (row,) in both(tmp_path, rows, {**PLAIN, "options": list(columns), "task": CHOICE}):
        assert (kept(row).task, kept(row).options, kept(row).answer) == ("match_mcq", options, letter)


def test_the_letter_of_an_empty_column_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg")
    rows = [{"image": "1.jpg", "q": "Which tree?", "A": "oak", "B": None, "C": "ash", "a": "B"}]
    for (row,) in both(tmp_path, rows, {**PLAIN, "options": ["A", "B", "C"], "task": CHOICE}):
        assert reason(row) == "answer_not_in_options"


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        ({"C": "ash", "A": "oak", "B": "elm"}, "A", (("oak", "elm", "ash"), "A")),
        ({"A": None, "B": "elm", "C": "ash"}, "C", (("elm", "ash"), "B")),
        ({"2": "elm", "1": "oak"}, "2", (("oak", "elm"), "B")),
        ("{'B': 'elm', 'A': 'oak'}", "A", (("oak", "elm"), "A")),
    ],
)
def test_options_by_label_are_named_by_their_label(options: Any, answer: str, expected: Any, tmp_path: Path) -> None:
    """A09; more in sources/test_any_rows.py."""
    draw(tmp_path / "1.jpg")
    rows = [{"image": "1.jpg", "q": "Which tree?", "options": options, "a": answer}]
    for (row,) in both(tmp_path, rows, {**PLAIN, "options": "options", "task": CHOICE}):
        assert (kept(row).options, kept(row).answer) == expected


@pytest.mark.parametrize(
    ("answers", "right", "wrong"),
    [
        (["leica", "Leica", *["leica"] * 8], "leica", "leica, leica"),
        (["fox", "vixen"], "vixen", "wolf"),
        ("['fox', 'vixen']", "vixen", "['fox', 'vixen']"),
        ([{"answer": "fox", "answer_id": 1}, {"answer": "vixen", "answer_id": 2}], "fox", "wolf"),
    ],
)
def test_any_accepted_answer_is_right(answers: Any, right: str, wrong: str, tmp_path: Path) -> None:
    """A10, answers."""
    draw(tmp_path / "1.jpg")
    rows = [{"image": "1.jpg", "q": "what is the name?", "answers": answers}]
    for (row,) in both(tmp_path, rows, {**PLAIN, "answer": "answers", "task": TEXT}):
        assert (earned(kept(row).task, kept(row).answer, right), earned(kept(row).task, kept(row).answer, wrong)) == (
            1,
            0,
        )


def test_what_several_people_say_of_a_chart_is_one_answer_or_is_asked_for(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg")
    answers = [["14", "14", "14"], ["14", "14", "15"], ["14", "15"]]
    write_rows(tmp_path / "rows.jsonl", [{"image": "1.jpg", "q": "What is it?", "a": answer} for answer in answers])
    same, unequal, parts = by_mapping(tmp_path, PLAIN)
    assert (kept(same).answer, reason(unequal), kept(parts).answer) == ("14", "unreadable_row", '["14", "15"]')
    found = by_mapping(tmp_path, {**PLAIN, "answer_type": {"constant": "list"}})
    assert kept(found[1]).answer == '["14", "14", "15"]'


@pytest.mark.parametrize("options", [["dear mr. Bell,", "Dear Mr. Bell,"], ["**Emma**", '"Emma"'], ["Bb", "BB"]])
def test_options_may_differ_by_case_or_marks(options: list[str], tmp_path: Path) -> None:
    """A18."""
    rows = [{"q": "Which is right?", "options": options, "a": "B"}]
    mapping = {"question": "q", "answer": "a", "options": "options", "task": CHOICE}
    for (row,) in both(tmp_path, rows, mapping):
        assert (kept(row).options, kept(row).answer) == (tuple(options), "B")


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("√{7}", "\\sqrt{7}", "7"),
        ("\\frac{5}{3}√{2}", "\\frac{5\\sqrt{2}}{3}", "5/3"),
        ("4√{3}千米", "4\\sqrt{3}", "4"),
        ("25π平方厘米", "25\\pi", "25"),
        ("60${}^\\circ $", "60", "61"),
        ("$\\frac{\\text{13}}{\\text{4}}$", "13/4", "4/13"),
        ("$$\\left ( -1,6\\right ) $$", "(-1,6)", "(6,-1)"),
        ("18dm^{3}", "18", "18.5"),
        ("120 boxes", "120", "12"),
        ("2:5:3", "2:5:3", "2:3:5"),
        ("9:45", "9:45", "0.2"),
    ],
)
def test_references_of_mathematics_are_earned_by_what_they_mean(
    answer: str, right: str, wrong: str, tmp_path: Path
) -> None:
    """A19, A20, A21, A22."""
    write_rows(tmp_path / "rows.jsonl", [{"q": "Find it.", "a": answer}])
    (row,) = by_mapping(tmp_path, {"question": "q", "answer": "a", "task": {"constant": "math"}})
    assert (earned("math", kept(row).answer, right), earned("math", kept(row).answer, wrong)) == (1, 0)


def test_nan_is_no_answer(tmp_path: Path) -> None:
    """nan: beside rows that have one, and alone."""
    (tmp_path / "rows.jsonl").write_text('{"q": "What is it?", "a": NaN}\n{"q": "And this?", "a": "fox"}\n')
    mapping = {"question": "q", "answer": "a", "task": TEXT}
    for missing, row in (by_mapping(tmp_path, mapping), by_path(tmp_path / "rows.jsonl")):
        assert (reason(missing), kept(row).answer) == ("missing_field", "fox")


ROWS = [
    {"question_id": number, "image": "1.jpg", "text": f"Is there an owl {number}?", "label": "no"} for number in (1, 2)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pope.json", LINES),
        ("pope.jsonl", json.dumps(ROWS)),
        ("pope.json", json.dumps({str(row["question_id"]): row for row in ROWS})),
        ("pope.json", json.dumps({"version": "1", "data": ROWS})),
        ("pope.json", "\ufeff" + json.dumps(ROWS)),
        ("pope.json", "\ufeff" + LINES),
    ],
)
def test_files_are_read_by_what_is_in_them(name: str, text: str, tmp_path: Path) -> None:
    """A15, bom.json, lines.json."""
    draw(tmp_path / "1.jpg")
    (tmp_path / name).write_text(text, encoding="utf-8")
    mapping = {"question": "text", "answer": "label", "images": "image", "task": {"constant": "match_yesno"}}
    for found in (by_mapping(tmp_path, mapping, files=[name]), by_path(tmp_path / name)):
        assert [(kept(row).question, kept(row).answer, kept(row).task) for row in found] == [
            (row["text"], "no", "match_yesno") for row in ROWS
        ]


SETS = [
    {"data_source": "geo170k", "problem": "<image>Find y.", "answer": "17", "images": ["1.jpg"]},
    {"data_source": "PlotQA", "problem": "<image>What is the least value?", "answer": "0.31", "images": ["2.jpg"]},
]


def test_tasks_by_the_set_of_each_row(tmp_path: Path) -> None:
    """A14: by a table of the recipe or of data.columns, and by the names of the sets."""
    draw(tmp_path / "1.jpg", tmp_path / "2.jpg")
    mapping = {"question": "problem", "answer": "answer", "images": "images"}
    table = {"field": "data_source", "values": {"geo170k": "chart", "PlotQA": "math"}}
    by_table, by_names = both(tmp_path, SETS, {**mapping, "task": table})
    assert [kept(row).task for row in by_table] == ["chart", "math"]
    assert [kept(row).task for row in by_names] == ["math", "chart"]
    setting = "data.columns.task={field: data_source, values: {geo170k: chart, PlotQA: math}}"
    assert [kept(row).task for row in by_path(tmp_path / "rows.jsonl", setting)] == ["chart", "math"]
    write_rows(tmp_path / "rows.parquet", SETS)
    assert [kept(row).task for row in by_path(tmp_path / "rows.parquet")] == ["math", "chart"]


def test_a_set_that_the_table_of_tasks_lacks_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg", tmp_path / "2.jpg")
    write_rows(tmp_path / "rows.jsonl", SETS)
    mapping = {"question": "problem", "answer": "answer", "images": "images"}
    _, row = by_mapping(tmp_path, {**mapping, "task": {"field": "data_source", "values": {"geo170k": "math"}}})
    assert row == (RejectReason.UNREADABLE_ROW, "data_source is 'PlotQA', and the table of values has geo170k alone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": {**PLAIN, "task": "chart"}}, r"task: the path chart leads nowhere .* is \{constant: chart\}"),
        ({"mapping": {**PLAIN, "task": "math"}}, r"task: the path math leads nowhere .* is \{constant: math\}"),
        ({"mapping": PLAIN, "files": ["/data/own/rows.jsonl"]}, "files are patterns under the source's path"),
        ({"mapping": PLAIN, "files": ["../rows.jsonl"]}, "files are patterns under the source's path"),
    ],
)
def test_settings_that_cannot_be_meant_are_said_before_a_row_is_read(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A23, A24."""
    write_rows(tmp_path / "rows.jsonl", [{"q": "How many?", "a": "2", "image": "1.jpg"}] * 3)
    with pytest.raises(ConfigError, match=message):
        by_mapping(tmp_path, **options)
