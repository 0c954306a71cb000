"""Which checkpoints stay: the newest, and the best by score. Pure.

Macro mean of a checkpoint = mean of its scores over the reward functions. Best = highest; of equal ones the newest.
"""

import math
from collections.abc import Mapping
from statistics import fmean

from learner.errors import CheckpointError

MACRO = "macro"
"""Name of the mean over reward functions, beside the functions' own."""


def with_macro(scores: Mapping[str, float]) -> dict[str, float]:
    """Add the macro mean; scores that are not finite count nowhere.

    Example:
        >>> with_macro({"chart": 0.5, "grounding": 1.0})
        {'chart': 0.5, 'grounding': 1.0, 'macro': 0.75}
    """
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    return {**finite, MACRO: fmean(finite.values())} if finite else {}


def best_steps(scores_of: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """Give the step with the highest score by each name, the macro mean included.

    Args:
        scores_of: by step, the scores by reward function; a checkpoint without scores is best at nothing.

    Example:
        >>> best_steps({1: {"chart": 0.5}, 2: {"chart": 0.4}})
        {'chart': 1, 'macro': 1}
    """
    best: dict[str, tuple[float, int]] = {}
    for step, scores in scores_of.items():
        for name, score in with_macro(scores).items():
            best[name] = max(best.get(name, (score, step)), (score, step))
    return {name: step for name, (_, step) in best.items()}


def steps_to_keep(scores_of: Mapping[int, Mapping[str, float]], *, keep_last: int, keep_best: bool) -> set[int]:
    """Give the steps of the checkpoints that stay.

    Args:
        scores_of: by step of every whole checkpoint, its scores by reward function.
        keep_last: newest checkpoints that stay.
        keep_best: whether the best by macro mean and by each reward function stay too.

    Raises:
        CheckpointError: keep_last is below 1.

    Example:
        >>> sorted(steps_to_keep({1: {"chart": 0.9}, 2: {"chart": 0.1}, 3: {}}, keep_last=1, keep_best=True))
        [1, 3]
    """
    if keep_last < 1:
        raise CheckpointError(f"training.keep_last is {keep_last}; keep at least 1, or nothing could be resumed")
    newest = set(sorted(scores_of)[-keep_last:])
    return newest | set(best_steps(scores_of).values()) if keep_best else newest
