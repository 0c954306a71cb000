"""How hard a row is, from what was tried on it."""

import pytest

from orchestration.data.sample import difficulty_of
from orchestration.data.sources.rows import Refused
from orchestration.workers.tickets import RecordedCompletion
from rewards.core.base import Reason, RewardResult


def completion(task_reward: float | None, answer: str | None, format_reward: float = 1.0) -> RecordedCompletion:
    result = RewardResult(
        reward=task_reward,
        task_reward=task_reward,
        format_reward=format_reward,
        breakdown={},
        parsed_answer=answer,
        reason=Reason.OK if task_reward is not None else Reason.BAD_GOLD,
        failure=None if task_reward is not None else "chart: no number",
    )
    return RecordedCompletion(text="t", result=result, num_tokens=3, truncated=False)


def test_difficulty_is_the_statistics_of_the_task_reward() -> None:
    # Rewards 1, 1, 0, 0.5: mean 2.5 / 4; squared distances .375^2 * 2 + .625^2 + .125^2 = .6875, over 4 = .171875.
    found = difficulty_of(
        [completion(1.0, "4"), completion(1.0, "4"), completion(0.0, "5", 0.0), completion(0.5, "4.2")]
    )
    assert (found.num_completions, found.mean, found.min, found.max) == (4, 0.625, 0.0, 1.0)
    assert found.std == pytest.approx(0.171875**0.5)
    assert (found.pass_rate, found.format_rate, found.agreement) == (0.5, 0.75, 0.5)


def test_completions_without_an_answer_agree_with_nothing() -> None:
    found = difficulty_of([completion(0.0, None), completion(0.0, None), completion(0.0, "7")])
    assert found.agreement == pytest.approx(1 / 3)


def test_a_completion_whose_grader_failed_does_not_count_as_wrong() -> None:
    found = difficulty_of([completion(1.0, "4"), completion(None, None)])
    assert (found.mean, found.pass_rate, found.num_completions) == (1.0, 1.0, 2)


def test_a_row_of_which_nothing_could_be_graded_is_refused_with_the_cause() -> None:
    with pytest.raises(Refused) as refusal:
        difficulty_of([completion(None, None), completion(None, None)])
    assert refusal.value.reason == "not_sampled"
    assert refusal.value.detail == "chart: no number"
