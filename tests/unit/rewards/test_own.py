"""Reward functions of the user's: what they are given, what goes wrong in them, and the page that describes them."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conf.own_code import digest_of
from orchestration.cli import main
from rewards import MixedReward, Reason, RewardConfig, RewardError, RewardRequest, RewardResult
from rewards.core.config import RewardRule
from rewards.core.parts import OwnFunctionConfig

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "rewards" / "README.md").read_text().split("## A reward of your own")[1].split("\n## ")[0]


def wrap(answer: object) -> str:
    return f"<think>a</think><answer>{answer}</answer>"


def request(response: str, **fields: Any) -> RewardRequest:
    return RewardRequest(**({"task": "chart", "question": "?", "answer": "45", "response": response} | fields))


@pytest.fixture
def score(tmp_path: Path) -> Iterator[Any]:
    """Scores requests with a function, given as source; all are closed at the end."""
    opened: list[MixedReward] = []

    def run(source: str, *requests: RewardRequest, name: str = "score", **settings: Any) -> list[RewardResult]:
        file = tmp_path / f"own_{len(opened)}.py"
        file.write_text(textwrap.dedent(source))
        own = OwnFunctionConfig(path=f"{file}:{name}", **settings)
        opened.append(MixedReward(RewardConfig(routes={"chart": "mine"}, functions={"mine": own})))
        opened[-1].start()
        return opened[-1].score(requests)

    yield run
    for rewards in opened:
        rewards.close()


def children() -> set[int]:
    """Process ids of the children of this process, whether they have ended or not."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(folder.name))
    return found


FAULTY = """
    import math, time

    def score(request):
        number = int(request.parsed_answer)
        if number % 10 == 0:
            raise ValueError(f"no value for {number}")
        if number == 3:
            while True:
                time.sleep(3600)
        if number == 4:
            return math.nan
        if number == 5:
            return 7
        return number / 100
"""


def test_a_function_that_raises_hangs_and_returns_nonsense_costs_those_completions_alone(score: Any) -> None:
    before = children()
    numbers = list(range(1, 31))
    results = score(FAULTY, *(request(wrap(number)) for number in numbers), timeout_s=1.0)
    reasons = {number: result.reason for number, result in zip(numbers, results, strict=True)}

    assert {number: reason for number, reason in reasons.items() if reason is not Reason.OK} == {
        3: Reason.FUNCTION_TIMEOUT,
        4: Reason.NOT_FINITE,
        5: Reason.OUT_OF_RANGE,
        10: Reason.FUNCTION_RAISED,
        20: Reason.FUNCTION_RAISED,
        30: Reason.FUNCTION_RAISED,
    }
    by_number = dict(zip(numbers, results, strict=True))
    assert all(by_number[n].task_reward == n / 100 for n in numbers if reasons[n] is Reason.OK)
    assert all(result.reward is None for number, result in by_number.items() if reasons[number].is_of_own)
    raised = (by_number[10].failure or "").splitlines()
    assert re.fullmatch(r"mine: ValueError at .*own_0\.py:7: no value for 10", raised[0])
    assert raised[-1] == "ValueError: no value for 10"
    assert 'own_0.py", line 10 in score' in (by_number[3].failure or "")
    assert "returned nan; return a number in [0, 1]" in (by_number[4].failure or "")
    assert "returned 7" in (by_number[5].failure or "")
    assert len(children() - before) == 1  # the one that is kept


ODD = """
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    class Unsure(float):
        def __float__(self):
            raise ValueError("no number yet")

    VALUES = {1: 10**400, 2: -(10**400), 3: -0.0, 4: 1.0000001, 5: Unsure(0.5), 6: (0.5, "half \\ud800 of a pair")}

    def score(request):
        number = int(request.parsed_answer)
        if number == 7:
            raise Mute
        if number == 8:
            raise ValueError("long " * 100_000)
        return VALUES[number]

    async def at_once(request):
        return score(request)

    def of_group(requests):
        return [VALUES.get(int(request.parsed_answer), 2.0) for request in requests]
"""


@pytest.mark.parametrize("name", ["score", "at_once", "of_group"])
def test_odd_values_and_exceptions_cost_one_completion_and_no_process(score: Any, name: str) -> None:
    results = score(ODD, *(request(wrap(number)) for number in range(1, 9)), name=name)
    raised = [Reason.FUNCTION_RAISED, Reason.FUNCTION_RAISED]
    last = [Reason.OUT_OF_RANGE, Reason.OUT_OF_RANGE] if name == "of_group" else raised
    assert [result.reason for result in results] == [
        Reason.NOT_FINITE,
        Reason.NOT_FINITE,
        Reason.OK,
        Reason.OUT_OF_RANGE,
        Reason.FUNCTION_RAISED,
        Reason.OK,
        *last,
    ]
    assert str(results[2].task_reward) == "0.0"
    assert "returned 1.0000001;" in (results[3].failure or "")
    assert results[5].explanations == (("mine", "half ? of a pair"),)
    assert all(len(result.failure or "") < 10_000 for result in results)


