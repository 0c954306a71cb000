"""Conversions between packages: a rollout group to reward requests, and with their results to a scored group."""

from collections.abc import Sequence
from dataclasses import replace

from learner.records import ScoredGroup, ScoredSequence
from orchestration.workers.tickets import GroupSummary, RecordedCompletion
from rewards.base import RewardRequest, RewardResult
from rollout.records import RolloutGroup


def to_reward_requests(group: RolloutGroup, responses: Sequence[str], *, coord_mode: str) -> list[RewardRequest]:
    """Make one request per completion; all share the sample's reference answer.

    `responses` are the decoded completions [G] in the order of `group.generations`.
    """
    sample = group.sample
    return [
        RewardRequest(
            task=sample.task,
            question=sample.question,
            response=response,
            answer=sample.answer,
            options=sample.options,
            source=sample.source,
            image_sizes=tuple(image.size for image in sample.images),
            image_input_sizes=group.image_input_sizes,
            coord_mode=coord_mode,
            answer_type=sample.answer_type,
            truncated=generation.finish_reason != "stop",
        )
        for response, generation in zip(responses, group.generations, strict=True)
    ]


def to_scored_group(group: RolloutGroup, results: Sequence[RewardResult]) -> ScoredGroup:
    """Join tokens and rewards of one group; a completion whose grader failed is masked."""
    sample = group.sample
    sequences = tuple(
        ScoredSequence(
            completion_token_ids=generation.token_ids,
            behaviour_logprobs=generation.logprobs,
            reward=0.0 if result.reward is None else result.reward,
            truncated=generation.finish_reason != "stop",
            masked=result.reward is None,
        )
        for generation, result in zip(group.generations, results, strict=True)
    )
    return ScoredGroup(
        group_id=group.group_id,
        task=sample.task,
        prompt_token_ids=group.prompt_token_ids,
        images=tuple(image.data for image in sample.images),
        sequences=sequences,
    )


def summarise(
    group: RolloutGroup, results: Sequence[RewardResult], *, function: str, score_s: float, texts: Sequence[str] = ()
) -> GroupSummary:
    """Summarise a scored group for the driver's metrics.

    `texts` are the decoded completions where they are kept, else empty.
    """
    graded = [result for result in results if result.reward is not None]
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
        num_aborted_tokens=group.num_aborted_tokens,
        image_input_sizes=group.image_input_sizes,
        completions=recorded,
        sample=replace(group.sample, images=()) if texts else None,
    )
