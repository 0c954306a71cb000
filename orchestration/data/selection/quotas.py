"""Filling quotas: how many rows each source gives to each reward function, and which ones."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

Cell = tuple[str, str]
"""(source, reward function)."""


def divide_quotas(
    available: Mapping[Cell, int], sources: Mapping[str, int], functions: Mapping[str, int]
) -> dict[Cell, int]:
    """Return how many rows each source contributes to each function.

    A source divides its quota among its functions in proportion to their rows, a function its quota among its sources
    in proportion to what these offer. What one of them cannot use is offered again, until no row fits any more.

    Args:
        available: Rows that are worth training on.
        sources: Quotas by source; one that is not named has no limit.
        functions: Quotas by reward function, likewise.

    Returns:
        Rows to take of every cell of `available`, never more than it has.

    Example:
        >>> divide_quotas({("a", "chart"): 30, ("b", "chart"): 90}, {"b": 60}, {"chart": 30})
        {('a', 'chart'): 10, ('b', 'chart'): 20}
    """
    taken = dict.fromkeys(sorted(available), 0)
    while True:
        source_room = _room(sources, 0, taken)
        function_room = _room(functions, 1, taken)
        open_cells = (cell for cell in taken if function_room.get(cell[1], 1) > 0)
        left = {cell: available[cell] - taken[cell] for cell in open_cells}
        offers = _share_by(0, left, source_room)
        gained = _share_by(1, offers, function_room)
        if not any(gained.values()):
            return taken
        taken = {cell: count + gained.get(cell, 0) for cell, count in taken.items()}


def _room(quotas: Mapping[str, int], axis: int, taken: Mapping[Cell, int]) -> dict[str, int]:
    """What is left of every quota."""
    return {name: quota - sum(n for cell, n in taken.items() if cell[axis] == name) for name, quota in quotas.items()}


def _share_by(axis: int, limits: Mapping[Cell, int], room: Mapping[str, int]) -> dict[Cell, int]:
    """Cut the limits down, in proportion, to what there is room for on one axis."""
    shares: dict[Cell, int] = {}
    for name in sorted({cell[axis] for cell in limits}):
        cells = {cell: limit for cell, limit in limits.items() if cell[axis] == name}
        total = sum(cells.values())
        counts = share_out(list(cells.values()), min(room.get(name, total), total))
        shares.update(zip(cells, counts, strict=True))
    return {cell: shares[cell] for cell in limits}


def share_out(limits: list[int], total: int) -> list[int]:
    """Divide `total` in proportion to `limits`, none above its limit; a total above their sum is not used up.

    Example:
        >>> share_out([10, 30, 0], 8)
        [2, 6, 0]

    Source:
        Webster's method: seat k of a claim of size n stands at (k + 1/2) / n, and the first `total` seats are given.
    """
    owners = np.repeat(np.arange(len(limits)), limits)
    seats = np.concatenate([(np.arange(limit) + 0.5) / max(limit, 1) for limit in limits] or [np.empty(0)])
    first = np.lexsort((owners, seats))[:total]
    return [int(count) for count in np.bincount(owners[first], minlength=len(limits))]


@dataclass(slots=True)
class Class:
    """Rows of one kind, or kinds of one kind: a tree whose branches are filled side by side."""

    weight: float = 1.0
    """Branches of one weight are filled evenly, others in proportion."""
    branches: dict[str, Self] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    """Of a leaf; the last one is taken first."""
    taken: int = 0

    def take(self, sources: Sequence[str], room: dict[str, int]) -> int | None:
        """Return one row whose source has room, from the branch with the fewest taken; None where there is none left.

        A branch that has run out leaves its share to the others.
        """
        while self.rows:
            row = self.rows.pop()
            if room[sources[row]] > 0:
                self.taken += 1
                return row
        while self.branches:
            name = min(self.branches, key=self._claim)
            found = self.branches[name].take(sources, room)
            if found is not None:
                self.taken += 1
                return found
            del self.branches[name]
        return None

    def _claim(self, name: str) -> float:
        branch = self.branches[name]
        return (branch.taken + 0.5) / branch.weight


def choose(
    rows: Iterable[int], classes: Mapping[int, tuple[str, str, str]], sources: Sequence[str], room: Mapping[str, int]
) -> set[int]:
    """Choose rows of one reward function so that strata, and answers within a task, are even where possible.

    Strata are filled evenly; the tasks of a stratum in proportion to their rows; the answers of a task evenly.

    Args:
        rows: Rows in the order of preference.
        classes: (stratum, task, answer class) of every row.
        sources: Source of every row, by row.
        room: Rows to take of every source.

    Returns:
        sum(room) rows where the sources have as many.
    """
    tree = _tree(rows, classes)
    left = dict(room)
    wanted = sum(room.values())
    chosen: set[int] = set()
    while len(chosen) < wanted and (row := tree.take(sources, left)) is not None:
        left[sources[row]] -= 1
        chosen.add(row)
    return chosen


def _tree(rows: Iterable[int], classes: Mapping[int, tuple[str, str, str]]) -> Class:
    leaves: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in rows:
        leaves[classes[row]].append(row)
    root = Class()
    # Of branches with equal claims the one whose first row is preferred comes first: no answer is favoured for good.
    for (stratum, task, answer), members in leaves.items():
        of_task = root.branches.setdefault(stratum, Class()).branches.setdefault(task, Class(weight=0.0))
        of_task.weight += len(members)
        of_task.branches[answer] = Class(rows=members[::-1])
    return root
