"""The judge reward against a real HTTP server on this machine."""

import base64
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.settings.strict import build
from rewards import MixedReward, RewardConfig
from rewards.core.base import GoldError, Grade, Reason, RewardError, RewardRequest
from rewards.core.config import RewardRule
from rewards.core.judge_config import PLACEHOLDERS, JudgeConfig, JudgeScale
from rewards.functions.judge import JudgeReward, aggregate
from rewards.functions.judge_cache import ReplyCache
from rewards.functions.judge_client import Reply
from rewards.proof import ReferenceProof
from tests.unit.judge_server import Answer, FakeJudge, judging

REQUEST = RewardRequest(task="open", question="What is it?", response="", answer="a dog", options=("cat", "dog"))


def with_images(images: tuple[bytes, ...]) -> RewardRequest:
    return replace(REQUEST, images=images, image_sizes=((8, 8),) * len(images))


def no_pause(_: float) -> None:
    pass


def judge_of(server: FakeJudge, *, pauses: list[float] | None = None, **settings: Any) -> JudgeReward:
    values = {"model": "m", "prompt": "{answer}", "address": server.address, "cache": False, "wait_s": 20, **settings}
    return JudgeReward(JudgeConfig(**values), "wise", pause=no_pause if pauses is None else pauses.append)


