"""Buckets, the rows of a dataset by task or source and by stratum, and the share of each bucket in each step.

Shares are fixed, move on a straight line, or follow rewards. Axes: B buckets.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.ranges import nearest
from rollout.config import CurriculumConfig, StreamConfig
from rollout.dataset import SampleTable
from rollout.errors import RolloutError

UNMEASURED = "unmeasured"
"""Stratum of the rows whose column is empty."""

ROUNDING = 1e-9
"""Credit below this is rounding of sums of fractions, not a claim to a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """The rows of a dataset that are drawn from, in B disjoint sets, ordered by name.

    Example:
        >>> find_buckets(table, StreamConfig(mixture_by="task", weights={"iou": 1, "chart": 3})).names  # doctest: +SKIP
        ('chart', 'iou')
    """

    names: tuple[str, ...]
    """Task or source, and stratum, as far as the stream distinguishes them: `chart | easy`."""
    strata: tuple[str, ...]
    """Stratum of each bucket; empty without a curriculum."""
    known_strata: tuple[str, ...]
    """Strata of the whole dataset, those of rows that are left out included."""
    parts: NDArray[np.intp]
    """[B] number of the task or source; all 0 without a mixture."""
    weights: NDArray[np.float64]
    """[B] share of the bucket's task or source, which its buckets divide among themselves; the parts sum to 1."""
    rows: tuple[NDArray[np.int32], ...]
    """Row numbers of each bucket, ascending."""

    def divide(self, mix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return shares [B] that sum to 1: each part's weight, divided among its buckets in proportion to `mix` [B]."""
        totals = np.bincount(self.parts, weights=mix)
        return self.weights * mix / totals[self.parts]


def find_buckets(table: SampleTable, config: StreamConfig) -> Buckets:
    """Return the buckets of the rows; reads three columns at most.

    Raises:
        RolloutError: `weights` names what the dataset does not have, or leaves out what it has; or none of its rows is
            of one of the stream's tasks.
    """
    columns: list[str] = [] if config.mixture_by == "none" else [config.mixture_by]
    if config.curriculum.kind != "none":
        columns.append("stratum")
    values = table.columns(*columns) if columns else [()] * len(table)
    found: dict[tuple[str, ...], int] = {}
    codes = np.fromiter((found.setdefault(value, len(found)) for value in values), np.int32, len(values))
    del values
    order = np.argsort(codes, kind="stable").astype(np.int32)
    rows = dict(zip(found, np.split(order, np.cumsum(np.bincount(codes))[:-1]), strict=True))
    known_strata = tuple(sorted({_describe(value, config)[1] for value in found}))
    if config.tasks:
        rows = _of_tasks(rows, table, config.tasks)

    weights = {"": 1.0}
    if config.mixture_by != "none":
        weights = dict(config.weights)
        check_names("data.stream.weights", weights, {value[0] for value in found})
    described = [(*_describe(value, config), members) for value, members in rows.items()]
    kept = sorted((entry for entry in described if weights[entry[0]] > 0.0), key=lambda entry: entry[:2])
    if not kept:
        raise RolloutError("data.stream.weights gives no share to any of data.stream.tasks; give one, or name others")
    parts = sorted({part for part, _, _ in kept})
    total = sum(weights[part] for part in parts)
    return Buckets(
        names=tuple(" | ".join(filter(None, (part, stratum))) for part, stratum, _ in kept),
        strata=tuple(stratum for _, stratum, _ in kept),
        known_strata=known_strata,
        parts=np.array([parts.index(part) for part, _, _ in kept], dtype=np.intp),
        weights=np.array([weights[part] / total for part, _, _ in kept]),
        rows=tuple(members for _, _, members in kept),
    )


def _of_tasks(
    rows: Mapping[tuple[str, ...], NDArray[np.int32]], table: SampleTable, tasks: Sequence[str]
) -> dict[tuple[str, ...], NDArray[np.int32]]:
    """Return the rows of these tasks alone, without the sets that have none."""
    column = np.array([task for (task,) in table.columns("task")])
    is_wanted = np.isin(column, tasks)
    if not is_wanted.any():
        raise RolloutError(
            f"data.stream.tasks is {', '.join(tasks)}, of which the dataset has no row; it has "
            f"{', '.join(np.unique(column))}"
        )
    wanted = {value: members[is_wanted[members]] for value, members in rows.items()}
    return {value: members for value, members in wanted.items() if len(members)}


def _describe(value: tuple[str, ...], config: StreamConfig) -> tuple[str, str]:
    """Return (task or source, stratum) of the columns that were read; empty for one that was not."""
    part = "" if config.mixture_by == "none" else value[0]
    stratum = "" if config.curriculum.kind == "none" else value[-1] or UNMEASURED
    return part, stratum


def check_names(key: str, shares: Mapping[str, float], known: Iterable[str]) -> None:
    """Refuse names that the dataset does not have, and names of the dataset that are left out."""
    listed = sorted(known)
    for name in shares:
        if name not in listed:
            near = nearest(name, listed, cutoff=0.6)
            hint = f"did you mean {near}? " if near else ""
            raise RolloutError(f"{key} names {name}; {hint}the dataset has {', '.join(listed)}")
    missing = [name for name in listed if name not in shares]
    if missing:
        raise RolloutError(
            f"{key} leaves out {', '.join(missing)}; give every one of {', '.join(listed)} a share (0 takes none of it)"
        )


def apportion(credit: NDArray[np.float64], wish: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Divide the `total` prompts of one step into whole numbers.

    Each bucket gets the whole part of its credit. The prompts left over go, one each, to the buckets whose next whole
    credit is due soonest, so that no bucket is ever a whole prompt behind while the shares are constant. With the
    largest remainders instead, several buckets could be due in one step.

    Args:
        credit: [B] prompts that each bucket should get, this step's wish included; sums to `total`. Below 0 where an
            earlier step rounded up.
        wish: [B] prompts a step that the shares ask for.
        total: prompts of the step.

    Returns:
        [B] counts that sum to `total`.

    Source:
        Earliest due date first, as for just-in-time sequences: Steiner and Yeomans, Management Science 39 (1993).
    """
    counts: NDArray[np.int64] = np.maximum(np.floor(credit), 0.0).astype(np.int64)
    rest = credit - counts
    spare = total - int(counts.sum())
    if spare > 0:
        due = np.divide(1.0 - rest, wish, out=np.full_like(wish, np.inf), where=wish > 0.0)
        counts[np.lexsort((-rest, due, rest <= ROUNDING))[:spare]] += 1
    for _ in range(-spare):
        # After shares moved, whole credits can exceed the prompts of the step: the smallest remainder waits.
        latest = int(np.argmin(np.where(counts > 0, rest, np.inf)))
        counts[latest] -= 1
        rest[latest] += 1.0
    return counts


class StaticShares:
    """Shares that are known before the run: constant, or moving from one mix of strata to another."""

    def __init__(self, buckets: Buckets, config: CurriculumConfig) -> None:
        """Check the mixes against the strata of the dataset.

        Raises:
            RolloutError: a mix names a stratum that does not exist, leaves one out, or has no share for any stratum of
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
        """Return the shares [B] of one step; they sum to 1."""
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

    Strata compete within their task or source, whose own share is constant. The shares of step s use the outcomes of
    steps up to s - 1 - max_staleness, which are always known when the rollout of step s may start, so timing has no
    influence.
    """

    def __init__(self, buckets: Buckets, config: CurriculumConfig, *, max_staleness: int) -> None:
        """Start every estimate at the target, so that no stratum is neglected before it was tried.

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
        """Return the shares [B] of one step; they sum to 1.

        Raises:
            RolloutError: the outcomes on which they depend are not known yet, or the step is no longer held.
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
        self._fixed = {fixed: shares for fixed, shares in self._fixed.items() if fixed >= step}

    def state_dict(self) -> dict[str, Any]:
        """Return estimates and fixed shares as plain lists."""
        return {
            "num_observed": self.num_observed,
            "estimates": self._estimates.tolist(),
            "shares": {str(step): shares.tolist() for step, shares in self._fixed.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
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
