"""The clipped policy-gradient loss over completion tokens, with an optional pull towards a reference model.

In words: each token's probability ratio between the current and the behaviour policy, times the completion's
advantage; where the ratio has already moved past the clip in the advantage's favour, the token stops pushing.

Source: PPO, arXiv:1707.06347, eq. 7; token mean and asymmetric clip, DAPO, arXiv:2503.14476, eq. 8 to 10; KL estimate
k3, Schulman 2020, http://joschu.net/blog/kl-approx.html. Axis: C completion tokens of all sequences, flat.
"""

import torch


def kl_estimate(logprobs: torch.Tensor, other_logprobs: torch.Tensor) -> torch.Tensor:
    """Estimate KL(policy || other) per token by k3 = exp(d) - d - 1, d = other - policy.

    Unbiased for tokens sampled from the policy, and never negative.

    Args:
        logprobs: [C] under the policy.
        other_logprobs: [C] under the other model.

    Returns:
        [C], at least 0.
    """
    difference = other_logprobs - logprobs
    return torch.expm1(difference) - difference


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` where `mask` is True; 0 where nothing is."""
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)


def policy_gradient_loss(
    logprobs: torch.Tensor,
    *,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    completion_mask: torch.Tensor,
    entropy: torch.Tensor,
    ref_logprobs: torch.Tensor | None,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    num_completion_tokens: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Give the loss of these tokens as their share of the step's mean, and what to watch.

    Args:
        logprobs: [C] current policy, with gradient, nats.
        behaviour_logprobs: [C] weights that sampled.
        advantages: [C] of the token's completion.
        completion_mask: bool [C]; False tokens count nowhere.
        entropy: [C] of the current policy's next-token distribution, nats; only watched.
        ref_logprobs: [C] frozen reference; needed when kl_coef > 0.
        clip_low: the ratio is clipped at 1 - clip_low.
        clip_high: the ratio is clipped at 1 + clip_high.
        kl_coef: weight of the KL estimate to the reference.
        num_completion_tokens: of the whole step, over all ranks and micro-batches. Passing it in is what makes the
            gradient independent of how the step is cut.

    Returns:
        The scalar loss, and detached scalars that are means over the unmasked tokens of this call: clip_frac (tokens
        whose gradient the clip removed), ratio_mean, kl_behaviour (k3), mismatch (mean |current - behaviour|
        logprob), entropy, kl_ref; and num_tokens, the weight with which to average them.

    Example:
        One token, ratio 1 (current = behaviour), advantage 2, two tokens in the step: the loss is -1 * 2 / 2 = -1.
    """
    # Masked positions take the current logprob, so that garbage there can become neither inf nor a NaN gradient.
    behaviour = behaviour_logprobs.where(completion_mask, logprobs.detach())
    importance_ratio = torch.exp(logprobs - behaviour)
    pushed = importance_ratio * advantages
    clipped = importance_ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    token_loss = -torch.minimum(pushed, clipped)
    kl_ref = torch.zeros_like(logprobs)
    if kl_coef > 0:
        if ref_logprobs is None:
            raise ValueError("kl_coef is above 0, but ref_logprobs is None; load the reference model or set kl_coef=0")
        kl_ref = kl_estimate(logprobs, ref_logprobs)
        token_loss = token_loss + kl_coef * kl_ref
    loss = token_loss.where(completion_mask, 0.0).sum() / num_completion_tokens
    watched = {
        "clip_frac": (clipped < pushed).float(),
        "ratio_mean": importance_ratio,
        "kl_behaviour": kl_estimate(logprobs, behaviour),
        "mismatch": (logprobs - behaviour).abs(),
        "entropy": entropy,
        "kl_ref": kl_ref,
    }
    metrics = {name: masked_mean(values.detach(), completion_mask) for name, values in watched.items()}
    return loss, {**metrics, "num_tokens": completion_mask.sum().float()}
