import math

import pytest
import torch

from learner.algorithms.losses import correction_weights

# old / behaviour probability of two sequences of two tokens: products 6 and 0.25
WEIGHTS = [3.0, 2.0, 0.25, 1.0]


def corrected(level, action, low=0.5, high=2.5, weights=WEIGHTS):
    old = torch.log(torch.tensor(weights)) - 1
    found, hit = correction_weights(
        old, torch.full_like(old, -1.0), lengths=[2, 2], level=level, action=action, low=low, high=high
    )
    return found.tolist(), hit.tolist()


def test_truncation_bounds_each_tokens_weight_from_above_only():
    found, hit = corrected("token", "truncate")

    assert found == pytest.approx([2.5, 2.0, 0.25, 1.0])
    assert hit == [True, False, False, False]


def test_masking_drops_tokens_outside_the_interval_and_keeps_the_weights_of_the_others():
    found, hit = corrected("token", "mask")

    assert found == pytest.approx([0.0, 2.0, 0.0, 1.0])
    assert hit == [True, False, True, False]


def test_a_sequences_weight_is_the_product_of_its_tokens():
    found, hit = corrected("sequence", "truncate", high=10.0)

    assert found == pytest.approx([6.0, 6.0, 0.25, 0.25])
    assert hit == [False] * 4


def test_masking_a_sequence_drops_all_its_tokens():
    found, hit = corrected("sequence", "mask", high=10.0)

    assert found == pytest.approx([6.0, 6.0, 0.0, 0.0])
    assert hit == [False, False, True, True]


def test_an_overflowing_product_is_truncated_or_masked():
    huge = [math.exp(80.0), math.exp(80.0), 1.0, 1.0]

    assert corrected("sequence", "truncate", weights=huge)[0] == pytest.approx([2.5, 2.5, 1.0, 1.0])
    assert corrected("sequence", "mask", weights=huge)[0] == pytest.approx([0.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize("action", ["truncate", "mask"])
def test_a_nan_is_not_hidden(action):
    found, _ = corrected("token", action, weights=[math.nan, 1.0, 1.0, 1.0])

    assert math.isnan(found[0])
    assert found[1:] == [1.0, 1.0, 1.0]


def test_nothing_differentiates_through_a_weight():
    old = torch.tensor([-1.0], requires_grad=True)

    found, _ = correction_weights(
        old, torch.tensor([-1.5]), lengths=[1], level="token", action="truncate", low=0.0, high=2.0
    )

    assert not found.requires_grad
