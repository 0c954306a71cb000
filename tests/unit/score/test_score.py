"""`mixed-r1 score`: rows in, rewards out, bad rows by line, the summary, expectations, and the explanation of a row."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from orchestration.cli import main

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = GOLDEN / "reward_cases.jsonl"
GOOD = {"id": "a", "task": "chart", "response": "<think>x</think><answer>47</answer>", "answer": "45", "source": "s"}


def run(arguments: Sequence[object]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["score", *map(str, arguments)])
    return int(stop.value.code or 0)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_golden_case_comes_as_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([CASES, "-o", tmp_path / "out.jsonl"]) == 0
    assert "192 rows state what they expect: 0 misses" in capsys.readouterr().out
    rows = read(tmp_path / "out.jsonl")
    assert len(rows) == 192
    assert all(row["as_expected"] for row in rows)


def test_every_real_answer_of_a_kind_once_misread_comes_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([GOLDEN / "answer_cases.jsonl"]) == 0
    assert "76 rows state what they expect: 0 misses\n" in capsys.readouterr().out


def test_a_scored_row_keeps_its_fields_and_gains_its_rewards(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {**GOOD, "note": "kept"})
    assert run([source, "-o", tmp_path / "out.jsonl"]) == 0
    row = read(tmp_path / "out.jsonl")[0]
    assert row | {**GOOD, "note": "kept"} == row
    assert (row["reward"], row["format_reward"], row["task_reward"]) == (1.0, 1.0, 1.0)
    assert (row["parsed_answer"], row["reason"], row["failure"]) == ("47", "ok", None)


def test_a_null_is_a_field_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {**GOOD, "coord": None, "options": None, "expected": None})
    assert run([source, "-o", tmp_path / "out.jsonl"]) == 0
    assert read(tmp_path / "out.jsonl")[0]["task_reward"] == 1.0


def test_a_row_without_a_reward_is_named_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", GOOD, {**GOOD, "id": "no_gold", "task": "match_yesno", "answer": "perhaps"})
    assert run([source]) == 0
    assert f"{source}:2: no_gold: matching: match_yesno reference is 'perhaps'" in capsys.readouterr().err


def test_bad_rows_are_named_by_line_and_the_rest_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        2: ('{"id": "b", "task":\n', "not JSON"),
        3: ("[1, 2]\n", "a JSON object is needed, not a list"),
        4: ({"id": "c", "task": "chart", "answer": "4"}, "response is missing"),
        5: ({**GOOD, "task": "video"}, "pointing, format, or name a function for it: +reward.routes.video=FUNCTION"),
        6: ({**GOOD, "coord": "inches"}, "coord is 'inches'; use pixel, resized"),
        7: ({**GOOD, "task": "iou", "coord": "resized", "image_size": [4, 3]}, "coord resized needs input_size"),
        8: ({**GOOD, "image_size": [0, 3]}, "image_size is [0, 3]; use [width, height]"),
        9: ({**GOOD, "options": "A"}, "options must be a list of texts"),
        10: ({**GOOD, "response": 5}, "response must be text, not a number"),
        11: ({**GOOD, "answer": None}, "answer is missing"),
        12: ({**GOOD, "guards": "yes"}, "guards is 'yes'; use true or false"),
        13: ({**GOOD, "expected": "1"}, "expected is '1'; use a number or [low, high]"),
        14: ({**GOOD, "history": ["Who?"]}, "history must be a list of [role, text]"),
    }
    source = write(tmp_path / "in.jsonl", GOOD, *(row for row, _ in bad.values()), "\n", {**GOOD, "id": "last"})
    assert run([source, "-o", tmp_path / "out.jsonl"]) == 3
    errors = capsys.readouterr().err
    for line, (_, message) in bad.items():
        assert f"in.jsonl:{line}: " in errors
        assert message in errors.split(f"in.jsonl:{line}: ")[1].splitlines()[0]
    assert f"{len(bad)} bad rows were left out" in errors
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == ["a", "last"]


@pytest.mark.parametrize("found", ["nothing", "blank lines"])
def test_a_file_without_rows_is_an_error_and_leaves_no_result(
    found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text("" if found == "nothing" else "\n\n")
    assert run([tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl"]) == 2
    assert "in.jsonl holds no row" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_folder_is_not_said_to_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([tmp_path]) == 2
    assert f"{tmp_path} is a folder; give a .jsonl or .parquet file" in capsys.readouterr().err


def test_an_empty_path_is_not_taken_for_the_working_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([""]) == 2
    assert "is empty, perhaps an unset variable of the shell" in capsys.readouterr().err


def test_a_task_with_an_empty_name_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", {**GOOD, "task": "", "verdict": True})
    rule = "reward.rules=[{source: s, function: chart}]"
    assert run([source, "--against", "verdict", rule]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[:2] == ["''", "1"]
    assert table[2].startswith("'': 1 of 1 rows agree")
    assert run([source, "--explain", "a", rule]) == 0
    assert "line 1, task '' of s" in capsys.readouterr().out


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "in.jsonl", GOOD)
    assert run(["~/in.jsonl", "-o", "~/out.jsonl"]) == 0
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == ["a"]


def test_text_that_is_not_utf8_spoils_its_own_line_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b'\n{"id": "\xff"}\n')
    assert run([tmp_path / "in.jsonl"]) == 3
    assert "in.jsonl:2: not UTF-8 at byte 8" in capsys.readouterr().err


def test_parquet_rows_are_read_as_json_rows_are(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "image_size": None, "options": None, "picture": b"\x00"},
        {**GOOD, "id": "b", "task": "iou", "response": "<think>x</think><answer>[0,0,50,50]</answer>",
         "answer": "[0, 0, 100, 50]", "image_size": [200, 100], "options": None, "picture": None},
        {**GOOD, "id": "c", "task": "match_mcq", "response": "<think>x</think><answer>B</answer>", "answer": "cat",
         "image_size": None, "options": ["dog", "cat"], "picture": None},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    assert run([tmp_path / "in.parquet", "-o", tmp_path / "out.jsonl"]) == 0
    scored = read(tmp_path / "out.jsonl")
    assert [row["task_reward"] for row in scored] == [1.0, 0.5, 1.0]
    assert scored[0]["picture"] == "<1 bytes>"


def test_summary_counts_zeros_parse_failures_and_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [GOOD, {**GOOD, "response": "<answer>9</answer>"}, {**GOOD, "response": "9"}, {**GOOD, "answer": "!!!"}]
    assert run([write(tmp_path / "in.jsonl", *rows)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("chart"))
    # Graded: 1.0, 0.0 and 0.0; the broken reference enters no mean. Format: two of four.
    assert line.split()[:8] == ["chart", "4", "0.333", "0.333", "0.500", "0.667", "1", "1"]
    assert "bad_gold 1" in line


def test_a_value_that_is_not_as_expected_is_a_miss_unless_it_is_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**GOOD, "id": "in", "expected": [0.9, 1.0]},
        {**GOOD, "id": "off", "expected": 0.0, "why": "a reason"},
        {**GOOD, "id": "choice", "expected": 0.0, "policy": True},
        {**GOOD, "id": "less", "expected": 1.0, "relation": {"lt": "in"}},
    ]
    assert run([write(tmp_path / "in.jsonl", *rows)]) == 4
    printed = capsys.readouterr().out
    assert "4 rows state what they expect: 2 misses, 1 policy differences" in printed
    assert "miss    off: 1.0000, expected 0 (a reason)" in printed
    assert "miss    less: 1.0000 is not lt in's 1.0000" in printed
    assert "policy  choice: 1.0000, expected 0" in printed


def test_relations_alone_make_a_file_a_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", GOOD, {**GOOD, "id": "b", "relation": {"lt": "a"}})
    assert run([source]) == 4
    printed = capsys.readouterr().out
    assert "1 rows state what they expect: 1 misses" in printed
    assert "b: 1.0000 is not lt a's 1.0000" in printed


def test_a_relation_to_an_id_of_several_rows_is_a_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", GOOD, GOOD, {**GOOD, "id": "b", "relation": {"le": "a"}})
    assert run([source]) == 4
    assert "b: relation le a names several rows; give each its id" in capsys.readouterr().out


def test_rewards_are_compared_with_another_verdict_and_disagreements_have_reasons_and_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**GOOD, "id": "both", "official": True},
        {**GOOD, "id": "ours", "official": False},
        {**GOOD, "id": "theirs", "response": "<think>a</think><answer>45 or 47</answer>", "official": 1},
        {**GOOD, "id": "silent"},
    ]
    source = write(tmp_path / "in.jsonl", *rows)
    assert run([source, "--against", "official"]) == 0
    out = capsys.readouterr().out
    assert "chart: 1 of 3 rows agree with official (33.3%)" in out
    assert "1 rows state no official" in out
    assert "1  chart: paid, official says wrong (reason ok)" in out
    assert "1  chart: not paid, official says right (reason not_a_number)" in out
    assert "theirs: '45 or 47' against" in out
    assert run([source, "--against", "oficial"]) == 2
    assert "no row of" in capsys.readouterr().err


def test_one_row_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", {**GOOD, "id": "x"}, {**GOOD, "id": 7, "expected": 1.0})
    assert run([source, "--explain", "7"]) == 0
    printed = capsys.readouterr().out
    assert "row        7, line 2, task chart of s" in printed
    assert "reference of type unnamed: number 45" in printed
    assert "reward     1" in printed
    assert run([source, "--explain", "absent"]) == 2
    assert "has the id 'absent'" in capsys.readouterr().err


def test_preset_and_settings_change_the_score(tmp_path: Path) -> None:
    gold = "a brown dog runs over the green grass with a ball"
    row = {"id": "o", "task": "open", "response": "<think>x</think><answer>a</answer>", "answer": gold}
    source = write(tmp_path / "in.jsonl", row, {**row, "id": "p", "guards": False}, {**GOOD, "id": "q"})
    out = tmp_path / "out.jsonl"
    assert run([source, "-o", out]) == 0
    guarded, literal, chart = (scored["task_reward"] for scored in read(out))
    assert run([source, "-o", out, "--preset", "paper", "reward.chart.tolerance=0.01"]) == 0
    paper, _, strict = (scored["task_reward"] for scored in read(out))
    assert (literal, chart, strict) == (paper, 1.0, 0.0)
    assert guarded < 0.2 < literal


def test_embeddings_come_from_a_checkpoint(tmp_path: Path) -> None:
    words = ["[UNK]", "red", "blue", "ball"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    import numpy as np

    rows = np.array([[1, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [1, 1, 0]], np.float32)
    save_file({"model.embed_tokens.weight": rows}, folder / "model.safetensors")
    row = {"id": "o", "task": "open", "response": "<think>x</think><answer>blue</answer>", "answer": "red"}
    out = tmp_path / "out.jsonl"
    assert run([write(tmp_path / "in.jsonl", row), "--embeddings", folder, "-o", out]) == 0
    assert read(out)[0]["task_reward"] == pytest.approx(0.6**3)  # sharpness 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.jsonl"], "absent.jsonl does not exist"),
        (["in.jsonl", "-o", "in.jsonl"], "is the file that is read"),
        (["in.jsonl", "-o", "no/such/folder.jsonl"], "cannot be written"),
        (["in.jsonl", "--preset", "fancy"], "fancy"),
        (["in.jsonl", "reward.chart.tolerence=1"], "did you mean reward.chart.tolerance?"),
        (["in.jsonl", "--embeddings", "."], "tokenizer.json"),
        (["broken.parquet"], "is no Parquet file"),
    ],
)
def test_mistakes_are_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", GOOD)
    (tmp_path / "broken.parquet").write_bytes(b"no")
    assert run(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_scoring_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", GOOD)
    code = f"""
