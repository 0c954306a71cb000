"""Sums over the micro-batches and ranks of an update, and the metrics of a step made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from learner.packing import MicroBatch
from learner.step_plan import StepCounts

# Means over completion tokens that the loss reports, and the names under which a run logs them.
TOKEN_METRICS = {
    "clip_frac": "policy/clip_frac",
    "ratio_mean": "policy/ratio_mean",
    "kl_behaviour": "policy/kl_behaviour",
    "mismatch": "policy/mismatch",
    "entropy": "policy/entropy",
    "kl_ref": "policy/kl_ref",
    "correction_mean": "policy/correction_mean",
    "corrected_frac": "policy/corrected_frac",
}
NUM_SUSPECTS = 3
"""Groups that an error about an exploding gradient names."""


class UpdateSums:
    """Adds up one rank's micro-batches of one update on its device; nothing reaches the host before `reduce`."""

    def __init__(self, device: torch.device) -> None:
        """Start at zero."""
        self._sums = torch.zeros(2 + len(TOKEN_METRICS), dtype=torch.float64, device=device)
        self._seen: list[tuple[tuple[str, ...], tuple[int, ...], torch.Tensor]] = []

    def add(
        self,
        batch: MicroBatch,
        *,
        loss: torch.Tensor,
        metrics: Mapping[str, torch.Tensor],
        logprobs: torch.Tensor,
    ) -> None:
        """Add the loss, and the means weighted by their tokens."""
        num_tokens = metrics["num_tokens"]
        weighted = [metrics[name] * num_tokens for name in TOKEN_METRICS]
        self._sums += torch.stack([loss.detach().double(), num_tokens.double(), *(w.double() for w in weighted)])
        distance = (logprobs.detach() - batch.behaviour_logprobs).abs()
        # Of the micro-batch, only this stays: its pixels and layout would fill the device over a step.
        self._seen.append((batch.group_ids, batch.lengths, distance.where(batch.token_weights > 0, 0.0)))

    def reduce(self) -> dict[str, float]:
        """Add up over ranks: loss is the update's loss, num_tokens its tokens, the rest means over these."""
        dist.all_reduce(self._sums)
        loss, num_tokens, *weighted = self._sums.tolist()
        means = {name: value / max(1.0, num_tokens) for name, value in zip(TOKEN_METRICS, weighted, strict=True)}
        return {"loss": loss, "num_tokens": num_tokens, **means}

    def distances(self) -> dict[str, float]:
        """Largest |current - behaviour| logprob of each of this rank's groups; NaN or inf where one is not finite."""
        found: dict[str, float] = {}
        for group_ids, lengths, distance in self._seen:
            for group_id, tokens in zip(group_ids, distance.split(lengths), strict=True):
                worst = float(tokens.max())
                # max() of Python drops a NaN that comes second.
                found[group_id] = worst if worst != worst else max(found.get(group_id, 0.0), worst)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """One optimiser update."""

    totals: Mapping[str, float]
    """From UpdateSums.reduce."""
    grad_norm: float
    num_forward_tokens: int
    """Tokens fed to the model on all ranks: a shared prompt once."""


def report_metrics(updates: Sequence[UpdateReport], counts: StepCounts, *, learning_rate: float) -> dict[str, float]:
    """Give the step's metrics; learner/README.md defines each."""
    num_tokens = sum(update.totals["num_tokens"] for update in updates)

    def per_token(name: str) -> float:
        return sum(u.totals[name] * u.totals["num_tokens"] for u in updates) / max(1.0, num_tokens)

    return {
        "policy/loss": sum(update.totals["loss"] for update in updates) / len(updates),
        "policy/grad_norm": sum(update.grad_norm for update in updates) / len(updates),
        "policy/learning_rate": learning_rate,
        **{logged: per_token(name) for name, logged in TOKEN_METRICS.items()},
        "learner/num_updates": float(len(updates)),
        "learner/num_groups": float(counts.num_groups),
        "learner/num_completion_tokens": float(counts.num_completion_tokens),
        "learner/num_trained_tokens": num_tokens,
        "learner/num_forward_tokens": float(sum(update.num_forward_tokens for update in updates)),
        "learner/zero_signal_frac": counts.num_zero_signal_groups / max(1, counts.num_groups),
        "learner/masked_frac": counts.num_masked_sequences / max(1, counts.num_sequences),
        "learner/trained_sequence_frac": counts.num_trained_sequences / max(1, counts.num_sequences),
    }
