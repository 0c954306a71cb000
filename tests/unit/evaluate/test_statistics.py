"""Estimates and intervals against numbers worked out by hand, and against each other."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from orchestration.evaluate.presets.statistics import (
    Ratio,
    Resampling,
    cluster_sums,
    estimate_macro_mean,
    estimate_mean,
    estimate_ratios,
    wilson_interval,
)
from orchestration.workers.answers import pass_at_k


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 2), (10, 3, 5), (8, 0, 1), (8, 8, 8), (200, 7, 100), (5, 4, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, c: int, k: int) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_pass_at_k_agrees_with_counting_every_subset() -> None:
    passed = [True, False, False, True, False]
    subsets = list(combinations(passed, 2))  # 10 pairs, 3 of them without a pass

    assert pass_at_k(5, 2, 2) == pytest.approx(sum(map(any, subsets)) / len(subsets)) == pytest.approx(0.7)


def test_pass_at_one_is_the_mean() -> None:
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0)])
def test_pass_at_k_refuses_what_has_no_meaning(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(n, c, k)


def test_wilson_interval_has_its_textbook_value() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_bootstrap_of_a_share_agrees_with_wilson() -> None:
    values = [1.0] * 120 + [0.0] * 80

    estimate = estimate_mean(values)

    assert estimate.value == 0.6
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(120, 200), abs=0.01)


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    values = list(np.random.default_rng(0).random(50))

    first, again, other = (estimate_mean(values, resampling=Resampling(seed=seed)) for seed in (1, 1, 2))

    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


@pytest.mark.parametrize(("value", "interval"), [(0.0, wilson_interval(0, 20)), (1.0, wilson_interval(20, 20))])
def test_twenty_equal_shares_do_not_prove_the_twenty_first(value: float, interval: tuple[float, float]) -> None:
    estimate = estimate_mean([value] * 20)

    assert (estimate.low, estimate.high) == interval


def test_equal_lengths_have_no_width() -> None:
    estimate = estimate_mean([1.0] * 20, is_share=False)

    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_rows_of_one_cluster_count_as_one() -> None:
    # 20 clusters of 10 equal rows: as wide as 20 rows, about sqrt(10) times wider than 200.
    values = [float(cluster % 2) for cluster in range(20) for _ in range(10)]
    clusters = [f"image {cluster}" for cluster in range(20) for _ in range(10)]

    tied = estimate_mean(values, clusters=clusters)
    single = estimate_mean([float(cluster % 2) for cluster in range(20)])
    free = estimate_mean(values)

    assert tied.value == free.value == 0.5
    assert tied.high - tied.low == pytest.approx(single.high - single.low, abs=0.02)
    assert (tied.high - tied.low) / (free.high - free.low) == pytest.approx(10**0.5, rel=0.1)


def test_clusters_of_many_rows_weigh_more() -> None:
    sums = cluster_sums(np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]), ["a", "b", "a"])

    assert sums.tolist() == [[2.0, 2.0], [0.0, 1.0]]


def test_f1_is_a_ratio_of_counts() -> None:
    f1 = Ratio(numerator={"tp": 2.0}, denominator={"tp": 2.0, "fp": 1.0, "fn": 1.0})
    rows = [{"tp": 1.0}, {"tp": 1.0}, {"fp": 1.0}, {"fn": 1.0}, {"rows": 1.0}]

    estimate = estimate_ratios({"f1": f1}, rows)["f1"]

    assert estimate.value == pytest.approx(4 / 6)  # 2 x 2 / (2 x 2 + 1 + 1)
    assert estimate.low < 4 / 6 < estimate.high


def test_a_ratio_over_nothing_is_zero() -> None:
    precision = Ratio(numerator={"tp": 1.0}, denominator={"tp": 1.0, "fp": 1.0})

    estimate = estimate_ratios({"precision": precision}, [{"rows": 1.0}] * 3)["precision"]

    assert (estimate.value, estimate.low, estimate.high, estimate.num_samples) == (0.0, 0.0, 0.0, 0)


def test_macro_mean_gives_every_group_one_vote() -> None:
    estimate = estimate_macro_mean({"large": [1.0, 0.0] * 50, "small": [1.0, 1.0, 0.0, 1.0]})

    assert estimate.value == pytest.approx((0.5 + 0.75) / 2)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.num_samples == 104


def test_ninety_five_percent_intervals_hold_the_truth_about_as_often() -> None:
    generator = np.random.default_rng(11)
    levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    shares = np.array([0.3, 0.1, 0.2, 0.1, 0.3])  # mean 0.5
    held = 0
    for repetition in range(300):
        values = generator.choice(levels, size=100, p=shares).tolist()
        estimate = estimate_mean(values, resampling=Resampling(seed=repetition, num_resamples=2000))
        held += estimate.low <= 0.5 <= estimate.high

    assert 0.92 <= held / 300 <= 0.98
