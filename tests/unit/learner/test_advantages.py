import math

import pytest
import torch

from learner.algorithms.advantages import compute_advantages, overlong_penalty, token_returns


def advantages(rewards, masked=None, tasks=None, dtype=torch.float64, **changes):
    rewards = torch.tensor(rewards, dtype=dtype)
    settings = {"baseline": "group_mean", "scale": "group", "std_floor": 0.0, "range_epsilon": 1e-6, **changes}
    found = compute_advantages(
        rewards.tolist(),
        masked=[[False] * len(row) for row in rewards] if masked is None else masked,
        tasks=tasks or ["chart"] * len(rewards),
        lengths=torch.ones(rewards.shape, dtype=torch.int64).tolist(),
        token_kl=None,
        kl_coef=0.0,
        reward_kl="sequence",
        **settings,
    )
    return torch.stack([torch.cat(group) for group in found])


def zero_signal(found):
    return [not group.any() for group in found]


def token_advantages(rewards, lengths, token_kl=None, masked=None, **changes):
    settings = {
        "tasks": ["chart"] * len(rewards),
        "kl_coef": 0.0,
        "reward_kl": "sequence",
        "baseline": "group_mean",
        "scale": "none",
        "std_floor": 0.0,
        "range_epsilon": 1e-6,
        **changes,
    }
    found = compute_advantages(
        rewards,
        masked=[[False] * len(row) for row in rewards] if masked is None else masked,
        lengths=lengths,
        token_kl=token_kl
        and {(n, g): torch.tensor(kl).double() for n, group in enumerate(token_kl) for g, kl in enumerate(group)},
        **settings,
    )
    return [[values.tolist() for values in group] for group in found]


REINFORCE_PLUS_PLUS = {"reward_kl": "token", "baseline": "batch_mean", "scale": "batch"}


def test_group_mean_over_group_deviation():
    # mean (1 + 2 + 3 + 6) / 4 = 3; deviations -2 -1 0 3; variance (4 + 1 + 0 + 9) / 4 = 3.5
    std = 3.5**0.5

    [found] = advantages([[1.0, 2.0, 3.0, 6.0]]).tolist()

    assert found == pytest.approx([-2 / std, -1 / std, 0.0, 3 / std])


def test_without_scale_advantages_are_centred_rewards():
    assert advantages([[1.0, 2.0, 6.0]], scale="none").tolist() == [[-2.0, -1.0, 3.0]]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    # 1 - (2 + 6) / 2 = -3; 2 - (1 + 6) / 2 = -1.5; 6 - (1 + 2) / 2 = 4.5
    assert advantages([[1.0, 2.0, 6.0]], baseline="leave_one_out", scale="none").tolist() == [[-3.0, -1.5, 4.5]]


def test_leave_one_out_does_not_count_masked_completions_among_the_others():
    found = advantages([[1.0, 3.0, 9.0]], [[False, False, True]], baseline="leave_one_out", scale="none")

    assert found.tolist() == [[-2.0, 2.0, 0.0]]


def test_group_mean_over_the_deviation_of_the_step():
    # centred -0.5 0.5 | -1 1; mean square (0.25 + 0.25 + 1 + 1) / 4 = 0.625
    std = 0.625**0.5

    found = advantages([[0.0, 1.0], [1.0, 3.0]], scale="batch")

    assert found.flatten().tolist() == pytest.approx([-0.5 / std, 0.5 / std, -1 / std, 1 / std])


def test_batch_mean_over_the_deviation_of_the_step():
    # mean (0 + 0 + 1 + 3) / 4 = 1; deviations -1 -1 0 2; variance (1 + 1 + 0 + 4) / 4 = 1.5
    std = 1.5**0.5

    found = advantages([[0.0, 0.0], [1.0, 3.0]], baseline="batch_mean", scale="batch")

    assert found.flatten().tolist() == pytest.approx([-1 / std, -1 / std, 0.0, 2 / std])


def test_tasks_of_different_reward_scales_get_advantages_of_equal_size():
    # Each task is divided by its own deviation, 0.5 or 50.
    found = advantages([[0.0, 1.0], [100.0, 0.0], [1.0, 0.0]], tasks=["chart", "box", "chart"], scale="task")

    assert found.tolist() == [[-1.0, 1.0], [1.0, -1.0], [1.0, -1.0]]