import sys
from orchestration.cli import main
try:
    main(["score", {str(source)!r}])
except SystemExit as stop:
    found = sorted({{"torch", "ray", "vllm", "transformers"}} & set(sys.modules))
    sys.exit(f"imported {{found}}, exit {{stop.code}}" if found or stop.code else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_function_of_ones_own_is_given_metadata_and_images(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def score(request, images):\n"
        "    return 0.5, ' '.join([*(image.decode() for image in images), *request.metadata.values()])\n"
    )
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"png")
    row = {**GOOD, "metadata": {"page": "7", "size": 3}, "images": ["pictures/a.png"]}
    source = write(tmp_path / "in.jsonl", row, {**row, "id": "none", "images": []})
    own = [f"reward.functions.mine={tmp_path}/mine.py:score", f"reward.routes.{GOOD['task']}=mine"]
    assert run([source, "-o", tmp_path / "out.jsonl", *own]) == 0
    assert [line["explanations"] for line in read(tmp_path / "out.jsonl")] == [{"mine": "png 7 3"}, {"mine": "7 3"}]
    assert [line["task_reward"] for line in read(tmp_path / "out.jsonl")] == [0.5, 0.5]


def test_a_missing_image_is_named_by_row_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("def score(request, images): return 1")
    source = write(tmp_path / "in.jsonl", {**GOOD, "images": ["gone.png"]})
    own = [f"reward.functions.mine={tmp_path}/mine.py:score", f"reward.routes.{GOOD['task']}=mine"]
    assert run([source, *own]) == 2
    assert f"row a, line 1: {tmp_path}/gone.png: No such file" in capsys.readouterr().err


def test_a_function_of_ones_own_that_fails_is_named_and_its_traceback_is_in_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("def score(request): return 1 / 0")
    source = write(tmp_path / "in.jsonl", GOOD)
    own = [f"reward.functions.mine={tmp_path}/mine.py:score", f"reward.routes.{GOOD['task']}=mine"]
    assert run([source, "-o", tmp_path / "out.jsonl", *own]) == 0
    out = capsys.readouterr()
    assert "function_raised 1" in out.out
    assert f"a: mine: ZeroDivisionError at {tmp_path}/mine.py:1: division by zero" in out.err
    [row] = read(tmp_path / "out.jsonl")
    assert (row["task_reward"], row["reason"]) == (None, "function_raised")
    assert row["failure"].endswith("ZeroDivisionError: division by zero")
