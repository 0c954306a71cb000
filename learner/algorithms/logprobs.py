"""Log-probabilities and entropy of chosen tokens from hidden states, without logits of all positions at once.

A vocabulary of 150,000 makes the logits of 10,000 positions 6 GB in float32. Here positions are worked through in
chunks, and the backward pass computes each chunk's logits again.
Axes: C positions, D hidden size, V vocabulary.
"""

from typing import Any

import torch

# Logits alive at once: 2**26 float32 elements are 268 MB; a few tensors of that size exist in the backward pass.
CHUNK_ELEMENTS = 2**26


def token_logprobs(
    hidden_states: torch.Tensor,
    lm_head_weight: torch.Tensor,
    target_ids: torch.Tensor,
    *,
    temperature: float = 1.0,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give log-probability of each target token and entropy of each next-token distribution.

    Logits are computed in the type of the hidden states; softmax, sums and the weight's gradient are float32.

    Args:
        hidden_states: [C, D] last hidden state of the positions that predict.
        lm_head_weight: [V, D].
        target_ids: int64 [C].
        temperature: logits are divided by it.
        chunk_elements: most logits in memory at once.

    Returns:
        (logprobs [C], entropy [C]), float32, nats; both carry gradients.
    """
    chunk_size = max(1, chunk_elements // lm_head_weight.shape[0])
    logprobs, entropy = _ChunkedLogprobs.apply(hidden_states, lm_head_weight, target_ids, temperature, chunk_size)  # type: ignore[no-untyped-call]
    return logprobs, entropy


def _chunk_log_softmax(hidden_states: torch.Tensor, weight: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = torch.nn.functional.linear(hidden_states, weight).float()
    if temperature != 1.0:
        logits = logits.div_(temperature)
    return torch.log_softmax(logits, dim=-1)


class _ChunkedLogprobs(torch.autograd.Function):
    """Forward and backward by chunks; saves inputs and entropy only."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        target_ids: torch.Tensor,
        temperature: float,
        chunk_size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, entropies = [], []
        for start in range(0, len(hidden_states), chunk_size):
            chunk = slice(start, start + chunk_size)
            log_softmax = _chunk_log_softmax(hidden_states[chunk], weight, temperature)
            logprobs.append(log_softmax.gather(-1, target_ids[chunk, None]).squeeze(-1))
            entropies.append(-torch.linalg.vecdot(log_softmax.exp(), log_softmax))
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden_states, weight, target_ids, entropy)
        ctx.temperature, ctx.chunk_size = temperature, chunk_size
        ctx.set_materialize_grads(False)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: torch.Tensor | None, grad_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None]:
        hidden_states, weight, target_ids, entropy = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        if grad_logprobs is None and grad_entropy is None:
            return None, None, None, None, None
        grad_hidden = torch.empty_like(hidden_states) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(hidden_states), ctx.chunk_size):
            chunk = slice(start, start + ctx.chunk_size)
            log_softmax = _chunk_log_softmax(hidden_states[chunk], weight, ctx.temperature)
            softmax = log_softmax.exp()
            grad_logits = torch.zeros_like(softmax)
            if grad_logprobs is not None:
                # d logprob_t / d logit_v = [v = t] - softmax_v
                grad_logits -= softmax * grad_logprobs[chunk, None]
                grad_logits.scatter_add_(-1, target_ids[chunk, None], grad_logprobs[chunk, None])
            if grad_entropy is not None:
                # d entropy / d logit_v = -softmax_v * (log softmax_v + entropy)
                grad_logits -= softmax * (log_softmax + entropy[chunk, None]) * grad_entropy[chunk, None]
            grad_logits /= ctx.temperature
            narrow = grad_logits.to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[chunk] = narrow @ weight
            if grad_weight is not None:
                grad_weight += narrow.t() @ hidden_states[chunk]
        typed_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, typed_weight, None, None, None