def graded(judge: JudgeReward, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
    """Grade answers to one request."""
    return judge.grade_completions([request] * len(answers), answers)


def always(answer: Answer) -> Callable[[dict[str, Any]], Answer]:
    return lambda _: answer


def in_turn(*answers: Answer) -> Callable[[dict[str, Any]], Answer]:
    """Return the answers in their order, then the last one again."""
    left = list(answers)
    lock = threading.Lock()

    def reply(_: dict[str, Any]) -> Answer:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return reply


def test_a_reply_becomes_a_reward_and_what_it_cost_is_counted() -> None:
    with judging(lambda body: Answer(f"Score: {body['messages'][0]['content']}")) as server:
        judge = judge_of(server)
        grades = graded(judge, REQUEST, ["7", "0", "10"])
        assert [grade.value for grade in grades] == [0.7, 0.0, 1.0]
        assert {grade.reason for grade in grades} == {Reason.OK}
        assert judge.take_counts() == {
            "judge/wise/num_requests": 3.0,
            "judge/wise/num_votes": 3.0,
            "judge/wise/num_prompt_tokens": 33.0,
            "judge/wise/num_completion_tokens": 9.0,
        }
        assert judge.take_counts() == {}
        judge.close()


def test_the_prompt_holds_what_the_template_names() -> None:
    prompt = "{question}|{reference}|{options}|{answer}|{response}|{{0 to 10}}"
    request = replace(REQUEST, response="<think>hm</think>")
    with judging(always(Answer("5"))) as server:
        graded(judge_of(server, prompt=prompt, system="You judge."), request, ["{question} a {dog}"])
        [body] = server.bodies
    assert body["messages"] == [
        {"role": "system", "content": "You judge."},
        {
            "role": "user",
            "content": "What is it?|a dog|A. cat\nB. dog|{question} a {dog}|<think>hm</think>|{0 to 10}",
        },
    ]
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("m", 0.0, 512, 0)


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("{answr}", "{answr}"),
        ("{answer} {0}", "{0}"),
        ("{answer!r}", "{answer!r}"),
        ("{answer.text}", "{answer.text}"),
        ("{answer} {", "double literal braces"),
        ("{question}", "neither {answer} nor {response}"),
        ("file:/nowhere/rubric.txt", "cannot be read"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused_at_once(prompt: str, named: str) -> None:
    with pytest.raises(RewardError) as refused:
        JudgeConfig(model="m", prompt=prompt, address="http://x/v1")
    assert named in str(refused.value)


def test_the_prompt_of_a_file_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "rubric.txt").write_text("Grade: {answer} ü")
    config = JudgeConfig(model="m", prompt=f"file:{tmp_path / 'rubric.txt'}", address="http://x/v1")
    assert config.prompt == "Grade: {answer} ü"


def test_a_prompt_may_show_the_earlier_turns() -> None:
    config = JudgeConfig(model="m", prompt="{history}\n{question}: {answer}", address="http://x/v1")
    told = replace(REQUEST, history=(("user", "<image>Who?"), ("assistant", "He {answer}.")))
    assert config.fill(told, "a", "") == "user: <image>Who?\nassistant: He {answer}.\nWhat is it?: a"
    assert config.fill(REQUEST, "a", "") == "\nWhat is it?: a"


def test_a_row_without_the_metadata_that_the_prompt_names_is_refused() -> None:
    config = JudgeConfig(model="m", prompt="{answer} {metadata.rubric}", address="http://x/v1")
    with pytest.raises(GoldError, match=r"metadata\.rubric"):
        config.fill(REQUEST, "a", "")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"votes": 3}, "temperature"),
        ({"address": "localhost:8000"}, "http://"),
        ({"body": {"messages": []}}, "messages"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(RewardError, match=named):
        JudgeConfig(**{"model": "m", "prompt": "{answer}", "address": "http://x/v1", **settings})


@pytest.mark.parametrize(
    ("scale", "reply", "value"),
    [
        ({}, "7 of 10 points, so I say 4.", 0.4),
        ({}, "<think>9? 10?</think> 3", 0.3),
        ({}, "11", None),
        ({}, "-1", None),
        ({}, "no number", None),
        ({}, "", None),
        ({}, "9" * 400, None),
        ({}, "Score: 7/10", 0.7),
        ({}, "**8** out of 10", 0.8),
        ({}, "3/4 of it is right: 6", 0.6),
        ({}, "<think>The best would be 10", None),
        ({"low": -1, "high": 1}, "-0.5", 0.25),
        ({"pattern": r"Score: (\d+)"}, "Score: 2. Of 10.", 0.2),
        ({"pattern": r"Score: (\d+)"}, "2", None),
        ({"words": {"yes": 1.0, "no": 0.0}}, "Not no: YES!", 1.0),
        ({"words": {"yes": 1.0, "no": 0.0}}, "I know nothing", None),
        ({"words": {"good": 0.5, "very good": 1.0}}, "It is very good", 1.0),
        ({"words": {"yes": 1.0, "no": 0.0}, "pattern": "Verdict: (.*)"}, "Verdict: no\nyes", 0.0),
    ],
)
def test_a_reply_is_read_by_the_scale(scale: dict[str, Any], reply: str, value: float | None) -> None:
    assert JudgeScale(**scale).value(reply) == value


@pytest.mark.parametrize(
    "scale",
    [{"low": 1, "high": 1}, {"high": math.inf}, {"pattern": "("}, {"pattern": "(a)(b)"}, {"words": {"a": 2.0}}],
)
def test_a_scale_that_gives_no_number_is_refused(scale: dict[str, Any]) -> None:
    with pytest.raises(RewardError, match="scale"):
        JudgeScale(**scale)


@pytest.mark.parametrize(("how", "value"), [("mean", 0.5), ("median", 0.4), ("majority", 0.4)])
def test_votes_have_seeds_of_their_own_and_are_aggregated(how: str, value: float) -> None:
    said = {5: "4", 6: "4", 7: "7"}
    with judging(lambda body: Answer(said[body["seed"]])) as server:
        [grade] = graded(judge_of(server, votes=3, temperature=1.0, seed=5, aggregate=how), REQUEST, ["a"])
        assert sorted(body["seed"] for body in server.bodies) == [5, 6, 7]
    assert grade.value == pytest.approx(value)


def test_a_tie_of_votes_counts_as_the_lower_one() -> None:
    assert aggregate([1.0, 0.0, 0.0, 1.0, 0.5], "majority") == 0.0


def test_junk_votes_are_left_out_and_counted() -> None:
    with judging(lambda body: Answer({0: "4", 1: "maybe", 2: "12"}[body["seed"]])) as server:
        judge = judge_of(server, votes=3, temperature=1.0)
        [grade] = graded(judge, REQUEST, ["a"])
    assert grade.value == 0.4
    assert judge.take_counts()["judge/wise/num_failed_votes"] == 2.0


def test_an_answer_without_any_vote_is_masked_with_the_reply_and_counted() -> None:
    with judging(always(Answer("I cannot say, but 99 points!"))) as server:
        judge = judge_of(server)
        [grade] = graded(judge, REQUEST, ["a"])
    assert grade.value is None
    assert grade.reason is Reason.GRADER_FAILED
    assert "99 points!" in (grade.failure or "")
    assert judge.take_counts()["judge/wise/num_failed"] == 1.0


def test_a_pattern_that_finds_nothing_is_told_with_the_reply() -> None:
    scale = JudgeScale(pattern=r"Grade: (\\d+)")  # a backslash too many, as shells make them
    with judging(always(Answer("Grade: 5"))) as server:
        [grade] = graded(judge_of(server, scale=scale), REQUEST, ["a"])
    assert f"has a value by scale.pattern {scale.pattern!r}: 'Grade: 5'" in (grade.failure or "")


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(status=429, raw=b"slow down"),
        Answer(status=500, raw=b"broken"),
        Answer(status=503, raw=b""),
        Answer(raw=b"<html>a proxy</html>"),
        Answer(raw=b'{"choices": []}'),
        Answer(hangs_up=True),
    ],
)
def test_what_may_pass_is_asked_again(refusal: Answer) -> None:
    with judging(in_turn(refusal, refusal, Answer("8"))) as server:
        judge = judge_of(server, retries=2)
        [grade] = graded(judge, REQUEST, ["a"])
        assert (grade.value, len(server.bodies)) == (0.8, 3)


