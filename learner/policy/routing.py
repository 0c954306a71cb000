"""How routers spread tokens over experts, summed up inside a forward pass.

Axes: M layers of experts, E experts, L tokens of a stream, K experts of a token.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSums:
    """Sums over the tokens of a forward pass."""

    num_tokens: int
    counts: torch.Tensor
    """int64 [M, E] tokens that each expert gets."""
    probabilities: torch.Tensor
    """float32 [M, E] of the router's softmax over all experts; with gradient where `RouterWatch` keeps it."""
    entropy: torch.Tensor
    """float32 [M, 1] of that softmax, nats."""


class RouterWatch:
    """Sums up what each router does in a forward pass, layer after layer."""

    def __init__(self, layers: Sequence[Any], *, keeps_gradient: bool) -> None:
        """Hook into the routers.

        Args:
            layers: as `ModelFamily.expert_layers` returns them; at least one.
            keeps_gradient: whether probabilities are to have a gradient.
        """
        self.shape = (len(layers), layers[0].experts.num_experts)
        """(M, E)"""
        self._keeps_gradient = keeps_gradient
        self._is_open = False
        self._found: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for layer in layers:
            layer.gate.register_forward_hook(self._note)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Forget the last pass, and sum up the one in the block."""
        self._found = []
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False

    def take(self) -> RouterSums:
        """Return the sums of the last pass, and forget them."""
        [num_tokens, *_], counts, probabilities, entropy = zip(*self._found, strict=True)
        self._found = []
        return RouterSums(
            num_tokens=num_tokens,
            counts=torch.stack(counts),
            probabilities=torch.stack(probabilities),
            entropy=torch.stack(entropy),
        )

    def _note(self, router: torch.nn.Module, inputs: Any, output: tuple[torch.Tensor, ...]) -> None:
        # A block that is computed again for its backward pass must save the same tensors for it, so what has a gradient
        # is summed up then too.
        if not self._is_open and not self._keeps_gradient:
            return
        logits, _, indices = output
        with nullcontext() if self._keeps_gradient else torch.no_grad():
            probabilities = torch.softmax(logits.float(), dim=-1)
            summed = probabilities.sum(0)
        with torch.no_grad():
            entropy = torch.special.entr(probabilities).sum()[None]
            chosen = indices.flatten()
            counts = torch.zeros(logits.shape[-1], dtype=torch.int64, device=chosen.device)
            counts.scatter_add_(0, chosen, torch.ones_like(chosen))
        if self._is_open:
            self._found.append((len(logits), counts, summed, entropy))
