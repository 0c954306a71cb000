"""Estimates of KL(policy || other) from one sampled token.

Source: Schulman 2020, http://joschu.net/blog/kl-approx.html. Axis: C completion tokens.

As values, k1 and k3 are unbiased for tokens sampled from the policy; k2 is not, but has little variance.
As losses, what counts is the gradient, and there the order differs (Tang and Munos 2025, arXiv:2506.09477): that of k1
is zero on average, so k1 pulls nowhere; that of k2 is the gradient of the KL; that of k3 is the gradient of the KL with
both sides exchanged, which agrees where the two are close. Use k2 or k3 in the loss, k1 or k3 in the reward.
"""

from typing import Literal

import torch

KlEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: torch.Tensor, other_logprobs: torch.Tensor, *, estimator: KlEstimator) -> torch.Tensor:
    """Estimate KL(policy || other) per token, with d = other - policy: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1.

    Nothing is clamped: exp(d) overflows float32 at d = 88, where one of the two models is broken, and the non-finite
    loss says so.

    Args:
        logprobs: [C] under the policy, which sampled the tokens.
        other_logprobs: [C] under the other model.
        estimator: k1, k2 or k3.

    Returns:
        [C], nats; k2 and k3 are at least 0.
    """
    difference = other_logprobs - logprobs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    return torch.expm1(difference) - difference
