"""From what engines and rewards give to an EvaluatedSample."""

from collections.abc import Sequence

from orchestration.workers.answers import Completion, EvaluatedSample, Size
from rewards.base import RewardResult
from rollout.records import Sample


def completion_of(result: RewardResult, *, text: str, num_tokens: int, truncated: bool) -> Completion:
    """Give one completion with its reward.

    Args:
        result: What the rewards said of it.
        text: As decoded, tags included.
        num_tokens: Length in tokens, end-of-turn token included.
        truncated: Whether it was cut at the limit.
    """
    return Completion(
        text=text,
        reward=result.reward,
        task_reward=result.task_reward,
        format_reward=result.format_reward,
        reason=result.reason.value,
        parsed_answer=result.parsed_answer,
        num_tokens=num_tokens,
        truncated=truncated,
    )


def evaluated_sample(
    sample: Sample,
    *,
    function: str,
    coord_mode: str,
    image_input_sizes: Sequence[Size] = (),
    greedy: Completion | None = None,
    sampled: Sequence[Completion] = (),
    failure: str | None = None,
) -> EvaluatedSample:
    """Give the record of one row; a row of which no completion has a reward is a failed one, whatever else is known.

    Args:
        sample: The row.
        function: Reward function that scored it.
        coord_mode: Frame of the model's boxes.
        image_input_sizes: Size of each image as the model saw it; empty where the row never reached it.
        greedy: Completion at temperature 0.
        sampled: Completions at the sampling temperature.
        failure: What broke, if anything did.
    """
    completions = [*([greedy] if greedy else []), *sampled]
    if failure is None and all(completion.reward is None for completion in completions):
        reasons = sorted({completion.reason for completion in completions})
        failure = f"no completion has a reward: {', '.join(reasons) or 'there is none'}"
    return EvaluatedSample(
        sample_id=sample.sample_id,
        source=sample.source,
        source_id=sample.source_id,
        task=sample.task,
        function=function,
        question=sample.question,
        answer=sample.answer,
        options=sample.options,
        answer_type=sample.answer_type,
        metadata=dict(sample.metadata),
        image_sizes=tuple(image.size for image in sample.images),
        image_input_sizes=tuple(image_input_sizes),
        coord_mode=coord_mode,
        greedy=greedy,
        sampled=tuple(sampled),
        failure=failure,
    )
