"""One optimiser update of one rank: its micro-batches forward and backward, a check, then the optimiser step.

Every rank runs the same number of micro-batches, because sharded weights are gathered by all ranks together.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist

from learner.algorithms.losses import Objective, policy_loss
from learner.algorithms.own import OwnObjective
from learner.algorithms.registry import Algorithm
from learner.backends.base import TrainBackend
from learner.batching import Piece, TrainSequence, make_pieces, plan_micro_batches
from learner.config import LearnerConfig
from learner.errors import DivergedError, ExplodingGradientError, LearnerError, NonFiniteLossError
from learner.families.base import ImageInputs
from learner.policy.packing import BatchBuilder, MicroBatch
from learner.policy.padding import Tensors
from learner.ranks import exchange
from learner.records import ScoredGroup
from learner.training.expert_balance import ExpertBalance

TOKEN_METRICS = (
    *("clip_frac", "ratio_mean", "kl_behaviour", "mismatch", "entropy", "kl_ref"),
    *("correction_mean", "corrected_frac"),
)
"""Means over completion tokens that the loss reports; logged under policy/."""
NUM_NAMED_GROUPS = 3
"""Groups that an error about an exploding gradient names."""


class UpdateSums:
    """Adds up one rank's micro-batches of one update on its device; nothing reaches the host before `reduce`."""

    def __init__(self, device: torch.device) -> None:
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
        # Only this is kept of the micro-batch: its pixels and layout would fill the device over a step.
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


def report_metrics(
    updates: Sequence[Mapping[str, float]], counts: Mapping[str, float], *, learning_rate: float
) -> dict[str, float]:
    """Return the step's metrics from those of its updates; learner/README.md defines each."""
    num_tokens = sum(update["num_tokens"] for update in updates)

    def per_token(name: str) -> float:
        return sum(update[name] * update["num_tokens"] for update in updates) / max(1.0, num_tokens)

    return {
        "policy/loss": sum(update["loss"] for update in updates) / len(updates),
        "policy/grad_norm": sum(update["grad_norm"] for update in updates) / len(updates),
        "policy/learning_rate": learning_rate,
        **{f"policy/{name}": per_token(name) for name in TOKEN_METRICS},
        "learner/num_updates": float(len(updates)),
        "learner/num_groups": counts["learner/num_groups"],
        "learner/num_completion_tokens": counts["learner/num_completion_tokens"],
        "learner/num_trained_tokens": num_tokens,
        "learner/num_forward_tokens": sum(update["num_forward_tokens"] for update in updates),
        **{name: sum(u[name] for u in updates) / len(updates) for name in updates[0] if name.startswith("experts/")},
        **counts,
    }


Share = Sequence[tuple[ScoredGroup, Sequence[TrainSequence]]]
"""This rank's groups with those of their sequences that take part."""
GroupImages = Mapping[str, ImageInputs | Tensors | None]
"""Group id -> its processed images."""


class PhaseClock:
    """Seconds by phase; a phase that comes again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, phase: str) -> None:
        """Add the time since the last call to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


