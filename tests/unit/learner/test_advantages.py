import pytest
import torch

from learner.algorithms.advantages import group_advantages, zero_signal_mask
from learner.algorithms.registry import get_algorithm


def advantages(rewards, masked=None, **changes):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    settings = {"normalize_std": True, "std_floor": 0.0, "range_epsilon": 1e-6, **changes}
    mask = torch.zeros_like(rewards, dtype=torch.bool) if masked is None else torch.tensor(masked)
    return group_advantages(rewards, masked=mask, **settings)


def test_golden_values():
    # mean (1 + 2 + 3 + 6) / 4 = 3; deviations -2 -1 0 3; variance (4 + 1 + 0 + 9) / 4 = 3.5
    std = 3.5**0.5

    assert advantages([1.0, 2.0, 3.0, 6.0]).tolist() == pytest.approx([-2 / std, -1 / std, 0.0, 3 / std])


def test_without_division_advantages_are_centred_rewards():
    assert advantages([1.0, 2.0, 6.0], normalize_std=False).tolist() == [-2.0, -1.0, 3.0]


def test_a_small_deviation_is_divided_by_the_floor():
    # mean 0.51, deviation 0.01: under the floor of 0.1, so advantages are 0.01 / 0.1
    assert advantages([0.50, 0.52], std_floor=0.1).tolist() == pytest.approx([-0.1, 0.1])


def test_a_reward_shift_changes_nothing():
    shifted = advantages([11.0, 12.0, 16.0])

    torch.testing.assert_close(shifted, advantages([1.0, 2.0, 6.0]))


def test_a_masked_sequence_is_out_of_statistics_and_has_no_advantage():
    found = advantages([1.0, 0.0, 100.0], masked=[False, False, True])

    assert found.tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 0.7])
def test_equal_dense_rewards_have_exactly_zero_advantage(reward):
    rewards = torch.full((7,), reward, dtype=torch.float32)

    found = group_advantages(
        rewards, masked=torch.zeros(7, dtype=torch.bool), normalize_std=True, std_floor=0.0, range_epsilon=1e-6
    )

    assert not found.any()


@pytest.mark.parametrize(
    ("rewards", "masked"),
    [([0.5], None), ([0.5, 0.5 + 1e-7], None), ([1.0, 0.0], [True, True]), ([1.0, 0.0], [True, False])],
)
def test_groups_without_comparison_are_zero_signal(rewards, masked):
    assert zero_signal_mask(advantages([rewards], None if masked is None else [masked])).tolist() == [True]


def test_groups_of_a_batch_do_not_see_each_other():
    together = advantages([[1.0, 0.0], [5.0, 9.0]])

    torch.testing.assert_close(together[1], advantages([5.0, 9.0]))
    assert zero_signal_mask(together).tolist() == [False, False]


def test_an_unknown_algorithm_lists_the_known_ones():
    with pytest.raises(ValueError, match="'gppo'; known: grpo"):
        get_algorithm("gppo")