def test_pauses_grow_and_a_server_may_ask_for_its_own() -> None:
    pauses: list[float] = []
    later = Answer(status=429, raw=b"", headers=(("Retry-After", "7"),))
    with judging(in_turn(Answer(status=500), Answer(status=500), later, Answer("8"))) as server:
        graded(judge_of(server, retries=3, pauses=pauses), REQUEST, ["a"])
    assert pauses == [1.0, 2.0, 7.0]


def test_retries_end_and_the_answer_is_masked_with_the_cause() -> None:
    with judging(always(Answer(status=502, raw=b"bad gateway"))) as server:
        judge = judge_of(server, retries=2)
        [grade] = graded(judge, REQUEST, ["a"])
        assert len(server.bodies) == 3
    assert grade.value is None
    assert "status 502: bad gateway, after 3 tries" in (grade.failure or "")
    assert judge.take_counts()["judge/wise/num_retries"] == 2.0


@pytest.mark.parametrize("status", [301, 400, 401, 404])
def test_what_will_not_pass_is_asked_once(status: int) -> None:
    with judging(always(Answer(status=status, raw=b"wrong", headers=(("Location", "/v2"),)))) as server:
        [grade] = graded(judge_of(server, retries=5), REQUEST, ["a"])
        assert len(server.bodies) == 1
    assert f"status {status}: wrong" in (grade.failure or "")


def test_a_slow_reply_counts_as_a_try() -> None:
    ends = threading.Event()

    def reply(_: dict[str, Any]) -> Answer:
        ends.wait()
        return Answer("8")

    with judging(reply) as server:
        judge = judge_of(server, retries=1, timeout_s=0.05)
        [grade] = graded(judge, REQUEST, ["a"])
        ends.set()
        assert judge.take_counts()["judge/wise/num_requests"] == 2.0
    assert grade.value is None
    assert "timeout_s=0.05, after 2 tries" in (grade.failure or "")


def test_a_judge_that_is_away_is_waited_for_and_found_at_its_new_address(tmp_path: Path) -> None:
    place = tmp_path / "address"
    with judging(always(Answer("1"))) as gone:
        place.write_text(f"{gone.address}\nfirst-key\n")
    with judging(always(Answer("6"))) as server:
        moved: list[float] = []

        def move(seconds: float) -> None:
            moved.append(seconds)
            place.write_text(f"{server.address}\nsecond-key\n")

        config = JudgeConfig(model="m", prompt="{answer}", address=f"file:{place}", cache=False, retries=0)
        judge = JudgeReward(config, "wise", pause=move)
        [grade] = graded(judge, REQUEST, ["a"])
        assert (grade.value, len(moved)) == (0.6, 1)
        assert server.headers[0]["Authorization"] == "Bearer second-key"
        assert judge.take_counts()["judge/wise/num_waits"] == 1.0


def test_waiting_for_a_judge_ends(tmp_path: Path) -> None:
    config = JudgeConfig(model="m", prompt="{answer}", address=f"file:{tmp_path / 'none'}", cache=False, wait_s=0)
    [grade] = graded(JudgeReward(config, "wise", pause=no_pause), REQUEST, ["a"])
    assert grade.value is None
    assert "holds no address yet" in (grade.failure or "")


