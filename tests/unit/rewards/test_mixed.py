"""MixedReward: routing, weights, failures, independence of the batch; configuration and presets."""

import dataclasses
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.settings.strict import build
from rewards import MixedReward, Reason, RewardConfig, RewardError, RewardRequest, RewardResult
from rewards.core.base import Grade
from rewards.core.config import FUNCTION_NAMES, OpenEndedConfig, RewardRule

ROOT = Path(__file__).parents[3]


def wrap(answer: str) -> str:
    return f"<think>a</think><answer>{answer}</answer>"


def request(response: str, **fields: object) -> RewardRequest:
    return RewardRequest(**({"task": "chart", "question": "", "answer": "45", "response": response} | fields))  # type: ignore[arg-type]


def score(*requests: RewardRequest, config: RewardConfig | None = None) -> list[RewardResult]:
    with MixedReward(config or RewardConfig()) as rewards:
        return rewards.score(requests)


def test_total_is_the_weighted_sum_and_right_untagged_beats_wrong_tagged() -> None:
    right, bare, wrong, nothing = score(
        request(wrap("45")), request("<answer>45</answer>"), request(wrap("9")), request("")
    )
    assert (right.reward, bare.reward, wrong.reward, nothing.reward) == (1.0, 0.9, 0.1, 0.0)
    assert right.breakdown == {"format": 1.0, "chart": 1.0}
    assert bare.breakdown == {"format": 0.0, "chart": 1.0}
    assert (right.parsed_answer, right.reason, right.failure) == ("45", "ok", None)


def test_a_task_may_have_its_own_format_weight() -> None:
    config = RewardConfig(rules=(RewardRule(task="chart", format_weight=0.25),))
    assert score(request(wrap("9")), config=config)[0].reward == 0.25


def test_a_source_may_have_its_own_function_and_parameters() -> None:
    rules = (
        RewardRule(task="chart", source="plotqa", parameters={"tolerance": 0.001}),
        RewardRule(source="figureqa", function="matching", format_weight=0.2),
    )
    config = RewardConfig(rules=rules)
    strict, relaxed, words, unknown_task = score(
        request(wrap("45.5"), source="plotqa"),
        request(wrap("45.5"), source="chartqa"),
        request(wrap("yes"), answer="no", source="figureqa"),
        request(wrap("yes"), answer="yes", source="figureqa", task="anything"),
        config=config,
    )
    assert (strict.task_reward, relaxed.task_reward) == (0.0, 1.0)
    assert words.breakdown == {"format": 1.0, "matching": 0.0}
    assert (words.reward, unknown_task.reward) == (0.2, 1.0)


def test_first_rule_that_matches_holds() -> None:
    rules = (RewardRule(task="chart", source="a", format_weight=0.0), RewardRule(task="chart", format_weight=0.4))
    config = RewardConfig(rules=rules)
    assert [config.route("chart", source).format_weight for source in ("a", "b")] == [0.0, 0.4]
    assert config.route("iou", "a").format_weight == 0.1


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "neither a task nor a source"),
        ({"task": "video"}, "'video', which reward.routes lacks"),
        ({"task": "chart", "function": "charts"}, "'charts'; known functions"),
        ({"task": "chart", "parameters": {"tolerence": 0.1}}, "'tolerence' is unknown; known: anls"),
        ({"task": "chart", "parameters": {"tolerance": 2.0}}, "parameters.tolerance is 2.0; use a value above 0"),
        ({"task": "chart", "parameters": {"anls": 1}}, "anls is 1; use a bool"),
        ({"task": "iou", "parameters": {"shaping": "cubic"}}, "'cubic'; use raw"),
        ({"source": "plotqa", "parameters": {"tolerance": 0.1}}, "name its task or function"),
    ],
)
def test_rules_that_fit_nothing_are_refused(rule: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=re.escape(message)):
        RewardConfig(rules=(RewardRule(**rule),))  # type: ignore[arg-type]


def test_reasons_of_missing_answers() -> None:
    reasons = [
        score(request(text, truncated=truncated))[0].reason
        for text, truncated in [
            ("<think>a", True),
            ("<think>a", False),
            (wrap("45"), True),
            ("<think>a</think><answer>4</answer><answer>5</answer>", True),
        ]
    ]
    assert reasons == ["truncated", "no_answer", "ok", "two_answers"]


def test_unusable_reference_masks_its_whole_group_and_no_other() -> None:
    bad = [request(wrap("!"), answer="!!!"), request("", answer="!!!")]
    first, other, second = score(bad[0], request(wrap("45")), bad[1])
    for result in (first, second):
        assert (result.reward, result.task_reward, result.reason) == (None, None, "bad_gold")
        assert "chart" in (result.failure or "")
        assert "chart" not in result.breakdown
    assert other.reward == 1.0


class Brittle:
    """Crashes on one answer."""

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        if "boom" in answers:
            raise KeyError("boom")
        return [Grade(1.0) for _ in answers]


def test_a_crash_is_a_counted_failure_of_the_one_answer_that_caused_it() -> None:
    with MixedReward(RewardConfig()) as rewards:
        rewards._functions["chart", repr(RewardConfig().chart)] = Brittle()
        fine, broken, also_fine = rewards.score([request(wrap(text)) for text in ("1", "boom", "2")])
    assert (fine.reward, also_fine.reward) == (1.0, 1.0)
    assert (broken.reward, broken.reason) == (None, "grader_failed")
    assert "KeyError" in (broken.failure or "")


