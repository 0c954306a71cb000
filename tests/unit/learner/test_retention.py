"""Which checkpoints stay."""

import math

import pytest

from learner.checkpoint import best_steps, steps_to_keep, with_macro
from learner.errors import CheckpointError

SCORES = {
    1: {"chart": 0.9, "grounding": 0.0},  # best chart
    2: {"chart": 0.5, "grounding": 0.7},  # best macro: 0.6
    3: {"chart": 0.1, "grounding": 0.8},  # best grounding
    4: {"chart": 0.2, "grounding": 0.2},
    5: {},
}


def test_the_best_by_each_function_and_by_the_macro_mean_stay_beside_the_newest():
    assert best_steps(SCORES) == {"chart": 1, "macro": 2, "grounding": 3}
    assert steps_to_keep(SCORES, keep_last=1, keep_best=True) == {1, 2, 3, 5}
    assert steps_to_keep(SCORES, keep_last=2, keep_best=False) == {4, 5}


def test_a_best_that_is_beaten_goes():
    scores = SCORES | {6: {"chart": 0.95, "grounding": 0.75}}

    assert steps_to_keep(scores, keep_last=1, keep_best=True) == {3, 6}


def test_of_equal_scores_the_newest_is_best():
    assert best_steps({1: {"chart": 0.5}, 2: {"chart": 0.5}}) == {"chart": 2, "macro": 2}


def test_a_score_that_is_not_finite_is_best_at_nothing():
    assert with_macro({"chart": math.nan, "grounding": 0.5}) == {"grounding": 0.5, "macro": 0.5}
    assert best_steps({1: {"chart": 0.1}, 2: {"chart": math.nan}}) == {"chart": 1, "macro": 1}
    assert with_macro({}) == {}


def test_keeping_none_is_refused():
    with pytest.raises(CheckpointError, match=r"training\.keep_last is 0"):
        steps_to_keep(SCORES, keep_last=0, keep_best=False)
