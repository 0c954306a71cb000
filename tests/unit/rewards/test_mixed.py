"""MixedReward: routing, weights, failures, independence of the batch; configuration and presets."""

import dataclasses
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from rewards import MixedReward, Reason, RewardConfig, RewardError, RewardRequest, RewardResult
from rewards.base import Grade
from rewards.config import FUNCTION_NAMES
from rewards.mixed import function_of

CONF = Path(__file__).parents[3] / "conf" / "reward"


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
    config = RewardConfig(format_weight_by_task={"chart": 0.25})
    assert score(request(wrap("9")), config=config)[0].reward == 0.25


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
        rewards._functions["chart"] = Brittle()
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


def test_unrouted_names_what_cannot_be_scored(toy) -> None:
    assert MixedReward(RewardConfig()).unrouted(["chart", "open", "video", "video"]) == ("open", "video")
    assert MixedReward(RewardConfig(), *toy).unrouted(["chart", "open"]) == ()
    assert {function_of(RewardConfig(), task) for task in RewardConfig().routes} == set(FUNCTION_NAMES)
    assert MixedReward(RewardConfig()).function_of("iou") == "grounding"


@pytest.mark.parametrize(
    "fields",
    [{"format_weight": 0.2}, {"format_weight": 0.6, "task_weight": 0.4}, {"format_weight_by_task": {"chart": -0.1}}],
)
def test_weights_that_break_their_promise_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RewardError, match="weight"):
        RewardConfig(**fields)  # type: ignore[arg-type]


def test_requests_are_checked() -> None:
    with pytest.raises(RewardError, match="coord_mode"):
        request("", coord_mode="resized")
    with pytest.raises(RewardError, match="0 x 5"):
        request("", image_sizes=((0, 5),))


def keys_of(cls: type) -> dict[str, object]:
    return {
        field.name: keys_of(field.type) if dataclasses.is_dataclass(field.type) else None  # type: ignore[arg-type]
        for field in dataclasses.fields(cls)
    }


@pytest.mark.parametrize("name", ["default", "paper"])
def test_presets_hold_exactly_the_settings(name: str) -> None:
    preset = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    expected = keys_of(RewardConfig)
    assert preset.keys() == expected.keys()
    values = {}
    for key, inner in expected.items():
        if isinstance(inner, dict):
            assert preset[key].keys() == inner.keys()
        default = getattr(RewardConfig(), key)
        values[key] = type(default)(**preset[key]) if isinstance(inner, dict) else preset[key]
    config = RewardConfig(**values)
    literal = dataclasses.replace(config.open_ended, guards=True) if name == "paper" else config.open_ended
    assert config.open_ended.guards is (name == "default")
    assert dataclasses.replace(config, open_ended=literal) == RewardConfig()


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
    done = subprocess.run([sys.executable, "-c", code], cwd=CONF.parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