def test_results_do_not_depend_on_batch_or_order(toy) -> None:
    tokenizer, table = toy
    requests = [
        request(
            wrap(answer),
            task=task,
            answer=gold,
            options=("cat", "dog") if task == "match_mcq" else (),
            image_sizes=((9, 9),),
        )
        for task, gold, answers in [
            ("chart", "45", ["45", "46", "x"]),
            ("match_mcq", "B", ["A", "dog"]),
            ("match_yesno", "yes", ["yes", "no"]),
            ("iou", "[[0, 0, 5, 5], [5, 5, 9, 9]]", ["[0, 0, 5, 6]", "[[0, 0, 5, 5], [5, 5, 9, 8]]"]),
            ("open", "a brown dog runs", ["a brown canine runs", "the dog is red", "a cat"]),
        ]
        for answer in answers
    ]
    with MixedReward(RewardConfig(), tokenizer, table) as rewards:
        alone = [rewards.score([one])[0] for one in requests]
        order = random.Random(0).sample(range(len(requests)), len(requests))
        shuffled = rewards.score([requests[i] for i in order])
    assert shuffled == [alone[i] for i in order]


def test_groups_are_formed_by_the_reference_not_by_the_question() -> None:
    same_question = [
        request(wrap("[0, 0, 10, 10]"), task="iou", answer="[0, 0, 10, 10]", image_sizes=(size,), coord_mode="norm1000")
        for size in ((1000, 1000), (2000, 2000))
    ]
    assert [result.task_reward for result in score(*same_question)] == [1.0, 0.25]


def test_unknown_tasks_and_functions_are_named() -> None:
    with pytest.raises(RewardError, match=r"'video'.*chart.*iou"):
        score(request("", task="video"))
    with pytest.raises(RewardError, match=r"routes\.chart.*'charts'.*open_ended"):
        RewardConfig(routes={"chart": "charts"})
    with pytest.raises(RewardError, match="encode and embedding"):
        score(request(wrap("a"), task="open", answer="a"))


def test_unrouted_rows_are_counted_by_task_and_source() -> None:
    rows = [("chart", "a"), ("video", "a"), ("video", "b"), ("video", "b"), ("audio", "c")]
    assert RewardConfig().unrouted(rows) == {("video", "a"): 1, ("video", "b"): 2, ("audio", "c"): 1}
    config = RewardConfig(rules=(RewardRule(source="b", function="matching"),))
    assert config.unrouted(rows) == {("video", "a"): 1, ("audio", "c"): 1}
    assert {route.function for route in RewardConfig().every_route()} == set(FUNCTION_NAMES)


def test_explanation_tells_answer_reference_reason_and_sum(toy) -> None:
    asked = {
        "chart": request(wrap("$1.2 million"), answer="1,200,000"),
        "match_mcq": request(wrap("B. 14"), task="match_mcq", answer="B", options=("12", "14")),
        "match_yesno": request(wrap("yes"), task="match_yesno", answer="no"),
        "iou": request(wrap("[0, 0, 50, 100]"), task="iou", answer="[0, 0, 100, 100]", image_sizes=((200, 200),)),
        "open": request(wrap("a dog runs"), task="open", answer="a dog sleeps"),
        "bad": request(wrap("x"), answer="!!!"),
    }
    with MixedReward(RewardConfig(), *toy) as rewards:
        texts = {name: "\n".join(rewards.explain(one)) for name, one in asked.items()}
    assert "reference of type unnamed: number 1200000" in texts["chart"]
    assert "reward     1" in texts["chart"]
    assert "B '14'" in texts["match_mcq"]
    assert "IoU 0.5000" in texts["iou"]
    assert "forward (answer found in reference) 0." in texts["open"]
    assert "masked from its group" in texts["bad"]
    assert "bad_gold: the reference itself is unusable" in texts["bad"]
    assert "reward     0.1" in texts["match_yesno"]


def test_half_a_surrogate_pair_is_scored_like_any_wrong_text(toy) -> None:
    with MixedReward(RewardConfig(), *toy) as rewards:
        for task, gold in [("open", "a dog"), ("chart", "dog"), ("match_text", "dog"), ("iou", "[0, 0, 1, 1]")]:
            result = rewards.score([request(wrap("\ud800 dog"), task=task, answer=gold)])[0]
            assert result.failure is None
            assert result.reward is not None


def test_weights_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(RewardError, match="must sum to 1"):
        RewardConfig(format_weight=0.2)


def test_requests_are_checked() -> None:
    with pytest.raises(RewardError, match="coord_mode"):
        request("", coord_mode="resized")
    with pytest.raises(RewardError, match="0 x 5"):
        request("", image_sizes=((0, 5),))


@pytest.mark.parametrize("name", ["default", "paper"])
def test_presets_hold_exactly_the_settings(name: str) -> None:
    values = compose([f"reward={name}"])["reward"]
    config = build(RewardConfig, values, "reward")
    guards = name == "default"
    expected = dataclasses.replace(RewardConfig(), open_ended=dataclasses.replace(OpenEndedConfig(), guards=guards))
    assert config == expected
    assert values.keys() == {field.name for field in dataclasses.fields(RewardConfig)}
    for field in dataclasses.fields(RewardConfig):
        section = getattr(config, field.name)
        if dataclasses.is_dataclass(section):
            assert values[field.name].keys() == {inner.name for inner in dataclasses.fields(section)}


def test_records_survive_pickling() -> None:
    asked = request(wrap("45"), image_sizes=((4, 3),))
    result = score(asked)[0]
    assert pickle.loads(pickle.dumps((asked, result, RewardConfig()))) == (asked, result, RewardConfig())
    assert result.reason is Reason.OK
    error = pickle.loads(pickle.dumps(RewardError("x")))
    assert isinstance(error, ValueError)


def test_importing_rewards_loads_no_numerics_and_no_deep_learning() -> None:
    heavy = {"torch", "ray", "vllm", "transformers", "hydra", "scipy", "numpy", "sympy", "math_verify"}
    code = f"import sys, rewards; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
