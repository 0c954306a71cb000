"""Estimates, intervals and p-values against numbers worked out by hand, and against each other."""

import numpy as np
import pytest
from scipy.stats import binomtest

from orchestration.evaluate.statistics import (
    Ratio,
    Resampling,
    cluster_sums,
    estimate_macro_mean,
    estimate_mean,
    estimate_ratios,
    holm,
    paired_comparison,
    sign_flip_p_value,
)
from orchestration.settings.errors import DataError


def test_bootstrap_of_a_share_agrees_with_wilson() -> None:
    wilson = binomtest(120, 200).proportion_ci(method="wilson")

    estimate = estimate_mean([1.0] * 120 + [0.0] * 80)

    assert estimate.value == 0.6
    assert (estimate.low, estimate.high) == pytest.approx((wilson.low, wilson.high), abs=0.01)


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    values = list(np.random.default_rng(0).random(50))

    first, again, other = (estimate_mean(values, resampling=Resampling(seed=seed)) for seed in (1, 1, 2))

    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


@pytest.mark.parametrize(("value", "interval"), [(0.0, (0.0, 0.1611)), (1.0, (0.8389, 1.0))])
def test_twenty_equal_shares_do_not_prove_the_twenty_first(value: float, interval: tuple[float, float]) -> None:
    estimate = estimate_mean([value] * 20)

    # Wilson: z^2 / (n + z^2) = 3.8415 / 23.8415
    assert (estimate.low, estimate.high) == pytest.approx(interval, abs=5e-5)


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


def test_three_gains_of_three_have_a_p_value_of_a_quarter() -> None:
    # 8 sign patterns; all plus and all minus reach the sum 3: 2 / 8.
    assert sign_flip_p_value(np.array([1.0, 1.0, 1.0]), Resampling()) == 0.25


def test_unequal_differences_are_counted_by_their_sums() -> None:
    # Found sum: 3 - 1 = 2. Patterns of (3, 1): 4, 2, -2, -4, all at least 2 from 0: p = 1.
    assert sign_flip_p_value(np.array([3.0, -1.0]), Resampling()) == 1.0
    # Found 3 + 1 = 4: two of four.
    assert sign_flip_p_value(np.array([3.0, 1.0]), Resampling()) == 0.5


def test_zeros_change_no_p_value() -> None:
    found = sign_flip_p_value(np.array([1.0, 0.0, 1.0, 0.0, 1.0]), Resampling())

    assert found == 0.25
    assert sign_flip_p_value(np.zeros(5), Resampling()) == 1.0


def test_sixteen_are_enumerated_and_seventeen_drawn() -> None:
    # All of n in one direction: 2 / 2^16 exactly; drawn, none of 10,000 is as far, so 1 / 10,001.
    assert sign_flip_p_value(np.ones(16), Resampling()) == 2 / 2**16
    assert sign_flip_p_value(np.ones(17), Resampling()) == pytest.approx(1 / 10_001, abs=3e-4)
    assert sign_flip_p_value(np.ones(40), Resampling()) == 1 / 10_001


def test_drawn_p_values_agree_with_enumerated_ones() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1.0, size=16)
    exact = sign_flip_p_value(differences, Resampling())

    # One difference too small to matter makes it seventeen.
    drawn = sign_flip_p_value(np.append(differences, 1e-9), Resampling(num_resamples=40_000))

    assert drawn == pytest.approx(exact, abs=0.01)


def test_p_values_are_uniform_where_nothing_changed() -> None:
    generator = np.random.default_rng(5)
    found = np.array(
        [sign_flip_p_value(generator.normal(size=30), Resampling(seed=seed, num_resamples=500)) for seed in range(400)]
    )

    # Largest distance of 400 uniform values from the diagonal: below 1.63 / sqrt(400) in 99 of 100 cases.
    steps = np.arange(1, 401) / 400
    assert np.abs(np.sort(found) - steps).max() < 1.63 / 20
    assert 0.02 <= np.mean(found <= 0.05) <= 0.09


def test_a_change_is_the_mean_of_differences() -> None:
    before = {"a": 0.0, "b": 0.5, "c": 1.0, "d": 0.0}
    after = {"a": 1.0, "b": 0.5, "c": 0.5, "d": 1.0}

    change = paired_comparison(before, after)

    assert (change.before, change.after) == (0.375, 0.75)
    assert change.difference.value == 0.375  # (1 + 0 - 0.5 + 1) / 4
    # Patterns of (1, -0.5, 1): sums 2.5, 1.5, 0.5, 0.5 and their negatives; found 1.5: 4 of 8.
    assert change.p_value == 0.5
    assert change.num_pairs == 4


def test_no_change_has_no_width_and_a_p_value_of_one() -> None:
    change = paired_comparison({"a": 0.3, "b": 1.0}, {"a": 0.3, "b": 1.0})

    assert (change.difference.low, change.difference.high, change.p_value) == (0.0, 0.0, 1.0)


def test_differing_sets_are_refused_unless_allowed() -> None:
    before, after = {"a": 0.0, "b": 0.0}, {"b": 1.0, "c": 1.0, "d": 1.0}

    with pytest.raises(DataError, match=r"1 samples are scored before only \(first: a\) and 2 after only"):
        paired_comparison(before, after)
    change = paired_comparison(before, after, allow_unmatched=True)

    assert (change.num_pairs, change.num_only_before, change.num_only_after) == (1, 1, 2)
    assert change.difference.value == 1.0


def test_sets_without_a_common_sample_are_refused_always() -> None:
    with pytest.raises(DataError, match="no sample with a score in common"):
        paired_comparison({"a": 0.0}, {"b": 0.0}, allow_unmatched=True)


def test_rows_of_one_image_change_sign_together() -> None:
    before = {f"{i}": 0.0 for i in range(8)}
    after = {f"{i}": 1.0 for i in range(8)}

    free = paired_comparison(before, after)
    tied = paired_comparison(before, after, clusters={f"{i}": f"image {i % 2}" for i in range(8)})

    assert free.p_value == 2 / 2**8
    assert tied.p_value == 2 / 2**2  # two images


def test_holm_multiplies_the_smallest_by_the_number_of_rows() -> None:
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 (raised to the one before it)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