def test_within_a_task_a_wide_group_keeps_larger_advantages():
    # centred -1 1 | -3 3 | 0 0; mean square (1 + 1 + 9 + 9 + 0 + 0) / 6: a flat group counts with zeros
    std = (20 / 6) ** 0.5

    found = advantages([[0.0, 2.0], [0.0, 6.0], [5.0, 5.0]], scale="task")

    assert found.flatten().tolist() == pytest.approx([-1 / std, 1 / std, -3 / std, 3 / std, 0.0, 0.0])


def test_a_task_of_equal_rewards_is_not_divided_by_zero():
    # mean 0.5; each task's values stand 0.5 from it
    found = advantages([[1.0, 1.0], [0.0, 0.0]], tasks=["a", "b"], baseline="batch_mean", scale="task")

    assert found.tolist() == [[1.0, 1.0], [-1.0, -1.0]]


@pytest.mark.parametrize("scale", ["group", "task", "batch"])
def test_a_small_deviation_is_divided_by_the_floor(scale):
    # mean 0.51, deviation 0.01: under the floor of 0.1, so advantages are 0.01 / 0.1
    [found] = advantages([[0.50, 0.52]], std_floor=0.1, scale=scale).tolist()

    assert found == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean"])
@pytest.mark.parametrize("scale", ["none", "group", "task", "batch"])
def test_a_reward_shift_changes_nothing(baseline, scale):
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.5, 0.5]])
    settings = {"baseline": baseline, "scale": scale, "tasks": ["a", "b"]}

    shifted = advantages((rewards + 8).tolist(), **settings)

    torch.testing.assert_close(shifted, advantages(rewards.tolist(), **settings))


@pytest.mark.parametrize("scale", ["group", "task", "batch"])
def test_a_reward_scale_changes_nothing_where_a_deviation_divides(scale):
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.5, 0.5]])

    torch.testing.assert_close(
        advantages((rewards * 7).tolist(), scale=scale), advantages(rewards.tolist(), scale=scale)
    )


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean"])
@pytest.mark.parametrize("scale", ["none", "group", "task", "batch"])
def test_the_order_of_groups_and_completions_changes_no_bit(baseline, scale):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(16, 8, generator=generator, dtype=torch.float64)
    tasks = ["chart" if n % 3 else "box" for n in range(16)]
    groups, completions = torch.randperm(16, generator=generator), torch.randperm(8, generator=generator)
    settings = {"baseline": baseline, "scale": scale}

    permuted = advantages(
        rewards[groups][:, completions].tolist(), tasks=[tasks[n] for n in groups.tolist()], **settings
    )

    assert torch.equal(permuted, advantages(rewards.tolist(), tasks=tasks, **settings)[groups][:, completions])


def test_a_masked_completion_is_out_of_statistics_and_has_no_advantage_even_with_a_nan_reward():
    masked = [[False, False, True], [False, True, False]]

    found = advantages([[1.0, 0.0, 100.0], [0.0, math.nan, 1.0]], masked, scale="batch")

    assert found.tolist() == [[1.0, -1.0, 0.0], [-1.0, 0.0, 1.0]]


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean"])
@pytest.mark.parametrize("scale", ["none", "group", "task", "batch"])
def test_equal_dense_rewards_have_exactly_zero_advantage(reward, baseline, scale):
    found = advantages([[reward] * 7] * 3, baseline=baseline, scale=scale, dtype=torch.float32)

    assert not found.any()


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "group", "task", "batch"])
def test_a_flat_group_is_exactly_zero_beside_one_with_signal(baseline, scale):
    found = advantages([[0.1] * 7, [0.0] * 6 + [1.0]], baseline=baseline, scale=scale, dtype=torch.float32)

    assert zero_signal(found) == [True, False]


