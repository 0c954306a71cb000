"""The plan of a step: facts that all ranks share, advantages, and the sequences of each update.

Facts are small (rewards and lengths, no tokens), so every rank holds those of all groups and works out the same
advantages and denominators; tokens and images remain on their rank.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from learner.algorithms.advantages import compute_advantages, less_kl, overlong_penalty, part_advantages
from learner.algorithms.losses import token_weight
from learner.algorithms.own import OwnAdvantage, RewardGroup
from learner.algorithms.registry import Algorithm
from learner.batching import TrainSequence
from learner.config import AlgorithmConfig
from learner.errors import LearnerError
from learner.records import ScoredGroup

SequenceKey = tuple[str, int]
"""Group id and index of a sequence in its group."""
Advantages = Mapping[str, Sequence[NDArray[np.float32]]]
"""Group id -> for each of its sequences [T]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """Rewards and lengths of a group, which every rank needs. G sequences."""

    group_id: str
    task: str
    rewards: tuple[float, ...]
    """[G] with the penalty for length."""
    lengths: tuple[int, ...]
    """[G] completion tokens."""
    masked: tuple[bool, ...]
    """[G] out of statistics and loss: the grader failed, or the length limit was hit and the algorithm says so."""
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Name of a part of the reward -> [G] unweighted values, 0 where a failed grader left none; empty without parts."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Name of a part -> its weight."""


def describe(group: ScoredGroup, config: AlgorithmConfig) -> GroupFacts:
    """Return the facts of a group."""
    lengths = tuple(sequence.num_tokens for sequence in group.sequences)
    limit = config.task_max_completion_tokens.get(group.task, config.max_completion_tokens)
    penalties = overlong_penalty(
        torch.tensor(lengths),
        max_completion_tokens=limit,
        buffer_tokens=round(config.overlong_buffer_frac * limit),
        penalty=config.overlong_penalty,
    ).tolist()
    return GroupFacts(
        group_id=group.group_id,
        task=group.task,
        rewards=tuple(s.reward + penalty for s, penalty in zip(group.sequences, penalties, strict=True)),
        lengths=lengths,
        masked=tuple(s.masked or (config.mask_truncated and s.truncated) for s in group.sequences),
        parts={
            name: tuple(s.parts[place] if s.parts else 0.0 for s in group.sequences)
            for place, (name, _) in enumerate(group.parts)
        },
        weights=dict(group.parts),
    )


def join_facts(shares: Sequence[Sequence[GroupFacts]]) -> list[GroupFacts]:
    """Put the facts of all ranks into one order.

    Raises:
        LearnerError: two groups of the step have one id.
    """
    facts = sorted((fact for share in shares for fact in share), key=lambda fact: fact.group_id)
    for fact, following in itertools.pairwise(facts):
        if fact.group_id == following.group_id:
            raise LearnerError(f"two groups of this step have the id {fact.group_id}; give every group its own")
    return facts


def step_advantages(
    facts: Sequence[GroupFacts],
    *,
    algorithm: Algorithm,
    config: AlgorithmConfig,
    token_kl: Mapping[SequenceKey, NDArray[np.float32]] | None,
) -> Advantages:
    """Return the advantages of all sequences of the step, the same on every rank.

    Args:
        facts: of all groups.
        algorithm: the paper's choices.
        config: the user's.
        token_kl: [T] of every unmasked sequence, where KL is taken from the reward; None otherwise.

    Raises:
        LearnerError: parts are normalised and a group has none; or the user's advantage function raises, or returns
            something else than an advantage for each completion.
    """
    kl = None if token_kl is None else _by_place(facts, token_kl)
    kl_coefs = [config.kl_coef_of(fact.task) for fact in facts]
    if algorithm.advantage is not None:
        found = _own_advantages(facts, algorithm.advantage, token_kl=kl, kl_coefs=kl_coefs)
    elif config.normalise == "parts":
        if without := [fact.group_id for fact in facts if not fact.parts]:
            raise LearnerError(
                f"algorithm.normalise is parts, but group {without[0]} ({len(without)} of {len(facts)}) has no parts "
                "of its reward; set algorithm.normalise=total"
            )
        found = part_advantages(
            [fact.parts for fact in facts],
            [fact.weights for fact in facts],
            masked=[fact.masked for fact in facts],
            tasks=[fact.task for fact in facts],
            lengths=[fact.lengths for fact in facts],
            reward_kl=algorithm.reward_kl,
            baseline=algorithm.baseline,
            scale=algorithm.scale,
            std_floor=config.std_floor,
            range_epsilon=config.range_epsilon,
        )
    else:
        found = compute_advantages(
            [fact.rewards for fact in facts],
            masked=[fact.masked for fact in facts],
            tasks=[fact.task for fact in facts],
            lengths=[fact.lengths for fact in facts],
            token_kl=kl,
            kl_coef=kl_coefs,
            reward_kl=algorithm.reward_kl,
            baseline=algorithm.baseline,
            scale=algorithm.scale,
            std_floor=config.std_floor,
            range_epsilon=config.range_epsilon,
        )
    return {
        fact.group_id: [values.numpy().astype(np.float32) for values in row]
        for fact, row in zip(facts, found, strict=True)
    }


