"""The loss over completion tokens: a policy objective, an optional pull towards a reference, an entropy bonus.

Axes: S sequences, C completion tokens of all of them, flat, sequence by sequence.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from learner.algorithms.objectives import (
    Objective,
    ObjectiveTerms,
    cispo_objective,
    clip_objective,
    gspo_objective,
    sequence_sums,
)

KlEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: torch.Tensor, other_logprobs: torch.Tensor, *, estimator: KlEstimator) -> torch.Tensor:
    """Estimate KL(policy || other) per token, with d = other - policy: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1.

    As values, k1 and k3 are unbiased for tokens sampled from the policy; k2 is not, but has little variance. In a loss
    the gradient counts: that of k1 is zero on average, so k1 has no effect; that of k2 is the gradient of the KL; that
    of k3 is the gradient of the KL with both sides exchanged, which agrees where the two are close (Tang and Munos
    2025, arXiv:2506.09477). Use k2 or k3 in the loss, k1 or k3 in the reward.

    Nothing is clamped: exp(d) overflows float32 at d = 88, where one of the two models is broken, and the loss is then
    not finite.

    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html.

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


CorrectionLevel = Literal["none", "token", "sequence"]
CorrectionAction = Literal["truncate", "mask"]


def correction_weights(
    old_logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    *,
    lengths: Sequence[int],
    level: Literal["token", "sequence"],
    action: CorrectionAction,
    low: float,
    high: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return w = old probability / behaviour probability, bounded.

    The engine samples with other probabilities than the learner computes for the same weights.

    truncate: min(w, high); `low` is not read. mask: w inside [low, high], 0 outside: such tokens, or sequences, do not
    train. A NaN is neither truncated nor masked: it must reach the loss and end the step.

    Args:
        old_logprobs: [C], the learner's for the weights before the update, nats.
        behaviour_logprobs: [C], the engine's.
        lengths: [S] tokens of each sequence, C in all.
        level: token: each token its own w. sequence: one for all tokens of a sequence, the product of theirs.
        action: truncate or mask.
        low: of the interval.
        high: of the interval.

    Returns:
        (weights [C], corrected bool [C]: truncated or masked), without gradient.

    Sources: truncated importance sampling, IMPALA, arXiv:1802.01561, eq. 1, for engine and learner Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training"; masking, IcePop in arXiv:2510.18855.

    Example:
        Old probability 0.9 where the engine had 0.3: w is 3, truncated to 2.

        >>> correction_weights(torch.tensor([0.9]).log(), torch.tensor([0.3]).log(), lengths=[1], level="token",
        ...                    action="truncate", low=0.0, high=2.0)
        (tensor([2.]), tensor([True]))
    """
    log_weights = (old_logprobs - behaviour_logprobs).detach()
    if level == "sequence":
        log_weights = sequence_sums(log_weights, lengths)
    # An overflow to inf is fine: it lies above `high`, and nothing differentiates through it.
    weights = torch.exp(log_weights)
    if action == "truncate":
        return weights.clamp(max=high), weights > high
    outside = (weights < low) | (weights > high)
    return weights.masked_fill(outside, 0.0), outside


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` where `mask` is True; 0 where nothing is."""
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)


