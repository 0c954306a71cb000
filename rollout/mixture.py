"""Buckets: the rows of a dataset by task or source and by stratum, and how many prompts of a step each one gives.

Axes: B buckets.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.config import StreamConfig
from rollout.dataset import SampleTable
from rollout.errors import RolloutError

UNMEASURED = "unmeasured"
"""Stratum of the rows whose column is empty."""

ROUNDING = 1e-9
"""Credit below this is what sums of fractions leave behind, not a claim to a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """The rows of a dataset that are drawn from, in B disjoint sets, ordered by name.

    Example:
        >>> find_buckets(table, StreamConfig(mixture_by="task", weights={"iou": 1, "chart": 3})).names  # doctest: +SKIP
        ('chart', 'iou')
    """

    names: tuple[str, ...]
    """Task or source, and stratum, as far as the stream tells them apart: `chart | easy`."""
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
        """Give shares [B] that sum to 1: each part's weight, divided among its buckets in proportion to `mix` [B]."""
        totals = np.bincount(self.parts, weights=mix)
        return self.weights * mix / totals[self.parts]


def find_buckets(table: SampleTable, config: StreamConfig) -> Buckets:
    """Sort the rows into buckets; reads three columns at most.

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
    """Give the rows of these tasks alone, without the sets that have none."""
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
    """Give (task or source, stratum) of the columns that were read; empty for one that was not."""
    part = "" if config.mixture_by == "none" else value[0]
    stratum = "" if config.curriculum.kind == "none" else value[-1] or UNMEASURED
    return part, stratum


def check_names(key: str, shares: Mapping[str, float], known: Iterable[str]) -> None:
    """Refuse names that the dataset does not have, and names of the dataset that are left out."""
    listed = sorted(known)
    for name in shares:
        if name not in listed:
            near = difflib.get_close_matches(name, listed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise RolloutError(f"{key} names {name}; {hint}the dataset has {', '.join(listed)}")
    missing = [name for name in listed if name not in shares]
    if missing:
        raise RolloutError(
            f"{key} leaves out {', '.join(missing)}; give every one of {', '.join(listed)} a share (0 takes none of it)"
        )


def apportion(credit: NDArray[np.float64], wish: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Divide the `total` prompts of one step into whole numbers.

    Whole credits are paid first. The prompts left over go, one each, to the buckets whose next whole credit falls due
    soonest, so that no bucket's debt ever reaches one prompt while the shares stand still. Giving them to the largest
    remainder instead would let debts of several buckets fall due in one step.

    Args:
        credit: [B] prompts that each bucket is owed, this step's wish included; sums to `total`. Below 0 where an
            earlier step rounded up.
        wish: [B] prompts a step that the shares ask for.
        total: Prompts of the step.

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
        # Shares that moved can make more whole credits than the step has prompts: the smallest debt waits.
        latest = int(np.argmin(np.where(counts > 0, rest, np.inf)))
        counts[latest] -= 1
        rest[latest] += 1.0
    return counts
