"""Shares of the buckets, step by step: fixed, moving on a straight line, or following rewards.

Axes: B buckets.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rollout.config import CurriculumConfig
from rollout.errors import RolloutError
from rollout.mixture import Buckets, check_names


class Shares(Protocol):
    """What part of a step each bucket is to have."""

    def at(self, step: int) -> NDArray[np.float64]:
        """Give the shares [B] of one step; they sum to 1."""


class StaticShares:
    """Shares that are known before the run: they stand still, or move from one mix of strata to another."""

    def __init__(self, buckets: Buckets, config: CurriculumConfig) -> None:
        """Check the mixes against the strata of the dataset.

        Raises:
            RolloutError: a mix names a stratum that does not exist, leaves one out, or gives nothing to any stratum of
                some task or source.
        """
        self._num_steps = config.num_steps
        self._buckets = buckets
        if config.kind == "none":
            self._start = self._end = np.ones(len(buckets.names))
        else:
            self._start = self._mix("data.stream.curriculum.start", config.start)
            self._end = self._mix("data.stream.curriculum.end", config.end)

    def at(self, step: int) -> NDArray[np.float64]:
        """Give the shares [B] of one step; they sum to 1."""
        done = min(step / self._num_steps, 1.0)
        return self._buckets.divide((1.0 - done) * self._start + done * self._end)

    def _mix(self, key: str, shares: Mapping[str, float]) -> NDArray[np.float64]:
        buckets = self._buckets
        check_names(key, shares, buckets.known_strata)
        mix = np.array([shares[stratum] for stratum in buckets.strata]) / sum(shares.values())
        empty = np.flatnonzero(np.bincount(buckets.parts, weights=mix) == 0.0)
        if len(empty):
            names = [name for name, part in zip(buckets.names, buckets.parts, strict=True) if part == empty[0]]
            raise RolloutError(f"{key} takes none of {', '.join(names)}: give one of these strata a positive share")
        return mix


class AdaptiveShares:
    """Shares that favour the strata whose recent mean reward is nearest to the target.

    Strata compete within their task or source, whose own share stays. The shares of step s use the outcomes of steps
    up to s - 1 - max_staleness, all that is sure to be known when the rollout of step s may begin: timing cannot enter.
    """

    def __init__(self, buckets: Buckets, config: CurriculumConfig, *, max_staleness: int) -> None:
        """Begin with every estimate at the target, so that nothing is passed over before it was tried.

        Raises:
            RolloutError: the floors of one task's strata exceed its share.
        """
        most = int(np.bincount(buckets.parts).max())
        if most * config.floor_share > 1.0:
            raise RolloutError(
                f"data.stream.curriculum.floor_share is {config.floor_share}; with {most} strata use at most {1 / most}"
            )
        self.num_observed = 0
        self._buckets = buckets
        self._config = config
        self._max_staleness = max_staleness
        self._estimates = np.full(len(buckets.names), config.target)
        self._fixed = dict.fromkeys(range(max_staleness + 1), self._current())

    def at(self, step: int) -> NDArray[np.float64]:
        """Give the shares [B] of one step; they sum to 1.

        Raises:
            RolloutError: the outcomes that they follow are not in yet, or the step is long past.
        """
        if step not in self._fixed:
            raise RolloutError(
                f"the prompts of step {step} are not known: an adaptive stream with {self.num_observed} observed steps "
                f"and max_staleness {self._max_staleness} holds steps {min(self._fixed)} to {max(self._fixed)}"
            )
        return self._fixed[step]

    def observe(self, step: int, outcomes: Sequence[tuple[int, float]]) -> None:
        """Take in the (bucket, mean reward) pairs of one trained step; fixes the shares of the next open step."""
        if step != self.num_observed:
            raise RolloutError(f"observe(step={step}) after {self.num_observed} observed steps; give them in order")
        for bucket in sorted({bucket for bucket, _ in outcomes}):
            rewards = [reward for other, reward in outcomes if other == bucket]
            kept = self._config.decay ** len(rewards)
            # fsum rounds once, so the order of the outcomes cannot enter.
            mean = math.fsum(rewards) / len(rewards)
            self._estimates[bucket] = kept * self._estimates[bucket] + (1.0 - kept) * mean
        self.num_observed += 1
        self._fixed[step + 1 + self._max_staleness] = self._current()

    def forget_before(self, step: int) -> None:
        """Let go of the shares of earlier steps."""
        self._fixed = {fixed: shares for fixed, shares in self._fixed.items() if fixed >= step}

    def state_dict(self) -> dict[str, Any]:
        """Give estimates and fixed shares as plain lists."""
        return {
            "num_observed": self.num_observed,
            "estimates": self._estimates.tolist(),
            "shares": {str(step): shares.tolist() for step, shares in self._fixed.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.num_observed = state["num_observed"]
        self._estimates = np.array(state["estimates"])
        self._fixed = {int(step): np.array(shares) for step, shares in state["shares"].items()}

    def _current(self) -> NDArray[np.float64]:
        parts, floor = self._buckets.parts, self._config.floor_share
        closeness = -np.abs(self._estimates - self._config.target) / self._config.temperature
        nearest = np.full(parts.max() + 1, -np.inf)
        np.maximum.at(nearest, parts, closeness)
        favour = np.exp(closeness - nearest[parts])
        favour /= np.bincount(parts, weights=favour)[parts]
        return self._buckets.divide(floor + (1.0 - np.bincount(parts)[parts] * floor) * favour)
