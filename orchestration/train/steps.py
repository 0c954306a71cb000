"""StepLine: which groups make which step while they are still in flight; pure bookkeeping, no clock, no tasks.

Positions are in line in their order. The line is cut into open steps: a step takes positions until it has
`groups_per_step` of them that count. A position that turns out not to count (all completions earned the same, or the
group was dropped) is skipped, at most `max_replaced` times a step, and the next one in line moves up; a position
still in flight counts. So a step's positions are a function of their outcomes alone, never of their timing, and a
position can only move to an earlier step than the one it was begun for.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class _Entry:
    pending: bool = True
    counts: bool = True


@dataclass(slots=True)
class _OpenStep:
    entries: OrderedDict[int, _Entry] = field(default_factory=OrderedDict)
    num_pending: int = 0
    num_idle: int = 0
    """Positions that do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The positions of one step, each list in order."""

    taken: tuple[int, ...]
    replaced: tuple[int, ...]
    """Skipped: others took their places."""
    carried: tuple[int, ...]
    """Left for the next step, because they were still in flight."""


class StepLine:
    """Positions in line, cut into steps.

    Example:
        >>> line = StepLine(groups_per_step=2, max_replaced=1)
        >>> for position in range(3):
        ...     line.begin(position)
        >>> line.settle(0, counts=False)
        >>> line.settle(1, counts=True)
        >>> line.settle(2, counts=True)
        >>> line.pop()
        Cut(taken=(1, 2), replaced=(0,), carried=())
    """

    def __init__(self, *, groups_per_step: int, max_replaced: int) -> None:
        self._groups_per_step = groups_per_step
        self._max_replaced = max_replaced
        self._open: list[_OpenStep] = []
        self._step_of: dict[int, _OpenStep] = {}
        self._num_arrived = 0
        self._blocker: tuple[int, _Entry] | None = None
        """Whose lateness the last `overtake` failed for."""

    @property
    def num_pending(self) -> int:
        """Positions in flight."""
        return len(self._step_of) - self._num_arrived

    def has_room(self, num_open: int) -> bool:
        """Return whether one more position fits into `num_open` open steps."""
        return len(self._open) < num_open or (0 < len(self._open) <= num_open and self._is_short(self._open[-1]))

    def begin(self, position: int) -> None:
        """Put a position at the end of the line, in flight."""
        self._append(position, _Entry())

    def settle(self, position: int, *, counts: bool) -> None:
        """Record that a position has arrived, and whether it counts."""
        step = self._step_of[position]
        entry = step.entries[position]
        assert entry.pending, f"position {position} arrived twice"
        entry.pending = False
        step.num_pending -= 1
        self._num_arrived += 1
        if not counts:
            entry.counts = False
            step.num_idle += 1
            self._move_up(self._open.index(step))

    def is_whole(self) -> bool:
        """Return whether the first step has all of its positions and none is in flight."""
        return bool(self._open) and self._open[0].num_pending == 0 and not self._is_short(self._open[0])

    def pop(self) -> Cut:
        """Take the first step off the line; it must be whole."""
        return self._take(self._open.pop(0), carried=())

    def overtake(self, may_wait: Callable[[int, int], bool]) -> Cut | None:
        """Take a first step of positions that have arrived, whichever step they were begun for.

        Those of the first step that are still in flight go to the front of the next one.

        Args:
            may_wait: (position, steps after the first) -> whether the position may be taken so late.

        Returns:
            None while too few have arrived, or one that has not may not wait.
        """
        if self._num_arrived < self._groups_per_step:
            return None
        if self._blocker is not None:
            position, entry = self._blocker
            if entry.pending and not may_wait(position, 1):
                return None  # it is in flight and may not be dropped: retrying is useless
        entries = [item for step in self._open for item in step.entries.items()]
        first = _OpenStep()
        rest = []
        for position, entry in entries:
            if entry.pending or not self._is_short(first):
                rest.append((position, entry))
            else:
                _add(first, position, entry)
        if self._is_short(first):
            return None
        later = self._cut(rest)
        for offset, step in enumerate(later, start=1):
            for position, entry in step.entries.items():
                if not may_wait(position, offset):
                    self._blocker = position, entry
                    return None
        carried = tuple(position for position, entry in self._open[0].entries.items() if entry.pending)
        self._open = later
        self._step_of = {position: step for step in later for position in step.entries}
        return self._take(first, carried=carried)

    def outstanding(self) -> list[int]:
        """Return all positions in line, in order."""
        return sorted(self._step_of)

    def _take(self, step: _OpenStep, *, carried: tuple[int, ...]) -> Cut:
        taken: list[int] = []
        replaced: list[int] = []
        for position, entry in step.entries.items():
            self._step_of.pop(position, None)
            self._num_arrived -= 1
            if not entry.counts and len(replaced) < self._max_replaced:
                replaced.append(position)
            else:
                taken.append(position)
        return Cut(taken=tuple(taken), replaced=tuple(replaced), carried=carried)

    def _cut(self, entries: Iterable[tuple[int, _Entry]]) -> list[_OpenStep]:
        steps: list[_OpenStep] = []
        for position, entry in entries:
            if not steps or not self._is_short(steps[-1]):
                steps.append(_OpenStep())
            _add(steps[-1], position, entry)
        return steps

    def _append(self, position: int, entry: _Entry) -> None:
        if not self._open or not self._is_short(self._open[-1]):
            self._open.append(_OpenStep())
        _add(self._open[-1], position, entry)
        self._step_of[position] = self._open[-1]

    def _move_up(self, index: int) -> None:
        """Fill a step that has become short from the steps behind it."""
        for step, behind in pairwise(self._open[index:]):
            while self._is_short(step) and behind.entries:
                position, entry = behind.entries.popitem(last=False)
                behind.num_pending -= entry.pending
                behind.num_idle -= not entry.counts
                _add(step, position, entry)
                self._step_of[position] = step
        if not self._open[-1].entries:
            self._open.pop()

    def _is_short(self, step: _OpenStep) -> bool:
        return len(step.entries) < self._groups_per_step + min(step.num_idle, self._max_replaced)


def _add(step: _OpenStep, position: int, entry: _Entry) -> None:
    step.entries[position] = entry
    step.num_pending += entry.pending
    step.num_idle += not entry.counts
