"""Algorithms by name: a baseline, a scale, an aggregation and an objective each.

Settings of `conf/algorithm` (clip, KL, epochs) complete them; `scale` and `aggregation` may be overridden there.
"""

from dataclasses import dataclass, replace
from typing import Literal

from conf.ranges import nearest
from learner.algorithms.advantages import Baseline, RewardKl, Scale
from learner.algorithms.losses import Aggregation, Objective
from learner.algorithms.own import OwnAdvantage, OwnObjective, load_advantage, load_objective
from learner.config import AlgorithmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """The parts of one algorithm, as its paper has them."""

    baseline: Baseline
    scale: Scale
    aggregation: Aggregation
    objective: Objective | OwnObjective
    reward_kl: RewardKl = "sequence"
    """How KL in the reward acts: summed over the completion, or on each token from there on. With token, statistics of
    advantages are over tokens."""
    advantage: OwnAdvantage | None = None
    """In place of baseline and scale."""


ALGORITHMS = {
    # arXiv:2402.03300, eq. 3: rewards standardised within the group; each completion's mean counts the same.
    "grpo": Algorithm(baseline="group_mean", scale="group", aggregation="sequence", objective="clip"),
    # arXiv:2503.20783: GRPO without its two normalisations, by the group's deviation and by the completion's length.
    "dr_grpo": Algorithm(baseline="group_mean", scale="none", aggregation="constant", objective="clip"),
    # arXiv:2503.14476, eq. 8 to 13: GRPO with a mean over tokens, a wider upper clip and a soft length limit. Groups
    # without signal are left out here, not sampled again.
    "dapo": Algorithm(baseline="group_mean", scale="group", aggregation="token", objective="clip"),
    # arXiv:2507.18071, eq. 5 to 7: ratio and clip of the whole completion.
    "gspo": Algorithm(baseline="group_mean", scale="group", aggregation="sequence", objective="gspo"),
    # MiniMax-M1, arXiv:2506.13585, eq. 4 and 5: REINFORCE with a bounded importance weight; every token has a gradient.
    "cispo": Algorithm(baseline="group_mean", scale="group", aggregation="token", objective="cispo"),
    # arXiv:2402.14740: each completion against the mean of the others in its group. The paper sums over a completion's
    # tokens, which aggregation constant is up to a factor; the clipped ratio is our choice, for data that is not quite
    # on policy.
    "rloo": Algorithm(baseline="leave_one_out", scale="none", aggregation="constant", objective="clip"),
    # arXiv:2501.03262: no groups; token returns with KL, standardised over the tokens of the step. Aggregation token is
    # our choice.
    "reinforce_plus_plus": Algorithm(
        baseline="batch_mean", scale="batch", aggregation="token", objective="clip", reward_kl="token"
    ),
    # The same paper's variant with baseline: rewards minus the group's mean, over the deviation of the whole step.
    # Statistics over completions and aggregation token are our choice.
    "reinforce_plus_plus_baseline": Algorithm(
        baseline="group_mean", scale="batch", aggregation="token", objective="clip"
    ),
}


def get_algorithm(
    name: str,
    *,
    scale: Scale | Literal["algorithm"] = "algorithm",
    aggregation: Aggregation | Literal["algorithm"] = "algorithm",
) -> Algorithm:
    """Look up an algorithm, with the settings that override its paper's.

    Args:
        name: an entry of ALGORITHMS.
        scale: algorithm keeps the entry's.
        aggregation: algorithm keeps the entry's.

    Raises:
        ValueError: no such name; the message lists the known ones and the nearest.

    Example:
        >>> get_algorithm("grpo").aggregation, get_algorithm("grpo", aggregation="token").aggregation
        ('sequence', 'token')
    """
    if name not in ALGORITHMS:
        near = nearest(name, ALGORITHMS, cutoff=0.6)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"algorithm.name is {name!r}; known: {', '.join(sorted(ALGORITHMS))}{hint}")
    found = ALGORITHMS[name]
    return replace(
        found,
        scale=found.scale if scale == "algorithm" else scale,
        aggregation=found.aggregation if aggregation == "algorithm" else aggregation,
    )


def algorithm_of(config: AlgorithmConfig) -> Algorithm:
    """Return the algorithm that the settings name, with the user's own functions loaded where they name some.

    Raises:
        LearnerError: a function cannot be loaded, or fails on three ordinary tokens.
        ValueError: as `get_algorithm`.
    """
    found = get_algorithm(config.name, scale=config.scale, aggregation=config.aggregation)
    if config.advantage is not None:
        found = replace(found, advantage=load_advantage(config.advantage))
    if config.objective is not None:
        found = replace(found, objective=load_objective(config.objective, has_reference=config.uses_reference))
    return found