def test_a_judge_without_a_server_says_what_to_do() -> None:
    config = JudgeConfig(model="/models/judge", prompt="{answer}")
    [grade] = graded(JudgeReward(config, "wise", pause=no_pause), REQUEST, ["a"])
    assert "give it an address" in (grade.failure or "")


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    barrier = threading.Barrier(3)

    def reply(_: dict[str, Any]) -> Answer:
        barrier.wait()  # passes only where three are there at once
        return Answer("5")

    with judging(reply) as server:
        grades = graded(judge_of(server, max_in_flight=3), REQUEST, [str(i) for i in range(12)])
        assert server.most_at_once == 3
    assert [grade.value for grade in grades] == [0.5] * 12


def test_equal_answers_of_a_group_are_asked_about_once() -> None:
    with judging(always(Answer("5"))) as server:
        judge = judge_of(server)
        assert [grade.value for grade in graded(judge, REQUEST, ["a", "a", "b"])] == [0.5] * 3
        assert len(server.bodies) == 2
        assert judge.take_counts()["judge/wise/num_cached"] == 1.0


def test_pictures_come_as_data_urls_before_the_prompt() -> None:
    png, jpeg = b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff..."
    request = with_images((png, jpeg))
    with judging(always(Answer("5"))) as server:
        graded(judge_of(server, images=True), request, ["a"])
        graded(judge_of(server), request, ["a"])
    first, second = server.bodies
    assert first["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}},
        {"type": "text", "text": "a"},
    ]
    assert second["messages"][0]["content"] == "a"


def test_pictures_that_are_missing_or_of_no_known_kind_are_failures() -> None:
    with judging(always(Answer("5"))) as server:
        judge = judge_of(server, images=True)
        [missing] = graded(judge, replace(REQUEST, image_sizes=((8, 8),)), ["a"])
        [unknown] = graded(judge, with_images((b"nonsense",)), ["a"])
        assert server.bodies == []
    assert (missing.value, unknown.value) == (None, None)
    assert "not at hand" in (missing.failure or "")
    assert "neither PNG" in (unknown.failure or "")


def test_an_answer_that_is_too_long_is_not_asked_about() -> None:
    with judging(always(Answer("5"))) as server:
        long, short = graded(judge_of(server, max_chars=3), REQUEST, ["abcd", "abc"])
        assert len(server.bodies) == 1
    assert (long.value, long.reason, short.value) == (0.0, Reason.TOO_LONG, 0.5)


def test_a_completion_without_an_answer_is_asked_about_only_where_its_whole_text_is_judged() -> None:
    cut = replace(REQUEST, response="<think>so", truncated=True)
    requests = [replace(REQUEST, response="no tags"), cut, replace(REQUEST, response="<answer>a</answer>")]
    with judging(always(Answer("5"))) as server:
        by_answer = judge_of(server).grade_completions(requests, [None, None, "a"])
        by_response = judge_of(server, prompt="{response}").grade_completions(requests, [None, None, "a"])
        asked = [body["messages"][0]["content"] for body in server.bodies]
    assert [(grade.value, grade.reason) for grade in by_answer] == [
        (0.0, Reason.OK),
        (0.0, Reason.OK),
        (0.5, Reason.OK),
    ]
    assert [grade.value for grade in by_response] == [0.5] * 3
    assert asked[0] == "a"
    assert sorted(asked[1:]) == ["<answer>a</answer>", "<think>so", "no tags"]


@pytest.mark.parametrize("status", [200, 401])
def test_the_key_is_sent_and_never_shown(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "top-secret-value")
    caplog.set_level(logging.DEBUG)
    echo = Answer(status=status, raw=b"the key top-secret-value is not known")
    with judging(always(echo)) as server:
        judge = judge_of(server, key_variable="JUDGE_KEY", retries=0)
        [grade] = graded(judge, REQUEST, ["a"])
        assert server.headers[0]["Authorization"] == "Bearer top-secret-value"
        told = f"{grade} {judge._config} {judge.explain_completion(REQUEST, 'a')} {caplog.text}"
    assert "the key *** is not known" in told
    assert "top-secret-value" not in told


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with judging(always(Answer("5"))) as server:
        [grade] = graded(judge_of(server, key_variable="JUDGE_KEY"), REQUEST, ["a"])
        assert server.bodies == []
    assert "JUDGE_KEY" in (grade.failure or "")