def policy_loss(
    objective: Objective,
    logprobs: torch.Tensor,
    *,
    old_logprobs: torch.Tensor | None,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    token_weights: torch.Tensor,
    lengths: Sequence[int],
    entropy: torch.Tensor,
    ref_logprobs: torch.Tensor | None,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    kl_estimator: KlEstimator,
    entropy_coef: float,
    correction_level: CorrectionLevel,
    correction_action: CorrectionAction,
    correction_low: float,
    correction_high: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of these tokens as their share of the step's, and metrics.

    A token's loss is correction * objective + kl_coef * KL - entropy_coef * entropy; the loss is their sum weighted by
    `token_weights`. Tokens of weight 0 count nowhere: garbage there makes neither the loss nor a gradient NaN.

    Args:
        objective: clip, gspo or cispo; see `learner.algorithms.objectives`.
        logprobs: [C] current policy, with gradient, nats.
        old_logprobs: [C] what the ratio divides by: the learner's own before the first update. Where there is only
            one update, logprobs.detach() is exactly that. None: the ratio divides by `behaviour_logprobs`.
        behaviour_logprobs: [C] the engine's, of the weights that sampled.
        advantages: float32 [C].
        token_weights: float32 [C], at least 0; see `learner.algorithms.objectives.token_weights`.
        lengths: [S] tokens of each sequence; they add up to C.
        entropy: [C] of the current policy's next-token distribution, nats, with gradient.
        ref_logprobs: [C] frozen reference; needed when kl_coef > 0, and only watched when it is 0.
        clip_low: the ratio is clipped at 1 - clip_low.
        clip_high: the ratio is clipped at 1 + clip_high.
        kl_coef: weight of the KL to the reference in the loss; 0 where the reward holds it.
        kl_estimator: see `kl_estimate`; k1 has no effect in a loss.
        entropy_coef: weight of the entropy bonus.
        correction_level: see `correction_weights`; none multiplies by 1.
        correction_action: truncate or mask.
        correction_low: of the interval of weights.
        correction_high: of the interval of weights.

    Returns:
        The scalar loss, and detached scalars, means over the tokens of weight above 0, each counted once: clip_frac
        and ratio_mean (see ObjectiveTerms), kl_behaviour (k3 of current against behaviour), mismatch (mean of
        abs(old - behaviour) logprob; of the current where old is None), entropy, kl_ref (always k3, so that runs
        compare; 0 without a reference), correction_mean (1 without correction), corrected_frac (truncated or masked);
        and num_tokens, the weight with which to average them.

    Raises:
        ValueError: kl_coef without ref_logprobs, or a correction without old_logprobs.

    Example:
        One token, ratio 1 (current = behaviour), advantage 2, weight 1/2: the loss is -1 * 2 / 2 = -1.
    """
    if kl_coef > 0 and ref_logprobs is None:
        raise ValueError("kl_coef is above 0, but ref_logprobs is None; load the reference model or set kl_coef=0")
    counted = token_weights > 0
    # `where` on the inputs: garbage behind weight 0 must not enter exp, whose gradient would be NaN even times 0.
    current, behaviour, entropy, advantages = (
        values.where(counted, 0.0) for values in (logprobs, behaviour_logprobs, entropy, advantages)
    )
    old = None if old_logprobs is None else old_logprobs.where(counted, 0.0).detach()
    ref = None if ref_logprobs is None else ref_logprobs.where(counted, 0.0)
    terms = _objective_terms(
        objective,
        current,
        behaviour if old is None else old,
        advantages=advantages,
        counted=counted,
        lengths=lengths,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    correction, corrected = torch.ones_like(behaviour), torch.zeros_like(counted)
    if correction_level != "none":
        if old is None:
            raise ValueError(
                f"correction_level is {correction_level}, but old_logprobs is None, so the ratio itself holds the "
                "correction; pass old_logprobs or set correction_level=none"
            )
        correction, corrected = correction_weights(
            old,
            behaviour,
            lengths=lengths,
            level=correction_level,
            action=correction_action,
            low=correction_low,
            high=correction_high,
        )
    token_loss = correction * terms.token_loss
    if kl_coef > 0 and ref is not None:
        token_loss = token_loss + kl_coef * kl_estimate(current, ref, estimator=kl_estimator)
    if entropy_coef > 0:
        token_loss = token_loss - entropy_coef * entropy
    detached = current.detach()
    watched = {
        "clip_frac": terms.is_clipped.float(),
        "ratio_mean": terms.ratio,
        "kl_behaviour": kl_estimate(detached, behaviour, estimator="k3"),
        "mismatch": ((detached if old is None else old) - behaviour).abs(),
        "entropy": entropy.detach(),
        "kl_ref": torch.zeros_like(detached) if ref is None else kl_estimate(detached, ref, estimator="k3"),
        "correction_mean": correction,
        "corrected_frac": corrected.float(),
    }
    metrics = {name: masked_mean(values, counted) for name, values in watched.items()}
    return (token_weights * token_loss).sum(), {**metrics, "num_tokens": counted.sum().float()}


def _objective_terms(
    objective: Objective,
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    *,
    advantages: torch.Tensor,
    counted: torch.Tensor,
    lengths: Sequence[int],
    clip_low: float,
    clip_high: float,
) -> ObjectiveTerms:
    if objective == "gspo":
        return gspo_objective(
            logprobs,
            old_logprobs,
            advantages=advantages,
            counted=counted,
            lengths=lengths,
            clip_low=clip_low,
            clip_high=clip_high,
        )
    function = {"clip": clip_objective, "cispo": cispo_objective}[objective]
    return function(logprobs, old_logprobs, advantages=advantages, clip_low=clip_low, clip_high=clip_high)