def _own_advantages(
    facts: Sequence[GroupFacts],
    function: OwnAdvantage,
    *,
    token_kl: Mapping[tuple[int, int], torch.Tensor] | None,
    kl_coefs: Sequence[float],
) -> list[list[torch.Tensor]]:
    """Return what the user's function makes of the unmasked completions, and 0 for masked ones; [N] lists of G [T]."""
    advantages = [[torch.zeros(length, dtype=torch.float64) for length in fact.lengths] for fact in facts]
    kept = [[g for g, is_out in enumerate(fact.masked) if not is_out] for fact in facts]
    rows = [n for n, own in enumerate(kept) if own]
    groups = []
    for n in rows:
        fact, own = facts[n], kept[n]
        rewards = [
            fact.rewards[g] if token_kl is None else less_kl(fact.rewards[g], token_kl[n, g], kl_coef=kl_coefs[n])
            for g in own
        ]
        groups.append(
            RewardGroup(
                group_id=fact.group_id,
                task=fact.task,
                rewards=torch.tensor(rewards, dtype=torch.float64),
                lengths=torch.tensor([fact.lengths[g] for g in own]),
                parts={
                    name: torch.tensor([values[g] for g in own], dtype=torch.float64)
                    for name, values in fact.parts.items()
                },
                weights=fact.weights,
            )
        )
    for n, values in zip(rows, function(groups), strict=True):
        for g, value in zip(kept[n], values, strict=True):
            advantages[n][g] = value.repeat(facts[n].lengths[g])
    return advantages


def _by_place(
    facts: Sequence[GroupFacts], token_kl: Mapping[SequenceKey, NDArray[np.float32]]
) -> dict[tuple[int, int], torch.Tensor]:
    row_of = {fact.group_id: row for row, fact in enumerate(facts)}
    return {(row_of[group_id], index): torch.from_numpy(kl) for (group_id, index), kl in token_kl.items()}


def trained_indices(fact: GroupFacts, advantages: Sequence[NDArray[np.float32]], config: AlgorithmConfig) -> list[int]:
    """Return the indices of a group's sequences that enter the forward pass.

    Leaving out a zero advantage changes no gradient: its loss is a constant. With KL or entropy in the loss it is not,
    and nobody knows what an objective of the user's makes of it.
    """
    has_kl = config.kl_coef_of(fact.task) > 0 and config.kl_in == "loss"
    keeps_all = config.entropy_coef > 0 or has_kl or config.objective is not None
    return [i for i, own in enumerate(advantages) if not fact.masked[i] and (keeps_all or own.any())]


def count_step(facts: Sequence[GroupFacts], advantages: Advantages, config: AlgorithmConfig) -> dict[str, float]:
    """Return the metrics that count what is in the step and what of it is trained on, over all ranks."""
    num_sequences = sum(len(fact.rewards) for fact in facts)
    num_trained = sum(len(trained_indices(fact, advantages[fact.group_id], config)) for fact in facts)
    num_without_signal = sum(not any(own.any() for own in advantages[fact.group_id]) for fact in facts)
    return {
        "learner/num_groups": float(len(facts)),
        "learner/num_completion_tokens": float(sum(_num_unmasked_tokens(fact) for fact in facts)),
        "learner/zero_signal_frac": num_without_signal / max(1, len(facts)),
        "learner/masked_frac": sum(sum(fact.masked) for fact in facts) / max(1, num_sequences),
        "learner/trained_sequence_frac": num_trained / max(1, num_sequences),
    }


def minibatch_sequences(
    facts: Sequence[GroupFacts],
    advantages: Advantages,
    *,
    algorithm: Algorithm,
    config: AlgorithmConfig,
    old_logprobs: Mapping[SequenceKey, NDArray[np.float32]],
    ref_logprobs: Mapping[SequenceKey, NDArray[np.float32]],
) -> dict[str, list[TrainSequence]]:
    """Return the sequences of one update by group, with each token's weight in its loss.

    Denominators count all unmasked sequences of these groups, also those that are left out and those of other ranks:
    neither the cut into micro-batches, nor the number of ranks, nor the leaving out changes the gradient.

    Args:
        facts: of all groups of this update, on all ranks.
        advantages: of the step.
        algorithm: the paper's choices.
        config: the user's.
        old_logprobs: of the sequences for which they were computed.
        ref_logprobs: likewise.
    """
    num_tokens = max(1, sum(_num_unmasked_tokens(fact) for fact in facts))
    num_sequences = max(1, sum(not masked for fact in facts for masked in fact.masked))
    return {
        fact.group_id: [
            TrainSequence(
                index=index,
                advantages=advantages[fact.group_id][index],
                token_weight=config.weight_of(fact.task)
                * token_weight(
                    algorithm.aggregation,
                    fact.lengths[index],
                    num_tokens=num_tokens,
                    num_sequences=num_sequences,
                    max_completion_tokens=config.max_completion_tokens,
                ),
                old_logprobs=old_logprobs.get((fact.group_id, index)),
                ref_logprobs=ref_logprobs.get((fact.group_id, index)),
                kl_coef=config.kl_coef_of(fact.task) if config.tasks else None,
            )
            for index in trained_indices(fact, advantages[fact.group_id], config)
        ]
        for fact in facts
    }


def _num_unmasked_tokens(fact: GroupFacts) -> int:
    return sum(length for length, masked in zip(fact.lengths, fact.masked, strict=True) if not masked)