def test_what_is_cached_is_not_asked_again_and_scores_the_same(tmp_path: Path) -> None:
    said = iter(range(1, 11))
    lock = threading.Lock()

    def reply(_: dict[str, Any]) -> Answer:
        with lock:
            return Answer(str(next(said)))

    cached = {"cache": True, "cache_dir": str(tmp_path / "replies"), "votes": 2, "temperature": 1.0}
    with judging(reply) as server:
        first = graded(judge_of(server, **cached), REQUEST, ["a", "b"])
        again = judge_of(server, **cached)
        assert graded(again, REQUEST, ["a", "b"]) == first
        assert len(server.bodies) == 4
        assert again.take_counts()["judge/wise/num_cached"] == 4.0
        graded(judge_of(server, **{**cached, "votes": 3}), REQUEST, ["a"])
        assert len(server.bodies) == 5  # the third vote alone
        graded(judge_of(server, **cached, scale=JudgeScale(high=20)), REQUEST, ["a", "b"])
        assert len(server.bodies) == 5  # the same replies, read otherwise


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "n"},
        {"prompt": "{answer}."},
        {"prompt": "{answer} {question}"},
        {"system": "Be strict."},
        {"temperature": 0.5},
        {"max_tokens": 8},
        {"seed": 1},
        {"body": {"top_p": 0.5}},
    ],
)
def test_what_the_judge_would_see_otherwise_is_asked(tmp_path: Path, changed: dict[str, Any]) -> None:
    with judging(always(Answer("5"))) as server:
        for settings in ({}, changed):
            graded(judge_of(server, **{"cache": True, "cache_dir": str(tmp_path), **settings}), REQUEST, ["a"])
        assert len(server.bodies) == 2


def test_other_pictures_are_another_question(tmp_path: Path) -> None:
    with judging(always(Answer("5"))) as server:
        judge = judge_of(server, images=True, cache=True, cache_dir=str(tmp_path))
        for data in (b"\x89PNG one", b"\x89PNG two", b"\x89PNG one"):
            graded(judge, with_images((data,)), ["a"])
        assert len(server.bodies) == 2


def test_a_failed_vote_is_cached_but_a_request_without_a_reply_is_not(tmp_path: Path) -> None:
    cached = {"cache": True, "cache_dir": str(tmp_path), "retries": 0}
    with judging(in_turn(Answer("junk"), Answer(status=500), Answer("5"))) as server:
        assert graded(judge_of(server, **cached), REQUEST, ["a"])[0].value is None
        assert graded(judge_of(server, **cached), REQUEST, ["a"])[0].value is None
        assert len(server.bodies) == 1
        assert graded(judge_of(server, **cached), REQUEST, ["b"])[0].value is None
        assert graded(judge_of(server, **cached), REQUEST, ["b"])[0].value == 0.5


WRITER = """
import sys
from pathlib import Path
from rewards.functions.judge_cache import ReplyCache
from rewards.functions.judge_client import Reply
from rewards.proof import ReferenceProof
cache = ReplyCache(Path(sys.argv[1]))
number = 0
while True:
    cache.add(f"{int(sys.argv[2]) + number:032x}", Reply(f"reply {number} " + "x" * 5000, False, 1, 1))
    print(number, flush=True)
    number += 1
"""


def test_two_processes_write_one_cache_and_lose_nothing_when_they_are_killed(tmp_path: Path) -> None:
    starts = (0, 10**9)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE, env=environment
        )
        for start in starts
    ]
    done = []
    for writer in writers:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        done.append(50 + len([line for line in writer.stdout.read().split(b"\n") if line]))
        writer.wait()
        writer.stdout.close()
    cache = ReplyCache(tmp_path)
    for start, count in zip(starts, done, strict=True):
        for number in range(count):
            reply = cache.get(f"{start + number:032x}")
            assert reply is not None
            assert reply.text.startswith(f"reply {number} x")


def test_a_line_that_a_kill_cut_short_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    first = ReplyCache(tmp_path)
    first.add("a" * 32, Reply("kept", False, 1, 1))
    first.add("b" * 32, Reply("cut", False, 1, 1))
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    second = ReplyCache(tmp_path)
    assert second.get("b" * 32) is None
    second.add("b" * 32, Reply("again", True, 2, 3))
    third = ReplyCache(tmp_path)
    assert third.get("a" * 32) == Reply("kept", False, 1, 1)
    assert third.get("b" * 32) == Reply("again", True, 2, 3)


