"""The load of experts over the tokens of an update, and the loss that evens it out.

Axes: M layers of experts, E experts, K experts of a token.
"""

from collections.abc import Iterable
from typing import Self

import torch
import torch.distributed as dist

from learner.backends.base import TrainBackend
from learner.config import ExpertsConfig
from learner.errors import LearnerError
from learner.policy.packing import MicroBatch
from learner.policy.routing import RouterSums, RouterWatch

NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Keys of configurations for the number of experts."""


def balance_loss(loads: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return E times the sum over experts of load times mean probability, averaged over layers; K where both are even.

    Source: Switch Transformer, arXiv:2101.03961, eq. 4 to 6, with loads that add up to K as in transformers, whose
    coefficient (`router_aux_loss_coef` of a checkpoint) so means the same here; a layer by itself, as there, and not
    all layers as one. Loads are those of the whole batch: Qwen3, arXiv:2505.09388, section 3.1, and arXiv:2501.11873.

    Args:
        loads: [M, E] tokens of each expert, over the number of tokens; without gradient.
        probabilities: [M, E] mean of the router's probabilities.
    """
    return loads.shape[-1] * (loads * probabilities).sum(-1).mean()


class ExpertBalance:
    """Adds up what routers did over the micro-batches of one update, on all ranks.

    A token counts once for each time that it is fed: those of a shared prompt once, those of a prompt that is repeated,
    for its completions or in another micro-batch, as often. Streams have no padding, and dummies do not count.
    """

    def __init__(self, routers: RouterWatch, coef: float, backend: TrainBackend) -> None:
        """Watch the routers of the policy of `backend`; `coef` is the weight of the balance loss."""
        self._routers = routers
        self._coef = coef
        self._backend = backend
        self._loads = torch.zeros(0)
        """[M, E] of all micro-batches of the update, over its number of tokens."""
        self._num_tokens = 0.0
        """Of them."""
        self._clear()

    @classmethod
    def of(cls, backend: TrainBackend, config: ExpertsConfig) -> Self | None:
        """Return one for the policy of a backend, or None where that has no experts.

        Raises:
            LearnerError: the loss is asked for, and the model's routers are not known.
        """
        routers = backend.policy.routers
        hf_config = backend.policy.hf_model.config
        text = hf_config.get_text_config()
        if routers is None and config.balance_loss_coef > 0 and any(getattr(text, key, None) for key in NUM_EXPERTS):
            raise LearnerError(
                f"learner.experts.balance_loss_coef is {config.balance_loss_coef:g}, but the routers of a model of "
                f"type {hf_config.model_type} are not known here; set it to 0, or write a family whose expert_layers "
                "returns its layers of experts (learner/README.md)"
            )
        return None if routers is None else cls(routers, config.balance_loss_coef, backend)

    def begin(self, batches: Iterable[tuple[MicroBatch, bool]]) -> None:
        """Begin an update; a balance loss first takes a pass over all micro-batches, to count their loads.

        The gradient of each of them needs the loads of the whole update. A collective of all ranks.
        """
        if self._coef > 0:
            for batch, _ in batches:
                self._backend.logprobs(batch)
                self._add(batch)
            sums, self._num_tokens = self._reduced()
            self._loads = (sums[0] / max(1.0, self._num_tokens)).float()
        self._clear()

    def add_to(self, loss: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """Add the share in the balance loss of the micro-batch that has just run forward to its other loss."""
        sums = self._add(batch)
        if sums is None or self._coef == 0:
            return loss
        return loss + self._coef * balance_loss(self._loads, sums.probabilities / self._num_tokens)

    def metrics(self) -> dict[str, float]:
        """Return those of the update, the same on every rank; learner/README.md defines each. A collective."""
        sums, num_tokens = self._reduced()
        loads, probabilities, entropy = (part / max(1.0, num_tokens) for part in sums)
        self._clear()
        num_experts = loads.shape[-1]
        per_token = max(1.0, float(loads[0].sum()))
        return {
            "experts/balance_loss": float(balance_loss(loads, probabilities)),
            "experts/load_max": float(loads.amax(-1).mean()) * num_experts / per_token,
            "experts/unused_frac": float((loads == 0).double().mean()),
            "experts/router_entropy": float(entropy[:, 0].mean()),
        }

    def _add(self, batch: MicroBatch) -> RouterSums | None:
        if batch.is_dummy:
            return None
        sums = self._routers.take()
        for total, part in zip(self._sums, (sums.counts, sums.probabilities, sums.entropy), strict=True):
            total[:, : part.shape[-1]] += part.detach()
        self._fed += sums.num_tokens
        return sums

    def _clear(self) -> None:
        self._sums = torch.zeros(3, *self._routers.shape, dtype=torch.float64, device=self._backend.device)
        """[3, M, E] tokens of each expert, probabilities, and entropy in the first column."""
        self._fed = torch.zeros((), dtype=torch.float64, device=self._backend.device)

    def _reduced(self) -> tuple[torch.Tensor, float]:
        dist.all_reduce(self._sums)
        dist.all_reduce(self._fed)
        return self._sums, float(self._fed)
