"""Log-probabilities and entropy of chosen tokens from hidden states, without logits of all positions at once.

A vocabulary of 150,000 makes the logits of 10,000 positions 6 GB in float32. Here positions are worked through in
chunks, and the backward pass computes each chunk's logits again.
Axes: C positions, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch

# Logits of one chunk: 2**25 float32 elements are 134 MB, and two tensors of that size exist at once.
CHUNK_ELEMENTS = 2**25

# Finite, so that probability zero times its logarithm stays zero; far enough that it is zero at any temperature.
BANNED_LOGIT = -1e9


def token_logprobs(
    hidden_states: torch.Tensor,
    lm_head_weight: torch.Tensor,
    target_ids: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 1.0,
    banned_token_ids: Sequence[int] = (),
    logit_cap: float | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each target token and entropy of each next-token distribution.

    Logits are computed in the type of the hidden states; softmax, sums and the weight's gradient are float32.

    Args:
        hidden_states: [C, D] last hidden state of the positions that predict.
        lm_head_weight: [V, D].
        target_ids: int64 [C].
        temperature: logits are divided by it; one for all, or float32 [C], one for each position.
        banned_token_ids: tokens of probability zero, which get no gradient.
        logit_cap: c of logits that are capped to c * tanh(logit / c), before anything else; None leaves them.
        chunk_elements: most logits of one chunk.

    Returns:
        (logprobs [C], entropy [C]), float32, nats; both carry gradients.
    """
    chunk_size = max(1, chunk_elements // lm_head_weight.shape[0])
    logprobs, entropy = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_states, lm_head_weight, target_ids, temperature, tuple(banned_token_ids), logit_cap, chunk_size
    )
    return logprobs, entropy


def _chunk_logits(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    temperature: float | torch.Tensor,
    banned_token_ids: tuple[int, ...],
    logit_cap: float | None,
) -> torch.Tensor:
    logits = _capped(torch.nn.functional.linear(hidden_states, weight), logit_cap).float()
    if isinstance(temperature, torch.Tensor) or temperature != 1.0:
        logits.div_(temperature)
    for token_id in banned_token_ids:  # a list as index would have to be copied to the device, which waits for it
        logits[:, token_id] = BANNED_LOGIT
    return logits


def _capped(logits: torch.Tensor, logit_cap: float | None) -> torch.Tensor:
    """Cap logits in place, in their own type, as models of transformers do."""
    return logits if logit_cap is None else logits.div_(logit_cap).tanh_().mul_(logit_cap)


def _rows(temperature: float | torch.Tensor, chunk: slice) -> float | torch.Tensor:
    """Return the temperature of a chunk's rows, [rows, 1] where each has its own."""
    return temperature[chunk, None] if isinstance(temperature, torch.Tensor) else temperature


class _ChunkedLogprobs(torch.autograd.Function):
    """Forward and backward by chunks; saves inputs and entropy only. Works in place, so that two buffers are enough."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        target_ids: torch.Tensor,
        temperature: float | torch.Tensor,
        banned_token_ids: tuple[int, ...],
        logit_cap: float | None,
        chunk_size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, entropies = [], []
        for start in range(0, len(hidden_states), chunk_size):
            chunk = slice(start, start + chunk_size)
            log_softmax = torch.log_softmax(
                _chunk_logits(hidden_states[chunk], weight, _rows(temperature, chunk), banned_token_ids, logit_cap),
                dim=-1,
            )
            logprobs.append(log_softmax.gather(-1, target_ids[chunk, None]).squeeze(-1))
            entropies.append(-torch.linalg.vecdot(log_softmax.exp(), log_softmax))
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden_states, weight, target_ids, entropy)
        ctx.temperature, ctx.banned_token_ids, ctx.chunk_size = temperature, banned_token_ids, chunk_size
        ctx.logit_cap = logit_cap
        ctx.set_materialize_grads(False)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: torch.Tensor | None, grad_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None, None, None]:
        hidden_states, weight, target_ids, entropy = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        if grad_logprobs is None and grad_entropy is None:
            return None, None, None, None, None, None, None
        grad_hidden = torch.empty_like(hidden_states) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(hidden_states), ctx.chunk_size):
            chunk = slice(start, start + ctx.chunk_size)
            temperature = _rows(ctx.temperature, chunk)
            logits = _chunk_logits(hidden_states[chunk], weight, temperature, ctx.banned_token_ids, ctx.logit_cap)
            # d capped / d logit = 1 - (capped / c)^2, of the capped logits with the temperature taken out again.
            slope = None if ctx.logit_cap is None else _cap_slope(logits * temperature, ctx.logit_cap)
            grad_logits = _chunk_grad(
                logits,
                target_ids[chunk],
                None if grad_logprobs is None else grad_logprobs[chunk],
                entropy[chunk],
                None if grad_entropy is None else grad_entropy[chunk],
            )
            if slope is not None:
                grad_logits.mul_(slope)
            narrow = grad_logits.div_(temperature).to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[chunk] = narrow @ weight
            if grad_weight is not None:
                _add_product(grad_weight, narrow, hidden_states[chunk])
        typed_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, typed_weight, None, None, None, None, None


def _cap_slope(capped: torch.Tensor, logit_cap: float) -> torch.Tensor:
    """Return the derivative of the cap; of a banned logit, which is far outside, zero instead of a large number."""
    return capped.div_(logit_cap).square_().neg_().add_(1.0).clamp_(min=0.0)


def _chunk_grad(
    logits: torch.Tensor,
    target_ids: torch.Tensor,
    grad_logprobs: torch.Tensor | None,
    entropy: torch.Tensor,
    grad_entropy: torch.Tensor | None,
) -> torch.Tensor:
    """Return the gradient of a chunk's scaled logits [rows, V]."""
    if grad_entropy is None:
        assert grad_logprobs is not None
        # d logprob_t / d logit_v = [v = t] - softmax_v
        grad = torch.softmax(logits, dim=-1).mul_(-grad_logprobs[:, None])
    else:
        # d entropy / d logit_v = -softmax_v * (log softmax_v + entropy); softmax_v is common to both.
        grad = torch.log_softmax(logits, dim=-1)
        softmax = torch.exp(grad, out=logits)
        grad.add_(entropy[:, None]).mul_(-grad_entropy[:, None])
        if grad_logprobs is not None:
            grad.sub_(grad_logprobs[:, None])
        grad.mul_(softmax)
    if grad_logprobs is not None:
        grad.scatter_add_(-1, target_ids[:, None], grad_logprobs[:, None])
    return grad


def _add_product(total: torch.Tensor, grad_logits: torch.Tensor, hidden_states: torch.Tensor) -> None:
    """Add grad_logits^T hidden_states to a float32 sum; in float32 without a second [V, D] tensor."""
    if grad_logits.dtype == torch.float32:
        total.addmm_(grad_logits.t(), hidden_states)
    else:
        total += grad_logits.t() @ hidden_states
