"""Weighted sums on a row: weights, gates, penalties, and what is kept of each part."""

import re
from typing import Any

import pytest

from rewards import MixedReward, Reason, RewardConfig, RewardError, RewardRequest, RewardResult
from rewards.core.config import RewardRule
from rewards.core.parts import LanguageConfig, LengthConfig, PartConfig, RepetitionConfig
from rewards.functions.penalties import LanguagePenalty, LengthPenalty, RepetitionPenalty


def wrap(answer: str, thought: str = "a") -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


def request(response: str, **fields: Any) -> RewardRequest:
    return RewardRequest(**({"task": "chart", "question": "?", "answer": "45", "response": response} | fields))


def score(parts: dict[str, Any], *requests: RewardRequest, **settings: Any) -> list[RewardResult]:
    with MixedReward(RewardConfig(routes={"chart": parts}, **settings)) as rewards:
        return rewards.score(requests)


def test_a_sum_weighs_its_functions_and_keeps_each_value() -> None:
    exact, near, none = score({"chart": 0.7, "counting": 0.3}, *map(request, (wrap("45"), wrap("46"), "")))
    assert exact.breakdown == {"format": 1.0, "chart": 1.0, "counting": 1.0}
    assert near.breakdown == {"format": 1.0, "chart": 1.0, "counting": 0.0}
    assert (exact.task_reward, near.task_reward) == (1.0, pytest.approx(0.7))
    assert near.reward == pytest.approx(0.1 + 0.9 * 0.7)
    assert (none.task_reward, none.reason) == (0.0, Reason.NO_ANSWER)


def test_a_penalty_that_crashes_masks_the_completion_over_which_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(self: RepetitionPenalty, response: str) -> float:
        if "46" in response:
            raise RuntimeError("a defect of ours")
        return 0.0

    monkeypatch.setattr(RepetitionPenalty, "_share", share)
    right, crashed = score({"chart": 1.0, "repetition": -0.2}, request(wrap("45")), request(wrap("46")))
    assert (right.task_reward, right.reason) == (1.0, Reason.OK)
    assert (crashed.reward, crashed.reason) == (None, Reason.GRADER_FAILED)
    assert crashed.failure == "RepetitionPenalty: RuntimeError: a defect of ours"


def test_the_reason_of_a_sum_is_the_first_that_says_something() -> None:
    [result] = score({"counting": 0.5, "chart": 0.5}, request(wrap("45.5")))
    assert (result.task_reward, result.reason, result.parsed_answer) == (0.5, Reason.NOT_A_NUMBER, "45.5")


def test_a_part_behind_a_gate_counts_only_where_the_gate_is_exceeded() -> None:
    gated = {"chart": 0.6, "reading": PartConfig(weight=0.4, above={"chart": 0.5, "format": 0.0})}
    right, wrong, bare = score(gated, request(wrap("45")), request(wrap("55")), request("<answer>45</answer>"))
    assert right.task_reward == pytest.approx(1.0)
    assert wrong.breakdown["reading"] == 0.5  # one sign of two: kept, and not counted
    assert wrong.task_reward == 0.0
    assert bare.task_reward == pytest.approx(0.6)


def test_a_penalty_takes_at_most_its_weight_and_never_below_zero() -> None:
    penalised = {"chart": 1.0, "length": -0.5}
    length = LengthConfig(free_chars=50, full_chars=150)
    texts = [wrap("45"), wrap("45", "x" * 62), wrap("45", "x" * 500), wrap("9", "x" * 500)]
    assert [len(text) for text in texts[:2]] == [35 + 0, 96]
    short, middle, long, wrong = score(penalised, *map(request, texts), length=length)
    # (96 - 50) / 100 = 0.46 of 0.5
    assert [r.task_reward for r in (short, middle, long, wrong)] == pytest.approx([1.0, 1 - 0.5 * 0.46, 0.5, 0.0])
    assert dict(long.explanations)["length"].endswith("characters")
    assert wrong.breakdown["length"] == 1.0


def test_a_reference_that_one_function_cannot_use_masks_the_sum() -> None:
    [result] = score({"chart": 0.5, "counting": 0.5}, request(wrap("many"), answer="many"))
    assert (result.reward, result.task_reward, result.reason) == (None, None, Reason.BAD_GOLD)
    assert "counting reference" in (result.failure or "")
    assert result.breakdown.keys() == {"format", "chart"}


def test_a_rule_may_give_a_source_a_sum_and_a_part_its_parameters() -> None:
    sums = {"chart": PartConfig(weight=0.5, parameters={"tolerance": 0.01}), "counting": 0.5}
    config = RewardConfig(rules=(RewardRule(source="plotqa", task="chart", function=sums),))
    route = config.route("chart", "plotqa")
    assert (route.function, config.route("chart", "x").function) == ("chart+counting", "chart")
    assert route.weights == (("format", 0.1), ("chart", 0.45), ("counting", 0.45))
    with MixedReward(config) as rewards:
        strict, relaxed = rewards.score([request(wrap("46"), source=source) for source in ("plotqa", "x")])
    assert (strict.task_reward, relaxed.task_reward) == (0.0, 1.0)


