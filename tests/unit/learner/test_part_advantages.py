"""Advantages of each part of a reward by itself, then their weighted sum over its root mean square in the step."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_learner import make_group

from learner.algorithms.advantages import compute_advantages, part_advantages
from learner.algorithms.registry import get_algorithm
from learner.config import AlgorithmConfig
from learner.errors import LearnerError
from learner.training.step_plan import describe, step_advantages


def advantages(parts, weights, masked=None, lengths=None, tasks=None, **changes):
    """One number for each completion, by group."""
    sizes = [len(next(iter(own.values()))) for own in parts]
    settings = {"reward_kl": "sequence", "baseline": "group_mean", "scale": "group", "std_floor": 0.0, **changes}
    found = part_advantages(
        parts,
        weights,
        masked=masked or [[False] * size for size in sizes],
        tasks=tasks or ["chart"] * len(parts),
        lengths=lengths or [[1] * size for size in sizes],
        range_epsilon=1e-6,
        **settings,
    )
    assert all(values.dtype == torch.float64 for row in found for values in row)
    assert all((values == values[0]).all() for row in found for values in row)
    return [[float(values[0]) for values in row] for row in found]


def random_step(num_groups=5, size=4, seed=3):
    draw = random.Random(seed)
    parts = [
        {"task": [draw.random() for _ in range(size)], "format": [float(draw.random() < 0.5) for _ in range(size)]}
        for _ in range(num_groups)
    ]
    return parts, [{"task": 0.9, "format": 0.3}] * num_groups


def test_golden_values_of_two_parts_and_two_groups():
    # A, task 1 0: +-1; format 0 1: -+1, weights 2 and 1: 2 - 1 = 1 and -2 + 1 = -1
    # B, task 0 0: flat, 0; format 4 0: +-1: 1 and -1
    # rms over the four: 1
    parts = [{"task": [1.0, 0.0], "format": [0.0, 1.0]}, {"task": [0.0, 0.0], "format": [4.0, 0.0]}]
    assert advantages(parts, [{"task": 2.0, "format": 1.0}] * 2) == [[1.0, -1.0], [1.0, -1.0]]

    # weights 3 and 1: A 2 and -2, B 1 and -1; mean square (4 + 4 + 1 + 1) / 4 = 2.5
    rms = math.sqrt(2.5)
    found = advantages(parts, [{"task": 3.0, "format": 1.0}] * 2)
    assert found == [pytest.approx([2 / rms, -2 / rms]), pytest.approx([1 / rms, -1 / rms])]


def test_completions_of_equal_sums_differ_by_what_is_rare_in_their_group():
    # task 1 0 0 0: mean 1/4, deviation sqrt(3)/4: A 3/sqrt 3, -1/sqrt 3 ..; format 0 1 1 0: +-1
    # sums: sqrt 3 - 1; 1 - 1/sqrt 3 twice; -1 - 1/sqrt 3
    parts, weights = [{"task": [1.0, 0.0, 0.0, 0.0], "format": [0.0, 1.0, 1.0, 0.0]}], [{"task": 1.0, "format": 1.0}]
    root = math.sqrt(3)
    sums = [root - 1, 1 - 1 / root, 1 - 1 / root, -1 - 1 / root]
    rms = math.sqrt(sum(value**2 for value in sums) / 4)

    [found] = advantages(parts, weights)

    assert found == pytest.approx([value / rms for value in sums])
    [total] = compute_advantages(
        [[1.0, 1.0, 1.0, 0.0]],
        masked=[[False] * 4],
        tasks=["chart"],
        lengths=[[1] * 4],
        token_kl=None,
        kl_coef=0.0,
        reward_kl="sequence",
        baseline="group_mean",
        scale="group",
        std_floor=0.0,
        range_epsilon=1e-6,
    )
    assert total[0] == total[1]
    assert found[0] > found[1]


def test_it_is_the_authors_formula_but_for_n_minus_1_and_their_epsilon():
    """Independent: each part over its group, the weighted sum, then mean and deviation of the batch, sample deviations.

    The sample deviation of groups of one size is a factor common to all, which the last division takes out again; that
    of the batch remains.
    """
    parts, weights = random_step(num_groups=6, size=5)
    total = np.zeros((6, 5))
    for name in ("task", "format"):
        values = np.array([own[name] for own in parts])
        centred = values - values.mean(axis=1, keepdims=True)
        deviation = values.std(axis=1, ddof=1, keepdims=True)
        total += weights[0][name] * np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    expected = (total - total.mean()) / total.std(ddof=1)

    found = np.array(advantages(parts, weights))

    np.testing.assert_allclose(found * math.sqrt(29 / 30), expected, rtol=1e-12, atol=1e-12)


def test_the_unit_of_a_part_and_a_common_factor_of_the_weights_change_nothing():
    parts, weights = random_step()
    found = advantages(parts, weights)

    other_unit = [{**own, "task": [1000.0 * value - 7.0 for value in own["task"]]} for own in parts]
    heavier = [{name: 10 * weight for name, weight in own.items()} for own in weights]

    for row, expected in zip(advantages(other_unit, heavier), found, strict=True):
        assert row == pytest.approx(expected, rel=1e-9)


def test_the_order_of_parts_groups_and_completions_changes_no_bit():
    parts, weights = random_step()
    found = advantages(parts, weights)

    turned = [{name: own[name][::-1] for name in reversed(own)} for own in reversed(parts)]
    again = advantages(turned, [dict(reversed(own.items())) for own in reversed(weights)])

    assert [row[::-1] for row in reversed(again)] == found


def test_a_part_without_a_difference_and_a_group_without_any_are_exactly_zero():
    # 0.1 three times: in floating point their mean is not quite 0.1
    flat = {"task": [0.1, 0.1, 0.1], "format": [1.0, 1.0, 1.0]}
    other = {"task": [0.1, 0.1, 0.1], "format": [1.0, 1.0, 0.0]}

    found = advantages([flat, other], [{"task": 1.0, "format": 1.0}] * 2)

    assert found[0] == [0.0, 0.0, 0.0]
    alone = advantages([{"format": [0.0] * 3}, {"format": [1.0, 1.0, 0.0]}], [{"format": 1.0}] * 2)
    assert found[1] == alone[1]


def test_masked_completions_are_out_of_all_statistics():
    parts = [{"task": [1.0, 0.0, 99.0], "format": [0.0, 1.0, 99.0]}, {"task": [5.0, 1.0], "format": [1.0, 1.0]}]
    weights = [{"task": 2.0, "format": 1.0}] * 2
    without = [{"task": [1.0, 0.0], "format": [0.0, 1.0]}, parts[1]]

    found = advantages(parts, weights, masked=[[False, False, True], [False, False]])

    assert found == [[*advantages(without, weights)[0], 0.0], advantages(without, weights)[1]]
    assert advantages(parts, weights, masked=[[True] * 3, [True] * 2]) == [[0.0] * 3, [0.0] * 2]


def test_groups_may_have_different_parts():
    # A has task alone, +-1; B task and format: 1 + 1 and -1 - 1; mean square (1 + 1 + 4 + 4) / 4
    found = advantages(
        [{"task": [1.0, 0.0]}, {"task": [1.0, 0.0], "format": [1.0, 0.0]}],
        [{"task": 1.0}, {"task": 1.0, "format": 1.0}],
    )

    rms = math.sqrt(2.5)
    assert found == [pytest.approx([1 / rms, -1 / rms]), pytest.approx([2 / rms, -2 / rms])]


def test_a_floor_bounds_both_divisions():
    # task deviation 0.5 under a floor of 2: +-0.25; their rms 0.25 under the same floor: +-0.125
    assert advantages([{"task": [1.0, 0.0]}], [{"task": 1.0}], std_floor=2.0) == [[0.125, -0.125]]


def test_leave_one_out_and_the_deviation_of_a_task_are_taken_part_by_part():
    # leave one out of two: the difference, +-4 and +-1; over the task's deviation sqrt((16 + 1) / 2); rms 1
    found = advantages(
        [{"task": [4.0, 0.0]}, {"task": [1.0, 0.0]}], [{"task": 1.0}] * 2, baseline="leave_one_out", scale="task"
    )

    rms = math.sqrt(8.5)
    assert found == [pytest.approx([4 / rms, -4 / rms]), pytest.approx([1 / rms, -1 / rms])]


def test_statistics_over_tokens_weigh_completions_by_their_length():
    # over tokens: 1 once and 0 three times, mean 1/4; centred 3/4 and -1/4, deviation sqrt(3)/4, which is also the rms
    found = advantages(
        [{"task": [1.0, 0.0]}],
        [{"task": 1.0}],
        lengths=[[1, 3]],
        reward_kl="token",
        baseline="batch_mean",
        scale="batch",
    )

    assert found == [pytest.approx([math.sqrt(3), -1 / math.sqrt(3)])]


def test_a_step_normalises_the_parts_of_its_groups():
    config = AlgorithmConfig(normalise="parts")
    group = make_group("g", lengths=(2, 3), rewards=(1.0, 0.0))  # task 1 0, format 1 0: all of it agrees
    facts = [describe(group, config)]

    found = step_advantages(facts, algorithm=get_algorithm("grpo"), config=config, token_kl=None)

    assert [values.tolist() for values in found["g"]] == [[1.0, 1.0], [-1.0, -1.0, -1.0]]
    bare = replace(group, parts=(), sequences=tuple(replace(s, parts=()) for s in group.sequences))
    with pytest.raises(LearnerError, match=r"normalise is parts, but group g \(1 of 2\) has no parts of its reward"):
        step_advantages(
            [describe(bare, config), *[replace(fact, group_id="other") for fact in facts]],
            algorithm=get_algorithm("grpo"),
            config=config,
            token_kl=None,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlong_buffer_frac": 0.2, "max_completion_tokens": 10}, r"overlong_buffer_frac is 0\.2, but with .*parts"),
        ({"kl_coef": 0.1, "kl_in": "reward"}, "kl_in is reward, but with .* the KL belongs to no part"),
    ],
)
def test_what_belongs_to_no_part_is_refused(changes, message):
    AlgorithmConfig(**changes)
    with pytest.raises(LearnerError, match=message):
        AlgorithmConfig(normalise="parts", **changes)
