"""Groups between the packages: requests to the rewards, the scored group of the learner, and the driver's ticket.

The tokens stay in the object store; the driver holds a ticket with a summary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from learner.records import ScoredGroup, ScoredSequence
from rewards.core.base import RewardRequest, RewardResult
from rewards.core.parts import Route
from rollout.records import RolloutGroup, Sample, readable, readable_turns


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
    """Reward function that scored it, one of ours or of the user's own; those of a sum are joined: chart+mine."""
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
    """How each completion was read, a word of rewards.core.base.Reason."""
    weight_version: int
    """Oldest weight version among the completions."""
    num_spanning: int
    """Completions that more than one weight version sampled."""
    rollout_s: float
    score_s: float
    """Seconds in the reward actor, decoding included."""
    lengths: tuple[int, ...] = ()
    """Completion tokens of each graded completion."""
    parts: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Of a sum: each function with its unweighted value for every graded completion, before gates."""
    normalised_parts: tuple[tuple[float, ...], ...] = ()
    """Where the learner normalises each part of the reward by itself: for each part that has a weight, its values for
    every graded completion, 0 where its gate is closed. Else empty."""
    num_aborted_tokens: int = 0
    """Tokens discarded because new weights arrived and the engine samples completions in flight again."""
    image_input_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image as the model saw it."""
    counts: tuple[tuple[str, float], ...] = ()
    """What judges were asked and what it cost, by name of a metric."""
    completions: tuple[RecordedCompletion, ...] = ()
    """All of the group, where they are recorded; else empty."""
    sample: Sample | None = None
    """The prompt without its images, where completions are recorded."""

    def has_signal(self, range_epsilon: float) -> bool:
        """Return whether the graded completions differ in what becomes an advantage; else all advantages are 0.

        That is the reward, or any of its parts where each is normalised by itself: parts that differ give advantages to
        completions of equal totals, unless they happen to cancel.
        """
        compared = self.normalised_parts or (self.rewards,)
        return any(values and max(values) - min(values) >= range_epsilon for values in compared)


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
    """Groups without a signal whose places others took, and those that training.filter leaves out."""
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


def to_reward_requests(
    group: RolloutGroup, responses: Sequence[str], *, coord_mode: str, with_images: bool = False
) -> list[RewardRequest]:
    """Make one request per completion; all share the sample's reference answer.

    `responses` are the decoded completions [G] in the order of `group.generations`; `with_images` adds the image files,
    for functions that take them.
    """
    sample = group.sample
    images = tuple(image.data for image in sample.images) if with_images else ()
    return [
        RewardRequest(
            task=sample.task,
            question=readable(sample.question),
            history=readable_turns(sample.history),
            response=response,
            answer=sample.answer,
            options=sample.options,
            source=sample.source,
            image_sizes=tuple(image.size for image in sample.images),
            image_input_sizes=group.image_input_sizes,
            coord_mode=coord_mode,
            answer_type=sample.answer_type,
            truncated=generation.finish_reason != "stop",
            metadata=sample.metadata,
            images=images,
        )
        for response, generation in zip(responses, group.generations, strict=True)
    ]


def to_scored_group(
    group: RolloutGroup, results: Sequence[RewardResult], *, keep_parts_of: Route | None = None
) -> ScoredGroup:
    """Join tokens and rewards of one group; a completion whose grader failed is masked.

    `keep_parts_of` is the route of its rows where the learner normalises each part of the reward by itself.
    """
    sample = group.sample
    sequences = tuple(
        ScoredSequence(
            completion_token_ids=generation.token_ids,
            behaviour_logprobs=generation.logprobs,
            reward=0.0 if result.reward is None else result.reward,
            truncated=generation.finish_reason != "stop",
            masked=result.reward is None,
            parts=() if keep_parts_of is None or result.reward is None else keep_parts_of.counted(result.breakdown),
        )
        for generation, result in zip(group.generations, results, strict=True)
    )
    return ScoredGroup(
        group_id=group.group_id,
        task=sample.task,
        prompt_token_ids=group.prompt_token_ids,
        images=tuple(image.data for image in sample.images),
        sequences=sequences,
        parts=() if keep_parts_of is None else keep_parts_of.weights,
    )


def summarise(
    group: RolloutGroup,
    results: Sequence[RewardResult],
    *,
    function: str,
    score_s: float,
    texts: Sequence[str] = (),
    parts: Sequence[str] = (),
    normalises_parts_of: Route | None = None,
) -> GroupSummary:
    """Summarise a scored group for the driver's metrics.

    `texts` are the decoded completions where they are kept, else empty; `parts` the functions of a sum;
    `normalises_parts_of` the route of its rows where each part of the reward becomes an advantage by itself.
    """
    graded = [result for result in results if result.reward is not None]
    weights = () if normalises_parts_of is None else normalises_parts_of.weights
    counted = [] if normalises_parts_of is None else [normalises_parts_of.counted(own.breakdown) for own in graded]
    recorded = tuple(
        RecordedCompletion(
            text=text,
            result=result,
            num_tokens=len(generation.token_ids),
            truncated=generation.finish_reason != "stop",
        )
        for text, result, generation in (zip(texts, results, group.generations, strict=True) if texts else ())
    )
    return GroupSummary(
        function=function,
        source=group.sample.source,
        rewards=tuple(float(result.reward) for result in graded if result.reward is not None),
        task_rewards=tuple(float(result.task_reward or 0.0) for result in graded),
        format_rewards=tuple(float(result.format_reward) for result in graded),
        num_prompt_tokens=len(group.prompt_token_ids),
        num_completion_tokens=sum(len(generation.token_ids) for generation in group.generations),
        num_truncated=sum(generation.finish_reason != "stop" for generation in group.generations),
        failures=tuple(result.failure for result in results if result.failure is not None),
        reasons=tuple(result.reason.value for result in results),
        weight_version=min(generation.weight_version_start for generation in group.generations),
        num_spanning=sum(g.weight_version_start != g.weight_version_end for g in group.generations),
        rollout_s=group.seconds,
        score_s=score_s,
        lengths=tuple(
            len(generation.token_ids)
            for generation, result in zip(group.generations, results, strict=True)
            if result.reward is not None
        ),
        parts=tuple((name, tuple(result.breakdown[name] for result in graded)) for name in parts),
        normalised_parts=tuple(
            tuple(values[place] for values in counted) for place, (_, weight) in enumerate(weights) if weight
        ),
        num_aborted_tokens=group.num_aborted_tokens,
        image_input_sizes=group.image_input_sizes,
        completions=recorded,
        sample=replace(group.sample, images=()) if texts else None,
    )
