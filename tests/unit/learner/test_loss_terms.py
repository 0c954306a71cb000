"""Terms of the loss: weights of tokens, corrections and KL estimates, by values worked out by hand."""

import math

import pytest
import torch

from learner.algorithms.losses import correction_weights, kl_estimate, sequence_sums, token_weight
from learner.config import CorrectionConfig


def weights(aggregation, lengths, num_tokens=8, num_sequences=4, max_completion_tokens=10):
    settings = {
        "num_tokens": num_tokens,
        "num_sequences": num_sequences,
        "max_completion_tokens": max_completion_tokens,
    }
    return [token_weight(aggregation, length, **settings) for length in lengths for _ in range(length)]


def test_token_weights_are_one_over_the_steps_tokens():
    assert weights("token", [1, 3]) == [0.125] * 4


def test_sequence_weights_are_one_over_sequences_and_their_length():
    # 1 / (4 * 1), 1 / (4 * 4)
    assert weights("sequence", [1, 4]) == [0.25] + [0.0625] * 4


def test_constant_weights_do_not_see_lengths():
    # 1 / (4 * 10)
    assert weights("constant", [1, 2]) == pytest.approx([0.025] * 3)


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_weights_of_the_whole_step_add_up_to_one(aggregation):
    assert sum(weights(aggregation, [1, 3, 2, 2])) == pytest.approx(1.0)


def test_constant_without_a_limit_is_refused():
    with pytest.raises(ValueError, match="max_completion_tokens is 0; aggregation=constant divides by it"):
        weights("constant", [1], max_completion_tokens=0)


def test_sequence_sums_stand_at_each_token_and_carry_gradients():
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)

    found = sequence_sums(values, [1, 2])
    found[1].backward()

    assert found.tolist() == [1.0, 6.0, 6.0]
    assert values.grad.tolist() == [0.0, 1.0, 1.0]


# old / behaviour probability of two sequences of two tokens: products 6 and 0.25
WEIGHTS = [3.0, 2.0, 0.25, 1.0]


def corrected(level, action, low=0.5, high=2.5, weights=WEIGHTS):
    old = torch.log(torch.tensor(weights)) - 1
    correction = CorrectionConfig(level=level, action=action, low=low, high=high)
    found, hit = correction_weights(old, torch.full_like(old, -1.0), lengths=[2, 2], correction=correction)
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

    found, _ = correction_weights(old, torch.tensor([-1.5]), lengths=[1], correction=CorrectionConfig(level="token"))

    assert not found.requires_grad


LOGITS = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64)
OTHER = torch.log_softmax(torch.tensor([-0.2, 0.5, 0.4], dtype=torch.float64), 0)


def expected(values, logprobs):
    """Expectation over all three tokens, exactly."""
    return (logprobs.exp().detach() * values).sum()


def exact_kl(logprobs, other):
    return (logprobs.exp() * (logprobs - other)).sum()


@pytest.mark.parametrize(
    ("estimator", "value"),
    # d = other - policy = ln 2: -ln 2; (ln 2)^2 / 2; 2 - ln 2 - 1
    [("k1", -math.log(2)), ("k2", math.log(2) ** 2 / 2), ("k3", 1 - math.log(2))],
)
def test_golden_values(estimator, value):
    found = kl_estimate(torch.tensor([-1.0]), torch.tensor([-1.0 + math.log(2)]), estimator=estimator)

    assert found.item() == pytest.approx(value)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_k2_and_k3_are_never_negative(estimator):
    values = torch.linspace(-5, 0, 50)

    assert (kl_estimate(values[:, None], values[None, :], estimator=estimator) >= 0).all()


@pytest.mark.parametrize(("estimator", "is_unbiased"), [("k1", True), ("k2", False), ("k3", True)])
def test_as_values_k1_and_k3_are_unbiased_and_k2_is_not(estimator, is_unbiased):
    logprobs = torch.log_softmax(LOGITS, 0)

    found = expected(kl_estimate(logprobs, OTHER, estimator=estimator), logprobs)

    assert (abs(found - exact_kl(logprobs, OTHER)) < 1e-12) == is_unbiased


def expected_gradient(estimator):
    logits = LOGITS.clone().requires_grad_()
    logprobs = torch.log_softmax(logits, 0)
    [gradient] = torch.autograd.grad(expected(kl_estimate(logprobs, OTHER, estimator=estimator), logprobs), logits)
    return gradient


def test_as_losses_k1_pulls_nowhere_k2_along_the_kl_and_k3_along_the_exchanged_kl():
    logits = LOGITS.clone().requires_grad_()
    logprobs = torch.log_softmax(logits, 0)
    [of_kl] = torch.autograd.grad(exact_kl(logprobs, OTHER), logits, retain_graph=True)
    [of_exchanged] = torch.autograd.grad(exact_kl(OTHER, logprobs), logits)

    torch.testing.assert_close(expected_gradient("k1"), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient("k2"), of_kl)
    torch.testing.assert_close(expected_gradient("k3"), of_exchanged)