class UpdateRunner:
    """Takes one optimiser step per call. Consumes: this rank's sequences. Waits for: the other ranks."""

    def __init__(
        self, config: LearnerConfig, algorithm: Algorithm, *, backend: TrainBackend, builder: BatchBuilder
    ) -> None:
        self._config = config
        self._algorithm = algorithm
        self._backend = backend
        self._builder = builder
        self._balance = ExpertBalance.of(backend, config.experts)
        self._failure: str | None = None
        """Of the user's objective, on this rank and in this update."""

    def run(
        self, share: Share, images: GroupImages, *, step: int, learning_rate: float, clock: PhaseClock
    ) -> dict[str, float]:
        """Run all micro-batches forward and backward, check loss and gradient, and take the optimiser step.

        Returns:
            The update's sums as `UpdateSums.reduce` has them, grad_norm, num_forward_tokens: the tokens fed to the
            model on all ranks, a shared prompt once; of a model with experts also `ExpertBalance.metrics`.

        Raises:
            DivergedError: loss or gradient is not finite, or explodes; no weight changed. Raised on all ranks.
            LearnerError: the user's objective fails on any rank; likewise.
        """
        sums = UpdateSums(self._backend.device)
        num_tokens = torch.zeros((), dtype=torch.int64)
        if self._balance is not None:
            self._balance.begin(self.micro_batches(share, images))
        for batch, is_last in self.micro_batches(share, images):
            self._run_micro_batch(batch, sums, is_last=is_last)
            num_tokens += 0 if batch.is_dummy else batch.inputs.input_ids.numel()
        grad_norm = self._backend.grad_norm()
        totals = sums.reduce()
        self._check_own_objective()
        self._check(totals, grad_norm, sums, [group.group_id for group, _ in share], step)
        dist.all_reduce(num_tokens)
        if self._balance is not None:
            totals |= self._balance.metrics()
        clock.stop("forward_backward")
        self._backend.step(grad_norm=grad_norm, learning_rate=learning_rate)
        clock.stop("optimizer")
        return {**totals, "grad_norm": float(grad_norm), "num_forward_tokens": float(num_tokens)}

    def micro_batches(self, share: Share, images: GroupImages) -> Iterator[tuple[MicroBatch, bool]]:
        """Yield this rank's micro-batches one by one, and whether each is the last.

        There are as many as the rank with most has; dummies where this one has fewer.
        """
        budget = self._config.micro_batch_tokens
        is_padded = self._builder.is_padded
        sharing = "never" if is_padded else self._config.prefix_sharing
        pieces: list[Piece] = []
        for group, sequences in share:
            pieces += make_pieces(
                group, sequences, micro_batch_tokens=budget, prefix_sharing=sharing, is_padded=is_padded
            )
        planned = plan_micro_batches(pieces, budget, is_padded=is_padded)
        # Without any signal one dummy still runs: the optimiser needs a gradient, zero, to take its step.
        number = max(1, *exchange(len(planned)))
        for index in range(number):
            if index < len(planned):
                batch = self._builder.build(planned[index], [images[p.group.group_id] for p in planned[index]])
            else:
                batch = self._builder.dummy()
            yield batch, index == number - 1

    def _run_micro_batch(self, batch: MicroBatch, sums: UpdateSums, *, is_last: bool) -> None:
        algorithm = self._config.algorithm

        def loss_function(logprobs: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
            old = batch.old_logprobs
            if old is None and algorithm.old_logprobs == "recomputed":
                old = logprobs.detach()
            kl_coef: float | torch.Tensor = 0.0
            if algorithm.kl_in == "loss" and batch.ref_logprobs is not None:
                kl_coef = algorithm.kl_coef if batch.kl_coefs is None else batch.kl_coefs

            def loss_by(objective: Objective | OwnObjective) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
                return policy_loss(
                    objective,
                    logprobs,
                    old_logprobs=old,
                    behaviour_logprobs=batch.behaviour_logprobs,
                    advantages=batch.advantages,
                    token_weights=batch.token_weights,
                    lengths=batch.lengths,
                    entropy=entropy,
                    ref_logprobs=batch.ref_logprobs,
                    kl_coef=kl_coef,
                    config=algorithm,
                )

            objective = self._algorithm.objective
            if batch.is_dummy and isinstance(objective, OwnObjective):
                objective = "clip"  # one token of weight 0 is nothing that the user's code should have to expect
            try:
                loss, metrics = loss_by(objective)
            except LearnerError as error:
                # The other ranks are in the collectives of this update, so this one goes on too; raised after them.
                self._failure = self._failure or str(error)
                loss, metrics = loss_by("clip")
            sums.add(batch, loss=loss, metrics=metrics, logprobs=logprobs)
            return loss if self._balance is None else self._balance.add_to(loss, batch)

        self._backend.forward_backward(batch, loss_function, is_last=is_last)

    def _check_own_objective(self) -> None:
        """Raise on all ranks together where the user's objective has failed on any."""
        if not isinstance(self._algorithm.objective, OwnObjective):
            return
        failures = [message for message in exchange(self._failure) if message is not None]
        self._failure = None
        if failures:
            self._backend.zero_grad()
            raise LearnerError(failures[0])

    def _check(
        self,
        totals: Mapping[str, float],
        grad_norm: torch.Tensor,
        sums: UpdateSums,
        group_ids: Sequence[str],
        step: int,
    ) -> None:
        """Raise on all ranks together; loss and norm are the same everywhere, so the ranks agree."""
        limit = self._config.abort_grad_norm or math.inf
        is_finite = math.isfinite(totals["loss"]) and bool(torch.isfinite(grad_norm))
        if is_finite and float(grad_norm) <= limit:
            return
        self._backend.zero_grad()
        distances: dict[str, float] = {}
        for share, ids in exchange((sums.distances(), list(group_ids))):
            distances |= dict.fromkeys(ids, 0.0) | {name: value for name, value in share.items() if name in ids}
        error: DivergedError
        if not is_finite:
            non_finite = [name for name, value in distances.items() if not math.isfinite(value)]
            own = self._algorithm.objective
            by = f", with {own.setting}" if isinstance(own, OwnObjective) else ""
            quantity = f"loss {totals['loss']}, gradient norm {float(grad_norm)}{by}"
            error = NonFiniteLossError(step, tuple(non_finite or distances), quantity)
        else:
            furthest = sorted(distances, key=lambda name: -distances[name])[:NUM_NAMED_GROUPS]
            quantity = (
                f"gradient norm {float(grad_norm):.3g} is above learner.abort_grad_norm={limit:g}; the policy is "
                "furthest from the behaviour logprobs"
            )
            error = ExplodingGradientError(step, tuple(furthest), quantity)
        raise error
