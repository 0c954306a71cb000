"""Paired comparison: hand-counted p-values, uniform ones under no change, and which rows are compared."""

import numpy as np
import pytest

from orchestration.evaluate.paired import holm, paired_comparison, sign_flip_p_value
from orchestration.evaluate.presets.statistics import Resampling
from orchestration.settings.errors import DataError


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
