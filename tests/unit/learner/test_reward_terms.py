import pytest
import torch

from learner.algorithms.advantages import kl_in_reward, overlong_penalty, token_returns


def penalty_of(lengths, buffer_tokens=4, penalty=1.0):
    found = overlong_penalty(
        torch.tensor(lengths), max_completion_tokens=10, buffer_tokens=buffer_tokens, penalty=penalty
    )
    return found.tolist()


def test_the_overlong_penalty_falls_linearly_over_the_buffer():
    # limit 10, buffer 4: free up to 6, then a quarter per token
    assert penalty_of([0, 5, 6, 7, 8, 9, 10]) == [0.0, 0.0, 0.0, -0.25, -0.5, -0.75, -1.0]


def test_the_overlong_penalty_never_exceeds_its_size():
    assert penalty_of([11, 1000], penalty=0.5) == [-0.5, -0.5]


def test_without_a_buffer_no_length_is_penalised():
    assert penalty_of([[1, 10], [11, 0]], buffer_tokens=0) == [[0.0, 0.0], [0.0, 0.0]]


def test_kl_lowers_the_reward_by_its_weight():
    # 1 - 0.1 * 2, 0 - 0.1 * -1: k1 may be negative
    found = kl_in_reward(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, -1.0]]), kl_coef=0.1)

    assert found.flatten().tolist() == pytest.approx([0.8, 0.1])
    assert found.dtype == torch.float64


def test_a_token_pays_for_its_own_and_later_kl():
    # kl to go: 1 + 2 + 4 = 7, 2 + 4 = 6, 4
    found = token_returns(torch.tensor(1.0), torch.tensor([1.0, 2.0, 4.0]), kl_coef=0.5)

    assert found.tolist() == [1 - 3.5, 1 - 3.0, 1 - 2.0]
