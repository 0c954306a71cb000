"""Defects found in the reward and advantage code of peers; each is shown here not to be ours."""

import pytest
import torch

from learner.algorithms.advantages import compute_advantages
from rewards import MixedReward, RewardConfig, RewardRequest

SIZE = ((400, 300),)


def reward(response: str, **fields: object) -> float:
    with MixedReward(RewardConfig()) as rewards:
        result = rewards.score([RewardRequest(question="", response=response, **fields)])[0]  # type: ignore[arg-type]
    assert result.task_reward is not None
    return result.task_reward


def answered(text: str) -> str:
    return f"<think>a</think><answer>{text}</answer>"


def boxes(text: str, gold: str) -> float:
    return reward(answered(text), task="iou", answer=gold, image_sizes=SIZE)


@pytest.mark.parametrize("box", ["[100, 0, 0, 100]", "[0, 100, 100, 0]", "[100, 100, 0, 0]"])
def test_1_a_reversed_box_earns_nothing(box: str) -> None:
    assert boxes(box, "[0, 0, 100, 100]") == 0.0


def test_2_a_garbage_box_does_not_inherit_the_iou_of_another_pair() -> None:
    gold = "[[0, 0, 100, 100], [200, 100, 300, 200]]"
    assert boxes("[[0, 0, 100, 100], [350, 250, 360, 260]]", gold) == 0.5
    assert boxes("[[350, 250, 360, 260], [0, 0, 100, 100], [200, 100, 300, 200]]", gold) == pytest.approx(2 / 3)


def test_3_many_open_tags_are_no_format() -> None:
    with MixedReward(RewardConfig()) as rewards:
        for response in ("<think><think>a</think><answer>B</answer>", "<think>a</think><answer><answer>B</answer>"):
            request = RewardRequest(task="match_text", question="", response=response, answer="B")
            assert rewards.score([request])[0].format_reward == 0.0


@pytest.mark.parametrize("answer", ["(B)", "B) cat", "**B**", "\\boxed{B}", "B.", "\uff22"])
def test_4_a_decorated_label_is_right(answer: str) -> None:
    assert reward(answered(answer), task="match_mcq", answer="B", options=("dog", "cat", "bird")) == 1.0


def test_5_yes_and_no_are_whole_words_and_unreadable_sides_do_not_win() -> None:
    assert reward(answered("I know it: yes"), task="match_yesno", answer="no") == 0.0
    assert reward(answered("eyes"), task="match_yesno", answer="yes") == 0.0
    with MixedReward(RewardConfig()) as rewards:
        request = RewardRequest(task="match_yesno", question="", response=answered("perhaps"), answer="perhaps")
        assert rewards.score([request])[0].reward is None


@pytest.mark.parametrize(("answer", "gold"), [("35", "3.5"), ("3", "-3"), ("12", "1/2"), ("345", "3:45")])
def test_6_punctuation_in_a_number_counts(answer: str, gold: str) -> None:
    assert reward(answered(answer), task="match_text", answer=gold) == 0.0
    assert reward(answered(gold), task="match_text", answer=gold) == 1.0


def test_7_an_answer_of_several_lines_is_one_answer() -> None:
    assert reward("<think>B\nor C</think>\n<answer>\nB\n</answer>", task="match_mcq", answer="B") == 1.0
    assert reward("<think>a</think><answer>\n[0, 0,\n100, 100]\n</answer>", task="iou", answer="[0,0,100,100]") == 1.0


def test_8_equal_dense_rewards_have_no_advantage() -> None:
    # 0.1 + 0.2 is not 0.3 in binary: eight such rewards differ in the last bit, and a tiny deviation divides them.
    rewards = torch.tensor([0.1 + 0.2, 0.3] * 4, dtype=torch.float64)
    assert rewards.max() > rewards.min()
    [advantages] = compute_advantages(
        [rewards.tolist()],
        masked=[[False] * 8],
        tasks=["iou"],
        lengths=[[1] * 8],
        token_kl=None,
        kl_coef=0.0,
        reward_kl="sequence",
        baseline="group_mean",
        scale="group",
        std_floor=0.0,
        range_epsilon=1e-6,
    )
    assert not torch.cat(advantages).any()
