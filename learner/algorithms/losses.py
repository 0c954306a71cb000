"""The loss over completion tokens: a policy objective, an optional pull towards a reference, an entropy bonus.

Denominators of the token weights are of the whole optimiser step, over all ranks and micro-batches, so the gradient
does not depend on how the step is cut. Axes: S sequences, C completion tokens of all of them, sequence by sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from learner.algorithms.own import ObjectiveTokens, OwnObjective
from learner.config import AlgorithmConfig, CorrectionConfig

Aggregation = Literal["token", "sequence", "constant"]
KlEstimator = Literal["k1", "k2", "k3"]
Objective = Literal["clip", "gspo", "cispo"]


def token_weight(
    aggregation: Aggregation, length: int, *, num_tokens: int, num_sequences: int, max_completion_tokens: int
) -> float:
    """Return the weight of each token of one sequence.

    token: 1 / num_tokens, the mean over all tokens; DAPO, arXiv:2503.14476, eq. 8. sequence: 1 / (num_sequences * T),
    the mean of each completion's mean; GRPO, arXiv:2402.03300, eq. 3. constant: 1 / (num_sequences *
    max_completion_tokens), so that a token weighs the same in a short and in a long completion; Dr. GRPO,
    arXiv:2503.20783.

    Args:
        aggregation: one of the three.
        length: T, the sequence's completion tokens.
        num_tokens: of all unmasked completions of the optimiser step.
        num_sequences: unmasked completions of the optimiser step.
        max_completion_tokens: the rollout's limit; read by constant only.

    Raises:
        ValueError: aggregation constant without a max_completion_tokens.

    Example:
        >>> token_weight("sequence", 2, num_tokens=3, num_sequences=2, max_completion_tokens=0)
        0.25
    """
    if aggregation == "constant" and max_completion_tokens < 1:
        raise ValueError(
            f"algorithm.max_completion_tokens is {max_completion_tokens}; aggregation=constant divides by it, so set "
            "it to the rollout's limit, or algorithm.aggregation=token"
        )
    of_constant = num_sequences * max_completion_tokens
    return 1.0 / {"token": num_tokens, "sequence": num_sequences * length, "constant": of_constant}[aggregation]


def sequence_sums(values: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Return the sum over its sequence for each token: [C] to [C]; carries gradients, and adds in a fixed order."""
    return torch.cat([part.sum().expand(len(part)) for part in torch.split_with_sizes(values, list(lengths))])


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


