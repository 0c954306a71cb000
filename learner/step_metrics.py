"""Sums over the micro-batches and ranks of a step, and the metrics made of them."""

from collections.abc import Mapping

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
}


class StepSums:
    """Adds up one rank's micro-batches on its device; nothing is copied to the host before `reduce`."""

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
        self._sums += torch.stack([loss.detach(), num_tokens, *weighted])
        # Of the micro-batch, only this stays: its pixels and layout would fill the device over a step.
        ratio = torch.exp(logprobs.detach() - batch.behaviour_logprobs)
        is_finite = (torch.isfinite(ratio) & torch.isfinite(logprobs.detach())) | ~batch.completion_mask
        self._seen.append((batch.group_ids, batch.lengths, is_finite))

    def reduce(self) -> dict[str, float]:
        """Add up over ranks: loss is the step's loss, num_tokens the tokens trained on, the rest means over these."""
        dist.all_reduce(self._sums)
        loss, num_tokens, *weighted = self._sums.tolist()
        means = {name: value / max(1.0, num_tokens) for name, value in zip(TOKEN_METRICS, weighted, strict=True)}
        return {"loss": loss, "num_tokens": num_tokens, **means}

    def non_finite_groups(self) -> list[str]:
        """Name this rank's groups that have a token whose logprobs, or their ratio, are not finite."""
        guilty: dict[str, None] = {}
        for group_ids, lengths, is_finite in self._seen:
            for group_id, tokens in zip(group_ids, is_finite.split(lengths), strict=True):
                if not tokens.all():
                    guilty[group_id] = None
        return list(guilty)


def report_metrics(
    totals: Mapping[str, float], counts: StepCounts, *, grad_norm: float, learning_rate: float
) -> dict[str, float]:
    """Give the step's metrics; learner/README.md defines each."""
    return {
        "policy/loss": totals["loss"],
        "policy/grad_norm": grad_norm,
        "policy/learning_rate": learning_rate,
        **{logged: totals[name] for name, logged in TOKEN_METRICS.items()},
        "learner/num_groups": float(counts.num_groups),
        "learner/num_completion_tokens": float(counts.num_completion_tokens),
        "learner/num_trained_tokens": totals["num_tokens"],
        "learner/num_forward_tokens": float(counts.num_forward_tokens),
        "learner/zero_signal_frac": counts.num_zero_signal_groups / max(1, counts.num_groups),
        "learner/masked_frac": counts.num_masked_sequences / max(1, counts.num_sequences),
        "learner/trained_sequence_frac": counts.num_trained_sequences / max(1, counts.num_sequences),
    }
