"""What the driver holds of a group: a ticket with a summary; the tokens stay in the object store."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rewards.base import RewardResult
from rollout.records import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCompletion:
    """One completion with its reward, for groups whose completions are recorded."""

    text: str
    result: RewardResult
    num_tokens: int
    truncated: bool
    """Whether sampling stopped at the limit instead of at the end-of-turn token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """What metrics need of one scored group; computed where the group was scored."""

    function: str
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
    num_spanning: int
    """Completions that more than one weight version sampled."""
    rollout_s: float
    score_s: float
    """Seconds in the reward actor, decoding included."""
    num_aborted_tokens: int = 0
    """Tokens discarded because new weights arrived and the engine samples completions in flight again."""
    image_input_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image as the model saw it."""
    completions: tuple[RecordedCompletion, ...] = ()
    """All of the group, where they are recorded; else empty."""
    sample: Sample | None = None
    """The prompt without its images, where completions are recorded."""

    def has_signal(self, range_epsilon: float) -> bool:
        """Return whether the graded completions differ in reward; without a difference all advantages are 0."""
        return bool(self.rewards) and max(self.rewards) - min(self.rewards) >= range_epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTicket:
    """All that the driver holds of a scored group; the payload stays in the object store."""

    position: int
    group_id: str
    """Epoch and position; names the group from its row to its gradient."""
    sample_id: str
    payload: Any
    """Object reference to the ScoredGroup."""
    summary: GroupSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGroups:
    """What one step trains on, and what became of every other position that it used up."""

    step: int
    tickets: tuple[GroupTicket, ...]
    """In order of position."""
    replaced: tuple[GroupTicket, ...] = ()
    """Groups without a signal whose places others took."""
    dropped: Mapping[int, str] = field(default_factory=dict)
    """Position -> why it never became a group."""
    num_carried: int = 0
    """Positions that were not there in time and go to a later step."""

    def replace(self, others: Mapping[int, GroupTicket | str]) -> "StepGroups":
        """Return the step with other tickets for some positions, or with the reason why there is none any more."""
        tickets = [others.get(ticket.position, ticket) for ticket in self.tickets]
        return replace(
            self,
            tickets=tuple(ticket for ticket in tickets if isinstance(ticket, GroupTicket)),
            dropped={**self.dropped, **{p: reason for p, reason in others.items() if isinstance(reason, str)}},
        )

    @property
    def probed(self) -> GroupTicket:
        """The group with which engines and learner are compared: another one every step. There must be one."""
        return self.tickets[self.step % len(self.tickets)]

    @property
    def summaries(self) -> list[GroupSummary]:
        """Summaries of the tickets."""
        return [ticket.summary for ticket in self.tickets]
