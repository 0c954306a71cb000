"""References of K12 that hold several values without commas: each is earned by all of them, in any order."""

import pytest

from rewards.core.base import RewardRequest
from rewards.core.config import RewardConfig
from rewards.core.envelope import write_response
from rewards.mixed import MixedReward
from rewards.proof import ReferenceProof
from rewards.text.formulas import read_formula


def earned(answer: str, response: str) -> float | None:
    config = RewardConfig()
    with MixedReward(config) as rewards:
        request = RewardRequest(
            task="math", question="", answer=answer, response=write_response(response, config.format)
        )
        return rewards.score([request])[0].task_reward


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("$$\\number{36} $$", "36", "3.6"),
        ("$$\\num{0.85}$$", "0.85", "85"),
        ("48\n512", "48, 512", "48"),
        ("$$0.25$$ $$0.75$$", "0.75, 0.25", "0.25"),
        ("$$2$$ $$-2$$ $$5$$", "2, -2, 5", "2, 5"),
        ("$$\\frac{1}{3}$$,$$\\sqrt{2}$$", "\\sqrt{2}, 1/3", "1/3"),
    ],
)
def test_several_values_are_one_list(answer: str, right: str, wrong: str) -> None:
    assert (earned(answer, right), earned(answer, wrong)) == (1.0, 0.0)


@pytest.mark.parametrize("answer", ["1 1 -1", "3 4", "0.5 1.5 2"])
def test_numbers_side_by_side_are_no_reference(answer: str) -> None:
    with ReferenceProof(RewardConfig()) as proof:
        fault = proof.fault(RewardRequest(task="math", question="", response="", answer=answer))
    assert fault is not None
    assert fault.kind == "unusable"


@pytest.mark.parametrize("text", ["2 1/2", "1 - 2", "$$7$$", "x = 3"])
def test_one_value_stays_one(text: str) -> None:
    assert read_formula(text, 256)[0] is not None