def test_what_a_function_does_to_metadata_reaches_no_other_completion(score: Any) -> None:
    source = "def score(request):\n return 1.0 if request.metadata.pop('unit', None) else 0.0\n"
    results = score(source, *(request(wrap(number), metadata={"unit": "cm"}) for number in range(3)))
    assert [result.task_reward for result in results] == [1.0, 1.0, 1.0]


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    before = children()
    file = tmp_path / "mine.py"
    file.write_text("import subprocess\nCHILD = subprocess.Popen(['sleep', '600'])\ndef score(request):\n return 1.0\n")
    config = RewardConfig(routes={"chart": "mine"}, functions={"mine": f"{file}:score"})
    with MixedReward(config) as rewards:
        assert rewards.score([request(wrap(1))])[0].reward == 1.0
        [worker] = children() - before
        group = [path for path in Path("/proc").glob("[0-9]*") if _group_of(path) == worker]
        assert len(group) == 2  # the function's process and what it has started
    assert children() == before
    assert not [path for path in Path("/proc").glob("[0-9]*") if _group_of(path) == worker]


def _group_of(process: Path) -> int | None:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[2])


def test_a_function_that_hangs_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "mine.py").write_text(
        "import time\n"
        f"def score(request):\n held = open({str(pipe)!r}, 'w')\n print('here', file=held, flush=True)\n"
        " time.sleep(600)\n"
    )
    code = f"""
from rewards import MixedReward, RewardConfig, RewardRequest
config = RewardConfig(routes={{"chart": "mine"}}, functions={{"mine": {f"{tmp_path}/mine.py:score"!r}}})
MixedReward(config).score([RewardRequest(task="chart", question="", response="", answer="4")])
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    with pipe.open() as held:  # waits for the function to open it
        assert held.readline() == "here\n"
        parent.kill()
        parent.wait()
        assert held.read() == ""  # waits for the function's process to end


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        ("return 'x'", Reason.WRONG_TYPE, "returned 'x', a str; return a number, or (number, text)"),
        ("return None", Reason.WRONG_TYPE, "returned None, a NoneType"),
        ("return -0.1", Reason.OUT_OF_RANGE, "returned -0.1"),
        ("return float('inf')", Reason.NOT_FINITE, "returned inf"),
        ("import os; os._exit(3)", Reason.FUNCTION_DIED, "its process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", Reason.FUNCTION_DIED, "its process ended with signal 9"),
        ("raise SystemExit(0)", Reason.FUNCTION_RAISED, "SystemExit"),
        ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", Reason.FUNCTION_TIMEOUT, "line 2 in score"),
    ],
)
def test_whatever_goes_wrong_has_its_reason_and_the_next_is_scored(
    score: Any, line: str, reason: Reason, message: str
) -> None:
    source = f"def score(request):\n    if request.parsed_answer == 'bad': {line}\n    return True\n"
    first, bad, last = score(source, request(wrap(1)), request(wrap("bad")), request(wrap(2)), timeout_s=1.0)
    assert (first.task_reward, last.task_reward) == (1.0, 1.0)
    assert (bad.reward, bad.task_reward, bad.reason) == (None, None, reason)
    assert message in (bad.failure or "")
    assert not bad.reason.is_parse_failure


def test_a_function_sees_what_ours_see(score: Any) -> None:
    source = """
        import json

        def score(request, images, base):
            seen = [request.task, request.source, request.question, request.response, request.parsed_answer,
                    request.reference, list(request.options), request.image_sizes, request.coord_mode,
                    dict(request.metadata), request.truncated, request.history,
                    [image.decode() for image in images], base]
            return 0.5, json.dumps(seen)
    """
    given = request(
        "no tags",
        source="own/set",
        question="Which?",
        history=(("user", "Who?"), ("assistant", "He.")),
        answer="B",
        options=("cat", "dog"),
        image_sizes=((9, 8),),
        coord_mode="norm1000",
        metadata={"author": "Zoë"},
        images=(b"png",),
        truncated=True,
    )
    [result] = score(source, given, parameters={"base": [1, {"two": 2.0}]})
    assert json.loads(dict(result.explanations)["mine"]) == [
        "chart", "own/set", "Which?", "no tags", None, "B", ["cat", "dog"], [[9, 8]], "norm1000", {"author": "Zoë"},
        True, [["user", "Who?"], ["assistant", "He."]], ["png"], [1, {"two": 2.0}],
    ]  # fmt: skip
    assert (result.task_reward, result.reason) == (0.5, Reason.TRUNCATED)  # it says that there was no answer


def test_images_are_read_only_for_functions_that_take_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def plain(request): return 1\ndef seeing(request, images): return 1\n")
    for name, reads in (("plain", False), ("seeing", True)):
        config = RewardConfig(
            routes={"chart": {"chart": 0.5, "mine": 0.5}, "math": "math"},
            functions={"mine": f"{tmp_path}/mine.py:{name}"},
        )
        with MixedReward(config) as rewards:
            assert rewards.reads_images("chart", "") is reads
            assert rewards.reads_images("math", "") is False


def test_rows_of_another_question_metadata_or_image_are_never_one_group(score: Any) -> None:
    source = """
        def score(requests):
            assert len({(r.question, r.reference, str(r.metadata)) for r in requests}) == 1
            return [len(requests) / 10] * len(requests)
    """
    rows = [
        request(wrap(1)),
        request(wrap(2), question="Another?"),
        request(wrap(3)),
        request(wrap(4), metadata={"page": "2"}),
        request(wrap(5), images=(b"a",)),
        request(wrap(6), images=(b"b",)),
        request(wrap(7), metadata={"page": "2"}),
        request(wrap(8), history=(("user", "Who?"), ("assistant", "He."))),
    ]
    assert [result.task_reward for result in score(source, *rows)] == [0.2, 0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.1]


def test_a_function_of_groups_may_compare_and_one_bad_value_is_one_completion(score: Any) -> None:
    source = """
        async def rank(completions: "list[RewardInput]"):
            best = max(len(row.response) for row in completions)
            return [float("nan") if "nan" in row.response else (float(len(row.response) == best), "longest")
                    for row in completions]
    """
    results = score(source, *(request(text) for text in ("a", "nan", "four")), name="rank")
    assert [result.task_reward for result in results] == [0.0, None, 1.0]
    assert results[1].reason is Reason.NOT_FINITE


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return [1.0]", Reason.WRONG_TYPE),
        ("raise KeyError('x')", Reason.FUNCTION_RAISED),
        ("import time; time.sleep(600)", Reason.FUNCTION_TIMEOUT),
        ("import os; os._exit(1)", Reason.FUNCTION_DIED),
    ],
)
def test_a_function_of_groups_that_fails_leaves_its_whole_group_without_a_reward(
    score: Any, body: str, reason: Reason
) -> None:
    source = f"def score(requests):\n    if requests[0].question == 'bad': {body}\n    return [1] * len(requests)\n"
    bad = [request(wrap(n), question="bad") for n in range(3)]
    *failed, fine = score(source, *bad, request(wrap(1)), timeout_s=1.0)
    assert [(result.reward, result.reason) for result in failed] == [(None, reason)] * 3
    assert fine.task_reward == 1.0


def test_coroutines_of_a_group_run_at_the_same_time_and_come_in_order(score: Any) -> None:
    source = """
        import asyncio, time
        waiting = asyncio.Event()

        async def score(request):
            number = int(request.parsed_answer)
            if number == 1:
                await waiting.wait()  # for the last of the group
            if number == 2:
                await asyncio.sleep(600)
            if number == 3:
                raise ValueError("no")
            if number == 4:
                waiting.set()
            if number == 5:
                time.sleep(600)  # blocks all the others
            return number / 10
    """
    results = score(source, *(request(wrap(number)) for number in (1, 2, 3, 4)), timeout_s=2.0)
    assert [result.task_reward for result in results] == [0.1, None, None, 0.4]
    assert [result.reason for result in results[1:3]] == [Reason.FUNCTION_TIMEOUT, Reason.FUNCTION_RAISED]
    blocked = score(source, *(request(wrap(number)) for number in (5, 4, 6)), timeout_s=1.0)
    assert [(result.task_reward, result.reason) for result in blocked] == [
        (None, Reason.FUNCTION_TIMEOUT), (0.4, Reason.OK), (0.6, Reason.OK),
    ]  # fmt: skip


def test_what_a_function_prints_and_reads_does_not_disturb_its_verdicts(score: Any) -> None:
    source = (
        "import sys\ndef score(request):\n print('{}'); sys.stdout.flush()\n return float(sys.stdin.read() == '')\n"
    )
    assert [result.task_reward for result in score(source, request(wrap(1)), request(wrap(2)))] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("def score(row): return 1", {}, "takes (row); call its first parameter `request` for one completion"),
        ("def score(): return 1", {}, "takes ()"),
        ("score = 5", {}, "is no function"),
        ("class score: pass", {}, "is no function"),
        ("def scores(request): return 1", {}, "has no score; did you mean scores?"),
        ("import no_such_module\ndef score(request): return 1", {}, "No module named 'no_such_module'"),
        ("def score(request): return 1", {"parameters": {"x": 1}}, "got an unexpected keyword argument 'x'"),
        ("def score(request, x): return 1", {}, "missing a required argument: 'x'"),
        ("import time; time.sleep(600)", {"start_timeout_s": 1.0}, "gave no answer within 1 s"),
        ("import os; os._exit(2)", {}, "ended while it was asked"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_before_anything_is_scored(
    score: Any, source: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RewardError, match=r"reward\.functions\.mine") as refused:
        score(source, request(wrap(1)), **settings)
    assert message in str(refused.value)
    assert str(refused.value).count("reward.functions.mine=") == 1


def test_a_missing_file_is_refused_where_rewards_are_built(tmp_path: Path) -> None:
    config = RewardConfig(functions={"mine": f"{tmp_path}/nowhere.py:score"}, routes={"chart": "mine"})
    with pytest.raises(RewardError, match=r"reward\.functions\.mine=.*nowhere\.py is no file"):
        MixedReward(config)


@pytest.mark.parametrize("name", ["chart", "format", "mean", "length", "a-b", "a/b", "routes"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    with pytest.raises(RewardError, match=rf"reward\.functions has the name {name!r}"):
        RewardConfig(functions={name: "mine.py:score"})


def test_a_path_that_names_no_code_is_refused() -> None:
    with pytest.raises(RewardError, match=r"names no code; write FILE\.py:NAME"):
        RewardConfig(functions={"mine": "chart"})


def test_rules_may_route_to_it_with_parameters_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(request, value, plus=0.0): return value + plus\n")
    own = OwnFunctionConfig(path=f"{file}:score", parameters={"value": 0.25})
    rules = (
        RewardRule(source="a", task="chart", function="mine", parameters={"plus": 0.5}),
        RewardRule(source="b", task="chart", function="mine", format_weight=0.0),
    )
    with MixedReward(RewardConfig(functions={"mine": own}, rules=rules)) as rewards:
        results = rewards.score([request(wrap(45), source=source) for source in ("a", "b", "c")])
    assert [dict(result.breakdown).get("mine") for result in results] == [0.75, 0.25, None]
    assert results[1].reward == 0.25
    assert results[2].breakdown["chart"] == 1.0


def test_explain_shows_what_the_function_says_and_where_it_raised(score: Any, tmp_path: Path) -> None:
    said = r"short is \x1b[31mgood\n"
    (tmp_path / "mine.py").write_text(f"def score(request): return 1 / len(request.response), '{said}'\n")
    config = RewardConfig(functions={"mine": f"{tmp_path}/mine.py:score"}, routes={"chart": "mine"})
    with MixedReward(config) as rewards:
        shown = "\n".join(rewards.explain(request("four")))
        failed = "\n".join(rewards.explain(request("")))
    assert f"says: {said}" in shown  # written out, so that it steers no terminal
    assert "task       0.25, weighs 0.9" in shown
    assert "ZeroDivisionError: division by zero" in failed
    assert "masked from its group" in failed


def block(language: str, place: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[place]


def test_the_page_s_function_scores_the_page_s_rows_by_the_page_s_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(block("python"))
    (tmp_path / "rows.jsonl").write_text(block("json"))
    commands = [line for n in range(3) for line in block("bash", n).replace("\\\n", " ").splitlines()]
    scoring = [shlex.split(line)[1:] for line in commands if line.startswith("mixed-r1 score")]
    assert len(scoring) == 4
    printed = []
    for words in scoring:
        output = [] if "--explain" in words else ["-o", "out.jsonl"]
        with pytest.raises(SystemExit) as ended:
            main([*words, *output])
        assert ended.value.code == 0, words
        printed.append(capsys.readouterr().out)
        if output:
            rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
            values = [(row["task_reward"], row["explanations"]["mine"]) for row in rows]
            if "chart: 0.7" in " ".join(words):  # 46 is within 5 % of 45: 0.7 x 1 + 0.3 x 0.2
                assert [value for value, _ in values] == pytest.approx([1.0, 0.76])
                assert rows[1]["parts"] == {"format": 1.0, "chart": 1.0, "mine": pytest.approx(0.2)}
            else:
                assert values == [(1.0, "4 words of thinking"), (0.2, "2 words of thinking")]
    assert "says: 4 words of thinking" in printed[1]
    digest_of("reward.functions.mine", "my_rewards.py:score")  # as a resumed run compares it


def test_the_front_page_shows_the_same_function() -> None:
    assert block("python") in (Path(__file__).parents[3] / "README.md").read_text()
