"""GroupBuffer: scored groups between rollout and learner, with one counted budget.

A position may start only when its step is at most `steps_ahead` ahead of the live weights; StepLine knows that step.
Staleness is bounded that way from the start, and no group is discarded for its age. With a deadline for stragglers
a step may take other groups first, as long as every group left behind still meets `max_staleness`.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.own_code import OwnCodeError, load_own, raised_by
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import TrainingConfig
from orchestration.train.steps import Cut, StepLine
from orchestration.workers.tickets import GroupSummary, GroupTicket, StepGroups

MAX_REASONS = 3
"""Reasons that an error names, the most frequent first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Place of a run in its prompt stream, which a checkpoint keeps."""

    step: int
    """Steps that are done."""
    next_position: int
    """First position that was never started."""
    again: tuple[int, ...] = ()
    """Positions before it that no step has used up; a resumed run starts them first."""

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "next_position": self.next_position, "again": list(self.again)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        return cls(step=values["step"], next_position=values["next_position"], again=tuple(values["again"]))


class GroupBuffer:
    """Hands out positions, collects tickets, returns whole steps to the learner.

    Consumes: tickets and drops from the rollout loop, `advance` from the training loop.
    Produces: positions to fill, and the groups of one step after the other.
    Waits for: a position within the budget of `steps_ahead`; the last missing group of a step, or its deadline.
    Woken by: `advance`, `add`, `drop`, `close`.
    """

    def __init__(self, config: TrainingConfig, *, range_epsilon: float, start: Progress) -> None:
        """Continue at `start`.

        A group whose rewards differ by less than `range_epsilon` has no signal.

        Raises:
            ConfigError: training.filter names no function that can be loaded.
        """
        self._keep = load_group_filter(config.filter)
        self._left_out: set[int] = set()
        """Positions that training.filter leaves out."""
        self._config = config
        self._range_epsilon = range_epsilon
        self._next_position = start.next_position
        self._again = deque(sorted(start.again))
        self._next_step = start.step
        self._live_step = start.step
        self._line = StepLine(
            groups_per_step=config.groups_per_step,
            # Rounded first: 1.2 * 10 is less than 12 in some of its forms.
            max_replaced=int(round(config.oversampling * config.groups_per_step, 6)) - config.groups_per_step,
        )
        self._tickets: dict[int, GroupTicket] = {}
        self._dropped: dict[int, str] = {}
        self._begun_at: dict[int, int] = {}
        self._slot_freed = asyncio.Event()
        self._arrived = asyncio.Event()
        self._closed = False

    async def wait_for_slots(self) -> list[int]:
        """Wait for positions that may start, and return them; none when no step needs any more.

        A synchronous run begins in rounds: the replacements of a step begin together, when all others have arrived, so
        that what runs beside what does not depend on timing.
        """
        while not self._is_over and not (positions := self._begin()):
            self._slot_freed.clear()
            await self._slot_freed.wait()
        return [] if self._is_over else positions

    def _begin(self) -> list[int]:
        positions: list[int] = []
        if self._config.max_staleness == 0 and self._line.num_pending:
            return positions
        while self._line.has_room(self._num_open()):
            position = self._again.popleft() if self._again else self._next_position
            self._next_position = max(self._next_position, position + 1)
            self._line.begin(position)
            self._begun_at[position] = self._live_step
            positions.append(position)
        return positions

    def add(self, ticket: GroupTicket) -> None:
        """Put a scored group in its place; one for which training.filter fails is dropped with that reason."""
        try:
            is_kept = self._keep is None or self._keep(ticket.summary)
        except FilterFailedError as error:
            self.drop(ticket.position, str(error))
            return
        if not is_kept:
            self._left_out.add(ticket.position)
        self._tickets[ticket.position] = ticket
        is_wanted = self._config.oversampling == 1.0 or ticket.summary.has_signal(self._range_epsilon)
        self._settle(ticket.position, counts=is_wanted and is_kept)

    def drop(self, position: int, reason: str) -> None:
        """Drop a position for a counted reason."""
        self._dropped[position] = reason
        self._settle(position, counts=False)

    async def take_step(self) -> StepGroups | None:
        """Wait until the next step has its groups; None after the last step, or when the buffer is closed.

        Raises:
            DataError: more than `max_drop_frac` of the positions that the step used up were dropped, or more than
                `max_failed_frac` of its completions have no reward because their reference or grader failed.
        """
        deadline = self._config.straggler_deadline_s
        try:
            async with asyncio.timeout(deadline):
                cut = await self._wait_for(self._pop_whole)
        except TimeoutError:
            cut = await self._wait_for(lambda: self._pop_whole() or self._line.overtake(self._may_wait))
        if cut is None:
            return None
        groups = self._collect(cut)
        self._next_step += 1
        self._slot_freed.set()
        self._check_drops(groups)
        self._check_failures(groups)
        if self._keep is not None and not groups.tickets:
            raise DataError(
                f"step {groups.step}: training.filter={self._config.filter} leaves out all {len(groups.replaced)} "
                "groups; let it keep some, or raise training.oversampling"
            )
        return groups

    def advance(self, step: int) -> None:
        """Free the slots that wait for the weights of `step` to be live."""
        self._live_step = step
        self._slot_freed.set()

    def close(self) -> None:
        """Close the buffer and wake all waiters."""
        self._closed = True
        self._slot_freed.set()
        self._arrived.set()

    def progress(self) -> Progress:
        """Return the progress once the step taken last is done."""
        again = tuple(sorted([*self._again, *self._line.outstanding()]))
        return Progress(step=self._next_step, next_position=self._next_position, again=again)

    @property
    def _is_over(self) -> bool:
        return self._closed or self._next_step >= self._config.num_steps

    def _num_open(self) -> int:
        """Return how many steps may be in progress: those within the budget, as far as the run goes."""
        budget = self._live_step + 1 + self._config.steps_ahead
        return min(budget, self._config.num_steps) - self._next_step

    def _settle(self, position: int, *, counts: bool) -> None:
        self._line.settle(position, counts=counts)
        self._arrived.set()
        if not counts or self._line.num_pending == 0:
            self._slot_freed.set()

    async def _wait_for(self, attempt: Callable[[], Cut | None]) -> Cut | None:
        while not self._is_over and (cut := attempt()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return None if self._is_over else cut

    def _pop_whole(self) -> Cut | None:
        return self._line.pop() if self._line.is_whole() else None

    def _may_wait(self, position: int, num_steps: int) -> bool:
        """Return whether a position may be trained on that many steps after the next one."""
        return self._next_step + num_steps <= self._begun_at[position] + self._config.max_staleness

    def _collect(self, cut: Cut) -> StepGroups:
        for position in (*cut.taken, *cut.replaced):
            del self._begun_at[position]
        used = [*cut.taken, *cut.replaced]
        # What oversampling could not replace is left out all the same: the step is smaller.
        left_out = self._left_out.intersection(used)
        self._left_out -= left_out
        return StepGroups(
            step=self._next_step,
            tickets=self._pick([position for position in cut.taken if position not in left_out]),
            replaced=self._pick([*cut.replaced, *left_out.intersection(cut.taken)]),
            dropped={p: self._dropped.pop(p) for p in sorted(used) if p in self._dropped},
            num_carried=len(cut.carried),
        )

    def _pick(self, positions: Sequence[int]) -> tuple[GroupTicket, ...]:
        return tuple(self._tickets.pop(p) for p in sorted(positions) if p in self._tickets)

    def _check_drops(self, groups: StepGroups) -> None:
        num_used = len(groups.tickets) + len(groups.replaced) + len(groups.dropped)
        num_dropped = len(groups.dropped)
        if num_dropped > self._config.max_drop_frac * num_used:
            reasons = Counter(groups.dropped.values()).most_common()
            most = "; ".join(f"{count} x {reason}" for reason, count in reasons[:MAX_REASONS])
            more = f"; and {len(reasons) - MAX_REASONS} other reasons" if len(reasons) > MAX_REASONS else ""
            raise DataError(
                f"step {groups.step}: {num_dropped} of {num_used} groups were dropped, more than "
                f"training.max_drop_frac={self._config.max_drop_frac}; why: {most}{more}. The same rows come again "
                "when the run is continued: fix what these reasons name, or continue without these rows with "
                f"training.max_drop_frac={_rounded_up(num_dropped / num_used)}"
            )

    def _check_failures(self, groups: StepGroups) -> None:
        summaries = [ticket.summary for ticket in (*groups.tickets, *groups.replaced)]
        # Of a function of the user's the traceback follows the first line.
        causes = Counter(cause.partition("\n")[0] for summary in summaries for cause in summary.failures)
        num_completions = sum(len(summary.reasons) for summary in summaries)
        if causes.total() > self._config.max_failed_frac * num_completions:
            most = "; ".join(f"{count} x {cause}" for cause, count in causes.most_common(3))
            raise DataError(
                f"step {groups.step}: {causes.total()} of {num_completions} completions have no reward, more than "
                f"training.max_failed_frac={self._config.max_failed_frac}: {most}. The same rows come again when the "
                "run is continued: fix what these causes name (a corrected function of your own is taken with "
                "allow_config_change=true), or continue without such completions with "
                f"training.max_failed_frac={_rounded_up(causes.total() / num_completions)}"
            )


def _rounded_up(fraction: float) -> float:
    """Return the least limit of two decimals that allows a fraction."""
    return math.ceil(round(fraction * 100, 6)) / 100


class FilterFailedError(ValueError):
    """The function raised, or returned something else than True or False; the group is dropped with this reason."""


def load_group_filter(path: str | None) -> Callable[[GroupSummary], bool] | None:
    """Return the function that says whether a group is trained on; None where all are.

    Raises:
        ConfigError: There is no such function, or its code raises while it is imported.
    """
    if path is None:
        return None
    try:
        function = load_own("training.filter", path)
    except OwnCodeError as error:
        raise ConfigError(str(error)) from error
    if not callable(function):
        raise ConfigError(f"training.filter={path} is a {type(function).__name__}; name a function keep(group)")

    def keep(group: GroupSummary) -> bool:
        try:
            found = function(group)
        except Exception as error:
            raise FilterFailedError(f"training.filter raised {raised_by(function, error)}") from error
        if type(found).__name__ not in ("bool", "bool_"):
            raise FilterFailedError(f"training.filter returned {str(found)[:80]}; it must return True or False")
        return bool(found)

    return keep