def test_what_another_process_adds_is_found_without_a_restart(tmp_path: Path) -> None:
    here, there = ReplyCache(tmp_path), ReplyCache(tmp_path)
    there.add("c" * 32, Reply("new", False, 1, 1))
    assert here.get("c" * 32) is None
    here.refresh()
    assert here.get("c" * 32) == Reply("new", False, 1, 1)
    assert json.loads(next(tmp_path.iterdir()).read_text())["reply"] == "new"


def judged(address: str, **settings: Any) -> dict[str, JudgeConfig]:
    values = {"model": "m", "prompt": "{answer}", "address": address, "cache": False, "wait_s": 20, **settings}
    return {"wise": JudgeConfig(**values)}


def completion(answer: str, **fields: Any) -> RewardRequest:
    return replace(REQUEST, response=f"<think>.</think><answer>{answer}</answer>", **fields)


def test_a_judge_is_used_in_routes_and_sums_like_any_function() -> None:
    with judging(lambda body: Answer(body["messages"][0]["content"])) as server:
        routes = {"open": "wise", "counting": {"counting": 0.5, "wise": 0.5}}
        config = RewardConfig(judges=judged(server.address), routes=routes)
        requests = [
            completion("7"),
            replace(completion("3"), task="counting", answer="3", options=()),
            replace(REQUEST, response="7"),
            completion("junk"),
        ]
        with MixedReward(config) as rewards:
            open_ended, summed, untagged, failed = rewards.score(requests)
            assert rewards.take_counts()["judge/wise/num_requests"] == 3.0
            assert rewards.take_counts() == {}
            assert any("vote 1 is 0.7" in line for line in rewards.explain(completion("7")))
    assert open_ended.breakdown == {"format": 1.0, "wise": 0.7}
    assert open_ended.explanations == (("wise", "'7'"),)
    assert summed.task_reward == pytest.approx(0.5 * 1.0 + 0.5 * 0.3)
    assert (untagged.task_reward, untagged.reason) == (0.0, Reason.NO_ANSWER)
    assert (failed.reward, failed.reason) == (None, Reason.GRADER_FAILED)


def test_rows_with_another_question_are_judged_by_their_own() -> None:
    with judging(lambda body: Answer("10" if "right" in body["messages"][0]["content"] else "0")) as server:
        config = RewardConfig(judges=judged(server.address, prompt="{question} {answer}"), routes={"open": "wise"})
        with MixedReward(config) as rewards:
            scored = rewards.score([completion("a", question="right?"), completion("a", question="wrong?")])
    assert [result.task_reward for result in scored] == [1.0, 0.0]


def test_a_rule_may_change_a_judge_for_a_source() -> None:
    rule = RewardRule(task="open", source="short", parameters={"prompt": "Short? {answer}"})
    with judging(always(Answer("5"))) as server:
        config = RewardConfig(judges=judged(server.address), routes={"open": "wise"}, rules=(rule,))
        with MixedReward(config) as rewards:
            rewards.score([completion("a", source="short"), completion("a")])
        asked = [body["messages"][0]["content"] for body in server.bodies]
    assert asked == ["Short? a", "a"]


@pytest.mark.parametrize("name", ["chart", "format", "a judge", "judges"])
def test_a_judge_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(RewardError, match=r"reward\.judges has the name"):
        RewardConfig(judges={name: JudgeConfig(model="m", prompt="{answer}", address="http://x/v1")})


def test_only_judges_that_score_rows_are_in_use() -> None:
    judges = {**judged("http://x/v1"), "idle": JudgeConfig(model="/m", prompt="{answer}")}
    config = RewardConfig(judges=judges, routes={"open": "wise"})
    assert config.judges_in_use() == ("wise",)
    assert config.seconds_of_own(32) == judges["wise"].longest_s(32)


def test_the_longest_time_counts_tries_pauses_and_waiting() -> None:
    judge = JudgeConfig(
        model="m", prompt="{answer}", address="http://x/v1", votes=3, temperature=1.0, max_in_flight=8, timeout_s=10,
        retries=2, wait_s=100,
    )  # fmt: skip
    assert judge.longest_s(8) == 3 * (3 * 10 + (1 + 2)) + 100  # 24 requests, 8 at once