def test_values_that_count_are_those_behind_open_gates() -> None:
    parts = {"chart": 0.5, "counting": PartConfig(weight=0.5, above={"chart": 0.9}), "length": -0.1}
    route = RewardConfig(routes={"chart": parts}).route("chart")
    closed = {"format": 1.0, "chart": 0.9, "counting": 1.0, "length": 0.5}
    assert [name for name, _ in route.weights] == ["format", "chart", "counting", "length"]
    assert route.counted(closed) == (1.0, 0.9, 0.0, 0.5)
    assert route.task_reward(closed) == pytest.approx(0.5 * 0.9 - 0.1 * 0.5)
    assert route.counted({**closed, "chart": 1.0}) == (1.0, 1.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "reward.routes.chart is empty"),
        ({"chart": 0.5}, "sum to 0.5; they must sum to 1: with the same proportions {chart: 1}"),
        ({"chart": 3.0, "counting": 1.0}, "proportions {chart: 0.75, counting: 0.25}"),
        ({"chart": 1.0, "counting": 0.0}, "counting has the weight 0"),
        ({"chart": 1.0, "charts": -0.1}, "'charts'; known functions"),
        ({"length": -0.1}, "name a function that is no penalty"),
        ({"chart": 0.9, "length": 0.1}, "it is a penalty: use -0.1"),
        ({"chart": 0.5, "counting": PartConfig(weight=0.5, above={"math": 0.5})}, "above names 'math'; the other"),
        ({"chart": 0.5, "counting": PartConfig(weight=0.5, above={"counting": 0.5})}, "above names 'counting'"),
        ({"chart": 0.5, "counting": PartConfig(weight=0.5, above={"chart": 1.0})}, "above.chart is 1; use 0 or more"),
        ({"chart": PartConfig(weight=1.0, parameters={"tolerence": 1})}, "'tolerence' is unknown; known: anls"),
        ("length", "'length', a penalty; name it in a sum"),
        ("mine", "'mine'; known functions: matching"),
    ],
)
def test_sums_that_say_nothing_are_refused(parts: Any, message: str) -> None:
    with pytest.raises(RewardError, match=re.escape(message)):
        RewardConfig(routes={"chart": parts})


def test_parameters_of_a_rule_with_a_sum_belong_into_its_parts() -> None:
    rule = RewardRule(task="chart", function={"chart": 1.0}, parameters={"tolerance": 0.01})
    with pytest.raises(RewardError, match="set them in the part of one function"):
        RewardConfig(rules=(rule,))


@pytest.mark.parametrize(
    ("penalty", "response", "value"),
    [
        (LengthPenalty(LengthConfig(free_chars=4, full_chars=8)), "", 0.0),
        (LengthPenalty(LengthConfig(free_chars=4, full_chars=8)), "x" * 6, 0.5),
        (LengthPenalty(LengthConfig(free_chars=4, full_chars=8)), "x" * 100, 1.0),
        (RepetitionPenalty(RepetitionConfig(num_words=1, free_frac=0.0)), "no no no no", 0.75),
        (RepetitionPenalty(RepetitionConfig(num_words=2, free_frac=0.5)), "a b c a b", 0.0),  # 1 of 4
        (RepetitionPenalty(RepetitionConfig()), "short", 0.0),
        (RepetitionPenalty(RepetitionConfig()), "我们 " * 60, pytest.approx(1.0, abs=0.03)),
        (LanguagePenalty(LanguageConfig()), "<think>three dogs</think>", 0.0),
        (LanguagePenalty(LanguageConfig()), "三只狗", 1.0),
        (LanguagePenalty(LanguageConfig(scripts=("CJK",))), "三只狗", 0.0),
        (LanguagePenalty(LanguageConfig()), "\u03b1 = 3 µm, 45°, ∑", 0.0),
        (LanguagePenalty(LanguageConfig()), "да no", 0.5),
        (LanguagePenalty(LanguageConfig()), "123 !?", 0.0),
    ],
)
def test_penalties_say_how_much_is_wrong(penalty: Any, response: str, value: float) -> None:
    [grade] = penalty.grade_completions([request(response, question="How many dogs?")], [None])
    assert grade.value == value
    assert penalty.explain_completion(request(response, question="How many dogs?"), None)


def test_a_question_in_another_script_allows_it() -> None:
    [grade] = LanguagePenalty(LanguageConfig()).grade_completions([request("三只", question="图中有几只狗")], ["三只"])
    assert grade.value == 0.0