def test_with_the_mean_of_the_step_a_flat_group_has_signal():
    found = advantages([[1.0, 1.0], [0.0, 0.0]], baseline="batch_mean", scale="batch")

    assert found.tolist() == [[1.0, 1.0], [-1.0, -1.0]]


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize(
    ("rewards", "masked"),
    [([0.5], None), ([0.5, 0.5 + 1e-7], None), ([1.0, 0.0], [True, True]), ([1.0, 0.0], [True, False])],
)
def test_groups_without_comparison_are_zero_signal(rewards, masked, baseline):
    found = advantages([rewards], None if masked is None else [masked], baseline=baseline)

    assert zero_signal(found) == [True]


def test_groups_under_a_group_scale_do_not_see_each_other():
    together = advantages([[1.0, 0.0, 0.0], [5.0, 9.0, 6.0]])

    torch.testing.assert_close(together[1:], advantages([[5.0, 9.0, 6.0]]))
    assert zero_signal(together) == [False, False]


def test_every_token_of_a_completion_has_the_completions_advantage():
    found = token_advantages([[1.0, 0.0], [3.0, 1.0]], [[1, 3], [2, 0]], masked=[[False, False], [False, True]])

    assert found == [[[0.5], [-0.5, -0.5, -0.5]], [[0.0, 0.0], []]]


def test_kl_in_the_reward_is_summed_over_the_completion():
    # rewards 1 - 0.5 * (1 + 1) = 0 and 1 - 0.5 * (0.5 + 0.5) = 0.5; mean 0.25
    found = token_advantages([[1.0, 1.0]], [[2, 2]], [[[1.0, 1.0], [0.5, 0.5]]], kl_coef=0.5)

    assert found == [[[-0.25, -0.25], [0.25, 0.25]]]


def test_reinforce_plus_plus_takes_from_each_token_the_kl_still_to_come():
    # returns of the first completion 1 - (0.5 + 0.5) = 0 and 1 - 0.5 = 0.5, of the second 0 - 0.5 = -0.5
    # mean over three tokens 0; variance (0 + 0.25 + 0.25) / 3 = 1 / 6
    [[first, second]] = token_advantages(
        [[1.0, 0.0]], [[2, 1]], [[[0.5, 0.5], [0.5]]], kl_coef=1.0, **REINFORCE_PLUS_PLUS
    )

    assert first == pytest.approx([0.0, 0.5 * 6**0.5])
    assert second == pytest.approx([-0.5 * 6**0.5])


def test_reinforce_plus_plus_counts_a_completion_by_its_tokens_also_without_kl():
    # values 1 0 0 0: mean 0.25; variance (0.5625 + 3 * 0.0625) / 4 = 0.1875
    std = 0.1875**0.5

    [[first, second]] = token_advantages([[1.0, 0.0]], [[1, 3]], **REINFORCE_PLUS_PLUS)

    assert first == pytest.approx([0.75 / std])
    assert second == pytest.approx([-0.25 / std] * 3)


def test_reinforce_plus_plus_leaves_masked_completions_out_even_with_nan_kl():
    nan = float("nan")

    found = token_advantages(
        [[1.0, 5.0], [0.0, 0.0]],
        [[1, 2], [1, 0]],
        [[[0.0], [nan, nan]], [[0.0], []]],
        masked=[[False, True], [False, True]],
        kl_coef=1.0,
        **REINFORCE_PLUS_PLUS,
    )

    assert found == [[[1.0], [0.0, 0.0]], [[-1.0], []]]


def test_a_step_in_which_everything_is_masked_has_no_advantages():
    for settings in ({}, REINFORCE_PLUS_PLUS):
        assert token_advantages([[1.0, 0.0]], [[1, 2]], masked=[[True, True]], **settings) == [[[0.0], [0.0, 0.0]]]


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
    # 1 - 0.1 * 2 = 0.8, 0 - 0.1 * -1 = 0.1: k1 may be negative; mean 0.45
    found = token_advantages([[1.0, 0.0]], [[1, 1]], [[[2.0], [-1.0]]], kl_coef=0.1)

    assert found == [[[pytest.approx(0.35)], [pytest.approx(-0.35)]]]


def test_a_token_pays_for_its_own_and_later_kl():
    # kl to go: 1 + 2 + 4 = 7, 2 + 4 = 6, 4
    found = token_returns(1.0, torch.tensor([1.0, 2.0, 4.0]), kl_coef=0.5)

    assert found.tolist() == [1 - 3.5, 1 - 3.0, 1 - 2.0]