def test_reward_images_are_asked_for_where_a_judge_sees_them() -> None:
    config = RewardConfig(judges=judged("http://x/v1", images=True), routes={"open": "wise", "chart": "chart"})
    with MixedReward(config) as rewards:
        assert rewards.reads_images("open", "")
        assert not rewards.reads_images("chart", "")


def test_the_check_of_references_asks_no_judge() -> None:
    with judging(always(Answer("0"))) as server:
        config = RewardConfig(
            judges=judged(server.address), routes={"open": "wise", "chart": {"chart": 0.5, "wise": 0.5}}
        )
        with ReferenceProof(config) as proof:
            assert proof.fault(RewardRequest(task="open", question="", response="", answer="a dog")) is None
            assert proof.fault(RewardRequest(task="chart", question="", response="", answer="45")) is None
        assert server.bodies == []


README = Path(__file__).parents[3] / "rewards" / "README.md"


def example() -> dict[str, Any]:
    """The settings that the page shows."""
    section = README.read_text().partition("\n## A judge\n")[2]
    values: dict[str, Any] = yaml.safe_load(section.partition("```yaml\n")[2].partition("```")[0])
    return values


def test_the_example_of_the_page_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {0: "Nearly. Score: 8", 1: "Right, 10 of 10. Score: 9", 2: "I would not say. Score: 2"}
    monkeypatch.setenv("OPENAI_API_KEY", "top-secret-value")
    values = example()
    with judging(lambda body: Answer(said[body["seed"]])) as server:
        values["judges"]["wise"]["address"] = server.address
        config = build(RewardConfig, values, "reward")
        with MixedReward(config) as rewards:
            [result] = rewards.score([completion("a dog")])
        assert server.headers[0]["Authorization"] == "Bearer top-secret-value"
        assert "Answer of a student: a dog\n" in server.bodies[0]["messages"][0]["content"]
    assert (result.task_reward, result.format_reward) == (0.8, 1.0)


def test_every_placeholder_and_count_of_the_page_is_one_and_none_is_missing() -> None:
    section = README.read_text().partition("\n## A judge\n")[2].partition("\n## ")[0]
    listed = section.partition("**The prompt** may hold ")[2].partition("; any other")[0]
    assert re.findall(r"\{([\w.]+)\}", listed) == list(PLACEHOLDERS)
    refusals = in_turn(Answer(status=500), Answer(hangs_up=True), Answer("x", finish="length"))
    with judging(refusals) as server:
        judge = judge_of(server)
        graded(judge, REQUEST, ["a", "a"])
    counts = {name.rpartition("/")[2] for name in judge.take_counts()}
    assert counts == set(re.findall(r"`(num_\w+)`", section))


def test_rows_of_many_references_are_asked_about_at_once_and_only_once() -> None:
    barrier = threading.Barrier(4)

    def reply(_: dict[str, Any]) -> Answer:
        barrier.wait()  # passes only where four are there at once
        return Answer("5")

    with judging(reply) as server:
        config = RewardConfig(
            judges=judged(server.address, cache=True, max_in_flight=4), routes={"open": "wise", "chart": "chart"}
        )
        rows = [replace(completion(str(number)), answer=f"reference {number}") for number in range(8)]
        with MixedReward(config) as rewards:
            results = rewards.score([*rows, replace(completion("3"), task="chart", answer="3")])
            again = rewards.score(rows)
        assert len(server.bodies) == 8
    assert [result.task_reward for result in results] == [0.5] * 8 + [1.0]
    assert again == results[:8]


def test_a_judge_that_stays_away_is_waited_for_once_and_the_user_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with judging(always(Answer("5"))) as server:
        address = server.address
    seconds: list[float] = []
    config = JudgeConfig(model="m", prompt="{answer}", address=address, cache=False, wait_s=0.0, max_in_flight=1)
    judge = JudgeReward(config, "wise", pause=seconds.append)
    grades = graded(judge, REQUEST, ["a", "b", "c"])
    assert [grade.value for grade in grades] == [None] * 3
    assert seconds == []
    assert judge.take_counts()["judge/wise/num_waits"] == 3.0
    [told] = [record.getMessage() for record in caplog.records if "nothing answers" in record.getMessage()]
    assert address in told
