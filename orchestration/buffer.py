"""GroupBuffer: scored groups on their way from rollout to learner, with one counted budget.

Position p of the prompt stream belongs to step p // groups_per_step, always. A position may start only when its step
is at most `max_staleness` ahead of the live weights, so staleness is bounded by construction and no group is ever
thrown away for being old.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import DataError
from rewards.base import RewardResult


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCompletion:
    """One completion with what it earned, for those groups whose words are looked at."""

    text: str
    result: RewardResult
    num_tokens: int
    truncated: bool
    """Whether sampling stopped at the limit instead of at the end-of-turn token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """What metrics need of one scored group; computed where the group was scored."""

    family: str
    """Reward function that scored it: matching, chart, grounding, open_ended, math."""
    source: str
    """Dataset that the sample comes from."""
    rewards: tuple[float, ...]
    """Weighted total of each graded completion."""
    task_rewards: tuple[float, ...]
    format_rewards: tuple[float, ...]
    num_prompt_tokens: int
    num_completion_tokens: int
    num_truncated: int
    failures: tuple[str, ...]
    """What failed, for each completion whose reference or grader did; those are masked."""
    reasons: tuple[str, ...]
    """How each completion was read, a word of rewards.base.Reason."""
    weight_version: int
    """Oldest weight version among the completions."""
    rollout_s: float
    score_s: float
    """Seconds in the reward actor, decoding included."""
    image_input_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image as the model saw it."""
    completions: tuple[RecordedCompletion, ...] = ()
    """All of the group, where its words are kept; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTicket:
    """All that the driver holds of a scored group; the payload stays in the object store."""

    position: int
    group_id: str
    payload: Any
    """Object reference to the ScoredGroup."""
    summary: GroupSummary


@dataclass(slots=True)
class _Step:
    tickets: dict[int, GroupTicket] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)


class GroupBuffer:
    """Hands out positions, collects tickets, gives the learner whole steps.

    Consumes: tickets and drops from the rollout loop, `advance` from the training loop.
    Produces: positions to fill, and one list of tickets a step.
    Waits for: a position within the staleness budget; the last missing group of a step.
    Woken by: `advance`, `add`, `drop`.
    """

    def __init__(
        self,
        *,
        groups_per_step: int,
        max_staleness: int,
        first_step: int,
        num_steps: int,
        max_drop_frac: float,
        max_failed_frac: float,
    ) -> None:
        """Start at the first position of `first_step`; end after `num_steps` steps."""
        self._groups_per_step = groups_per_step
        self._max_staleness = max_staleness
        self._max_drop_frac = max_drop_frac
        self._max_failed_frac = max_failed_frac
        self._next_position = first_step * groups_per_step
        self._end_position = num_steps * groups_per_step
        self._live_step = first_step
        self._steps: dict[int, _Step] = {}
        self._changed = asyncio.Condition()
        self.num_dropped = 0

    async def wait_for_slot(self) -> int | None:
        """Give the next position as soon as the budget allows; None after the last one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._next_position >= self._end_position or self._has_slot())
            if self._next_position >= self._end_position:
                return None
            position = self._next_position
            self._next_position += 1
            return position

    async def add(self, ticket: GroupTicket) -> None:
        """Put a scored group in its step."""
        async with self._changed:
            self._step_of(ticket.position).tickets[ticket.position] = ticket
            self._changed.notify_all()

    async def drop(self, position: int, reason: str) -> None:
        """Give up a position for a counted reason."""
        async with self._changed:
            self._step_of(position).dropped[position] = reason
            self.num_dropped += 1
            self._changed.notify_all()

    async def take_step(self, step: int) -> list[GroupTicket]:
        """Wait until every position of `step` is filled or dropped and give its tickets in order of position.

        Raises:
            DataError: more than `max_drop_frac` of the step's groups were dropped, or more than `max_failed_frac` of
                its completions have no reward because their reference or grader failed.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_whole(step))
        taken = self._steps.pop(step)
        if len(taken.dropped) > self._max_drop_frac * self._groups_per_step:
            raise DataError(
                f"step {step}: {len(taken.dropped)} of {self._groups_per_step} groups were dropped, more than "
                f"training.max_drop_frac={self._max_drop_frac}; the last reason: {list(taken.dropped.values())[-1]}"
            )
        tickets = [taken.tickets[position] for position in sorted(taken.tickets)]
        self._check_failures(step, [ticket.summary for ticket in tickets])
        return tickets

    def _check_failures(self, step: int, summaries: Sequence[GroupSummary]) -> None:
        causes = Counter(cause for summary in summaries for cause in summary.failures)
        num_completions = sum(len(summary.reasons) for summary in summaries)
        if causes.total() > self._max_failed_frac * num_completions:
            most = "; ".join(f"{count} x {cause}" for cause, count in causes.most_common(3))
            raise DataError(
                f"step {step}: {causes.total()} of {num_completions} completions have no reward, more than "
                f"training.max_failed_frac={self._max_failed_frac}: {most}"
            )

    async def advance(self, step: int) -> None:
        """Say that the weights of `step` optimiser steps are live; gives slots back."""
        async with self._changed:
            self._live_step = step
            self._changed.notify_all()

    def _has_slot(self) -> bool:
        return self._next_position < (self._live_step + 1 + self._max_staleness) * self._groups_per_step

    def _step_of(self, position: int) -> _Step:
        return self._steps.setdefault(position // self._groups_per_step, _Step())

    def _is_whole(self, step: int) -> bool:
        found = self._steps.get(step)
        return found is not None and len(found.tickets) + len(found.dropped) == self._groups_per_step