def correction_weights(
    old_logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    *,
    lengths: Sequence[int],
    correction: CorrectionConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return w = old probability / behaviour probability, bounded.

    The engine samples with other probabilities than the learner computes for the same weights.

    With action mask, tokens or sequences outside [low, high] do not train. A NaN is neither truncated nor masked: it
    must reach the loss and end the step.

    Args:
        old_logprobs: [C], the learner's for the weights before the update, nats.
        behaviour_logprobs: [C], the engine's.
        lengths: [S] tokens of each sequence, C in all.
        correction: its level is token or sequence.

    Returns:
        (weights [C], corrected bool [C]: truncated or masked), without gradient.

    Source: see CorrectionConfig.

    Example:
        Old probability 0.9 where the engine had 0.3: w is 3, truncated to 2.

        >>> correction_weights(torch.tensor([0.9]).log(), torch.tensor([0.3]).log(), lengths=[1],
        ...                    correction=CorrectionConfig(level="token", action="truncate", high=2.0))
        (tensor([2.]), tensor([True]))
    """
    log_weights = (old_logprobs - behaviour_logprobs).detach()
    if correction.level == "sequence":
        log_weights = sequence_sums(log_weights, lengths)
    # An overflow to inf is fine: it lies above `high`, and nothing differentiates through it.
    weights = torch.exp(log_weights)
    if correction.action == "truncate":
        return weights.clamp(max=correction.high), weights > correction.high
    outside = (weights < correction.low) | (weights > correction.high)
    return weights.masked_fill(outside, 0.0), outside


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveTerms:
    """The policy term of each token, and what to watch."""

    token_loss: torch.Tensor
    """float32 [C], with gradient"""
    ratio: torch.Tensor
    """float32 [C], the importance ratio that is clipped"""
    is_clipped: torch.Tensor
    """bool [C]: clip, gspo: the clip removed the token's gradient. cispo: it bounded the token's weight. Never by an
    objective of the user's."""


def objective_terms(
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
    """Return what each token contributes to the loss before KL and entropy; r is its probability ratio.

    clip: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A). The ratio between current and old policy, times the
    advantage; where the ratio has already moved past the clip in the advantage's favour, the token stops pushing.

    gspo: the same with s, the sequence's geometric mean of token ratios, in place of r, so that a completion moves or
    stops as a whole. Each token's s has the sequence's value and its own token's gradient: s_t = sg[s] * p_t / sg[p_t].
    Its mean over the sequence has value and gradient of the sequence's own term, so aggregation sequence gives the
    paper's objective, and advantages may differ by token. The clip is of the order 3e-4, as s is a mean.

    cispo: -sg[clip(r, 1 - clip_low, 1 + clip_high)] A log p. REINFORCE with a bounded importance weight; every token
    keeps a gradient, also where PPO drops it. The paper uses only the upper bound: clip_low=1 disables the lower one.

    Sources: PPO, arXiv:1707.06347, eq. 7; two bounds, DAPO, arXiv:2503.14476, eq. 10; GSPO, arXiv:2507.18071, s eq. 7,
    objective eq. 5, by token (GSPO-token) eq. 13 and 14; CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4 and 5.

    Args:
        objective: clip, gspo or cispo.
        logprobs: [C] current policy, with gradient.
        old_logprobs: [C].
        advantages: [C].
        counted: bool [C]; other tokens are out of their sequence's mean.
        lengths: [S]; sequences must be whole.
        clip_low: the ratio is clipped at 1 - clip_low.
        clip_high: the ratio is clipped at 1 + clip_high.
    """
    if objective == "gspo":
        log_ratio = (logprobs - old_logprobs).detach()
        num_counted = sequence_sums(counted.float(), lengths).clamp(min=1)
        sequence_ratio = torch.exp(sequence_sums(log_ratio.where(counted, 0.0), lengths) / num_counted)
        ratio = sequence_ratio * torch.exp(logprobs - logprobs.detach())
    else:
        ratio = torch.exp(logprobs - old_logprobs)
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    if objective == "cispo":
        ratio, bounded = ratio.detach(), bounded.detach()
        return ObjectiveTerms(token_loss=-bounded * advantages * logprobs, ratio=ratio, is_clipped=bounded != ratio)
    pushed, clipped = ratio * advantages, bounded * advantages
    return ObjectiveTerms(
        token_loss=-torch.minimum(pushed, clipped), ratio=ratio.detach(), is_clipped=(clipped < pushed).detach()
    )


def policy_loss(
    objective: Objective | OwnObjective,
    logprobs: torch.Tensor,
    *,
    old_logprobs: torch.Tensor | None,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    token_weights: torch.Tensor,
    lengths: Sequence[int],
    entropy: torch.Tensor,
    ref_logprobs: torch.Tensor | None,
    kl_coef: float | torch.Tensor,
    config: AlgorithmConfig,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of these tokens as their share of the step's, and metrics.

    A token's loss is correction * objective + kl_coef * KL - entropy_coef * entropy; the loss is their sum weighted by
    `token_weights`. Tokens of weight 0 count nowhere: garbage there makes neither the loss nor a gradient NaN.

    Args:
        objective: clip, gspo or cispo, see `objective_terms`; or a function of the user's.
        logprobs: [C] current policy, with gradient, nats.
        old_logprobs: [C] what the ratio divides by: the learner's own before the first update. Where there is only
            one update, logprobs.detach() is exactly that. None: the ratio divides by `behaviour_logprobs`.
        behaviour_logprobs: [C] the engine's, of the weights that sampled.
        advantages: float32 [C].
        token_weights: float32 [C], at least 0; see `token_weight`.
        lengths: [S] tokens of each sequence; they add up to C.
        entropy: [C] of the current policy's next-token distribution, nats, with gradient.
        ref_logprobs: [C] frozen reference; needed when kl_coef > 0, and only watched when it is 0.
        kl_coef: weight of the KL to the reference in the loss; 0 where the reward holds it; float32 [C] where tasks
            have their own.
        config: clip, KL estimator, entropy bonus and correction.

    Returns:
        The scalar loss, and detached scalars, means over the tokens of weight above 0, each counted once: clip_frac
        and ratio_mean (see ObjectiveTerms), kl_behaviour (k3 of current against behaviour), mismatch (mean of
        abs(old - behaviour) logprob; of the current where old is None), entropy, kl_ref (always k3, so that runs
        compare; 0 without a reference), correction_mean (1 without correction), corrected_frac (truncated or masked);
        and num_tokens, the weight with which to average them.

    Raises:
        ValueError: kl_coef without ref_logprobs, or a correction without old_logprobs.
        LearnerError: the user's function raises, or returns something else than a loss for each token.

    Example:
        One token, ratio 1 (current = behaviour), advantage 2, weight 1/2: the loss is -1 * 2 / 2 = -1.
    """
    has_kl = isinstance(kl_coef, torch.Tensor) or kl_coef > 0
    if has_kl and ref_logprobs is None:
        raise ValueError("kl_coef is above 0, but ref_logprobs is None; load the reference model or set kl_coef=0")
    counted = token_weights > 0
    # `where` on the inputs: garbage behind weight 0 must not enter exp, whose gradient would be NaN even times 0.
    current, behaviour, entropy, advantages = (
        values.where(counted, 0.0) for values in (logprobs, behaviour_logprobs, entropy, advantages)
    )
    old = None if old_logprobs is None else old_logprobs.where(counted, 0.0).detach()
    ref = None if ref_logprobs is None else ref_logprobs.where(counted, 0.0)
    if isinstance(objective, OwnObjective):
        tokens = ObjectiveTokens(
            logprobs=current,
            old_logprobs=behaviour if old is None else old,
            behaviour_logprobs=behaviour,
            ref_logprobs=ref,
            entropy=entropy,
            advantages=advantages,
            lengths=tuple(lengths),
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )
        terms = ObjectiveTerms(
            token_loss=objective(tokens),
            ratio=torch.exp(current - tokens.old_logprobs).detach(),
            is_clipped=torch.zeros_like(counted),
        )
    else:
        terms = objective_terms(
            objective,
            current,
            behaviour if old is None else old,
            advantages=advantages,
            counted=counted,
            lengths=lengths,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )
    correction, corrected = torch.ones_like(behaviour), torch.zeros_like(counted)
    if config.correction.level != "none":
        if old is None:
            raise ValueError(
                f"correction.level is {config.correction.level}, but old_logprobs is None, so the ratio itself holds "
                "the correction; pass old_logprobs or set correction.level=none"
            )
        correction, corrected = correction_weights(old, behaviour, lengths=lengths, correction=config.correction)
    token_loss = correction * terms.token_loss
    if has_kl and ref is not None:
        token_loss = token_loss + kl_coef * kl_estimate(current, ref, estimator=config.kl_estimator)
    if config.entropy_coef > 0:
        token_loss = token_loss - config.entropy_coef * entropy
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
    num_tokens = counted.sum()
    metrics = {name: values.where(counted, 0.0).sum() / num_tokens.clamp(min=1) for name, values in watched.items()}
    return (token_weights * token_loss).sum(), {**metrics, "num_tokens": num_tokens.float()}
