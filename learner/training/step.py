"""One training step of one rank: facts of all ranks, advantages, logprobs where they are needed, then the updates.

Every rank enters every collective in the same order, also a rank whose share is empty or unusable.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from learner.algorithms.losses import kl_estimate
from learner.algorithms.registry import Algorithm
from learner.backends.base import TrainBackend
from learner.batching import TrainSequence, split_minibatches
from learner.config import LearnerConfig
from learner.errors import LearnerError
from learner.policy.packing import BatchBuilder, MicroBatch
from learner.policy.padding import Encoder
from learner.ranks import derive_seed, exchange
from learner.records import ScoredGroup
from learner.training.step_plan import (
    Advantages,
    GroupFacts,
    SequenceKey,
    count_step,
    describe,
    join_facts,
    minibatch_sequences,
    step_advantages,
    trained_indices,
)
from learner.training.update import GroupImages, PhaseClock, Share, UpdateRunner, report_metrics

Logprobs = dict[SequenceKey, NDArray[np.float32]]


class StepRunner:
    """Takes the optimiser updates of training steps. Consumes: this rank's groups. Waits for: the other ranks."""

    def __init__(
        self,
        config: LearnerConfig,
        algorithm: Algorithm,
        *,
        backend: TrainBackend,
        encoder: Encoder,
        builder: BatchBuilder,
        seed: int,
    ) -> None:
        """Train the policy of `backend`; `seed` is the run's, the same on every rank."""
        self._seed = seed
        self._config = config
        self._algorithm = algorithm
        self._backend = backend
        self._encoder = encoder
        self._updates = UpdateRunner(config, algorithm, backend=backend, builder=builder)

    def run(
        self, groups: Sequence[ScoredGroup], *, step: int, learning_rate: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Train on the groups of all ranks; returns metrics, the same on every rank, and seconds by phase.

        Raises:
            LearnerError: a group of any rank is unusable, or the user's advantage function or objective fails. The
                update was not applied.
            DivergedError: loss or gradient is not finite, or explodes. The update was not applied.
        """
        clock = PhaseClock()
        algorithm = self._config.algorithm
        facts = join_facts(exchange([describe(group, algorithm) for group in groups]))
        is_kl_in_reward = algorithm.uses_reference and algorithm.kl_in == "reward"
        if is_kl_in_reward:
            needed = {fact.group_id: [i for i, m in enumerate(fact.masked) if not m] for fact in facts}
        else:
            advantages = self._advantages(facts, token_kl=None)
            needed = {fact.group_id: trained_indices(fact, advantages[fact.group_id], algorithm) for fact in facts}
        images = self._encode_together(groups, needed)
        clock.stop("plan")
        old, ref = self._logprobs_before(groups, needed, images)
        if is_kl_in_reward:
            token_kl = self._token_kl(groups, old, ref)
            advantages = self._advantages(facts, token_kl=token_kl)
        counts = count_step(facts, advantages, algorithm)
        clock.stop("score")
        updates = []
        for epoch in range(algorithm.num_epochs):
            seed = derive_seed(self._seed, "minibatches", step, epoch)
            for part in split_minibatches([f.group_id for f in facts], algorithm.num_minibatches, seed=seed):
                sequences = minibatch_sequences(
                    [fact for fact in facts if fact.group_id in part],
                    advantages,
                    algorithm=self._algorithm,
                    config=algorithm,
                    old_logprobs=old,
                    ref_logprobs=ref,
                )
                share = [(group, sequences[group.group_id]) for group in groups if group.group_id in sequences]
                updates.append(self._updates.run(share, images, step=step, learning_rate=learning_rate, clock=clock))
        return report_metrics(updates, counts, learning_rate=learning_rate), clock.seconds

    def _advantages(
        self, facts: Sequence[GroupFacts], *, token_kl: Mapping[SequenceKey, NDArray[np.float32]] | None
    ) -> Advantages:
        """Work out the advantages of the step; what a function of the user's returns must be the same on every rank.

        Raises:
            LearnerError: it fails on any rank, or returns other numbers there; on all ranks.
        """
        config, own = self._config.algorithm, self._algorithm.advantage
        if own is None:
            return step_advantages(facts, algorithm=self._algorithm, config=config, token_kl=token_kl)
        found: Advantages = {}
        failure: str | None = None
        try:
            found = step_advantages(facts, algorithm=self._algorithm, config=config, token_kl=token_kl)
        except LearnerError as error:
            failure = str(error)
        digest = blake2b(b"".join(values.tobytes() for row in found.values() for values in row)).digest()
        outcomes = exchange((failure, digest))
        if failures := [message for message, _ in outcomes if message is not None]:
            raise LearnerError(failures[0])
        if len({other for _, other in outcomes}) > 1:
            raise LearnerError(
                f"{own.setting} returned other numbers on some learner ranks than on others for the same rewards; let "
                "them follow from its argument alone: no random numbers, clock, rank, or state of earlier calls"
            )
        return found

    def _encode_together(self, groups: Sequence[ScoredGroup], needed: Mapping[str, Sequence[int]]) -> GroupImages:
        """Process the images of this rank's groups that are needed; an error on one rank is raised on all.

        One call of the processor for all groups; a group that is cut into several pieces is processed once.
        """
        used = [group for group in groups if needed[group.group_id]]
        encoded: Sequence[Any] = []
        failure: str | None = None
        try:
            encoded = self._encoder.encode(used)
        except LearnerError as error:
            failure = f"rank {dist.get_rank()}: {error}"
        if failures := [message for message in exchange(failure) if message is not None]:
            raise LearnerError("; ".join(failures))
        return {group.group_id: image for group, image in zip(used, encoded, strict=True)}

    def _logprobs_before(
        self,
        groups: Sequence[ScoredGroup],
        indices: Mapping[str, Sequence[int]],
        images: GroupImages,
    ) -> tuple[Logprobs, Logprobs]:
        algorithm = self._config.algorithm
        # With a single update, the current logprobs are the old ones: no pass is needed.
        needs_old = algorithm.old_logprobs == "recomputed" and algorithm.num_epochs * algorithm.num_minibatches > 1
        if not needs_old and not algorithm.uses_reference:
            return {}, {}
        share = _to_score(groups, indices)
        old: Logprobs = {}
        ref: Logprobs = {}
        for batch, _ in self._updates.micro_batches(share, images):
            if needs_old:
                old |= _by_sequence(batch, self._backend.logprobs(batch))
            if algorithm.uses_reference:
                ref |= _by_sequence(batch, self._backend.reference_logprobs(batch))
        return old, ref

    def _token_kl(
        self, groups: Sequence[ScoredGroup], old: Logprobs, ref: Logprobs
    ) -> dict[SequenceKey, NDArray[np.float32]]:
        """Estimate the KL of every scored token of all ranks, for the reward."""
        behaviour = {
            (group.group_id, i): sequence.behaviour_logprobs
            for group in groups
            for i, sequence in enumerate(group.sequences)
        }
        own = {
            key: kl_estimate(
                torch.tensor(old.get(key, behaviour[key])),
                torch.from_numpy(values),
                estimator=self._config.algorithm.kl_estimator,
            ).numpy()
            for key, values in ref.items()
            if key in behaviour
        }
        return {key: values for share in exchange(own) for key, values in share.items()}

    def raw_logprobs(self, group: ScoredGroup) -> list[NDArray[np.float32]]:
        """Return the model's own logprobs [T] of each completion of a group; every rank passes the same group.

        Raises:
            LearnerError: an image does not decode or does not match its prompt.
        """
        [image] = self._encoder.encode([group])
        share = _to_score([group], {group.group_id: range(len(group.sequences))})
        found: Logprobs = {}
        for batch, _ in self._updates.micro_batches(share, {group.group_id: image}):
            found |= _by_sequence(batch, self._backend.logprobs(batch, is_raw=True))
        return [found[group.group_id, index] for index in range(len(group.sequences))]


def _to_score(groups: Sequence[ScoredGroup], indices: Mapping[str, Sequence[int]]) -> Share:
    """Sequences whose logprobs are wanted, and nothing else."""
    return [
        (
            group,
            [
                TrainSequence(
                    index=i, advantages=np.zeros(group.sequences[i].num_tokens, dtype=np.float32), token_weight=0.0
                )
                for i in indices[group.group_id]
            ],
        )
        for group in groups
    ]


def _by_sequence(batch: MicroBatch, logprobs: torch.Tensor) -> Logprobs:
    """Split [C] into the batch's sequences."""
    keys = zip(batch.group_ids, batch.sequence_indices, strict=True)
    return dict(zip(keys, (part.numpy() for part in logprobs.cpu().split(batch.lengths)), strict=True))
