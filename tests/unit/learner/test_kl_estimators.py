import math

import pytest
import torch

from learner.algorithms.losses import kl_estimate

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
