"""Scores of held-out samples under one step's weights: sampled and greedy, by reward function."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from orchestration.evaluation.collect import Questioning, collect
from orchestration.evaluation.records import Completion, EvaluatedSample
from rollout.records import ImageBytes, Sample

if TYPE_CHECKING:
    from orchestration.pools.generators import GeneratorPool
    from orchestration.pools.rewards import RewardPool


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyScore:
    """Held-out score of one reward function.

    Example:
        >>> FamilyScore(num_samples=2, sampled=0.5, sampled_se=0.1, sampled_task=0.4, greedy=0.6, greedy_se=0.1,
        ...             greedy_task=0.5, format=1.0).sampled
        0.5
    """

    num_samples: int
    sampled: float
    """Mean weighted reward of completions sampled as in training."""
    sampled_se: float
    """Standard error over samples."""
    sampled_task: float
    """The same without the format part."""
    greedy: float
    greedy_se: float
    greedy_task: float
    format: float
    """Mean format reward of the sampled completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores by reward function, and a few completions to look at."""

    step: int
    families: dict[str, FamilyScore]
    examples: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "step": self.step,
            "families": {name: asdict(score) for name, score in self.families.items()},
            "examples": self.examples,
        }


async def evaluate(
    samples: Sequence[Sample],
    *,
    generators: "GeneratorPool",
    rewards: "RewardPool",
    questioning: Questioning,
    function_of: Mapping[tuple[str, str], str],
    step: int,
    num_examples: int = 12,
) -> Evaluation:
    """Score every sample with its sampled completions and its greedy one; both must be asked for."""
    found: dict[str, EvaluatedSample] = {}
    await collect(
        samples,
        generators=generators,
        rewards=rewards,
        questioning=questioning,
        function_of=lambda task, source: function_of[task, source],
        finished=lambda result: found.update({result.sample_id: result}),
    )
    pairs = [(sample, found[sample.sample_id]) for sample in samples]
    # What could not be scored is reported when training meets its like; here the sample has no score.
    scored = [(sample, result) for sample, result in pairs if _graded(result.sampled) and _graded([result.greedy])]
    families = sorted({result.function for _, result in scored})
    return Evaluation(
        step=step,
        families={name: _family_score([r for _, r in scored if r.function == name]) for name in families},
        examples=[e for name in families for e in _examples(scored, name, max(1, num_examples // len(families)))],
    )


def _graded(completions: Sequence[Completion | None]) -> list[Completion]:
    return [c for c in completions if c is not None and c.reward is not None]


def _family_score(results: Sequence[EvaluatedSample]) -> FamilyScore:
    drawn = [_graded(result.sampled) for result in results]
    best = [_graded([result.greedy])[0] for result in results]
    sampled = [fmean(c.reward or 0.0 for c in completions) for completions in drawn]
    greedy = [c.reward or 0.0 for c in best]
    return FamilyScore(
        num_samples=len(results),
        sampled=fmean(sampled),
        sampled_se=_standard_error(sampled),
        sampled_task=fmean(c.task_reward or 0.0 for completions in drawn for c in completions),
        greedy=fmean(greedy),
        greedy_se=_standard_error(greedy),
        greedy_task=fmean(c.task_reward or 0.0 for c in best),
        format=fmean(c.format_reward for completions in drawn for c in completions),
    )


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def _examples(scored: Sequence[tuple[Sample, EvaluatedSample]], family: str, count: int) -> list[dict[str, Any]]:
    chosen = [(sample, result) for sample, result in scored if result.function == family][:count]
    return [
        {
            "sample_id": sample.sample_id,
            "family": family,
            "task": sample.task,
            "question": sample.question,
            "answer": sample.answer,
            "images": [
                _embedded(image, size) for image, size in zip(sample.images, result.image_input_sizes, strict=True)
            ],
            "greedy": result.greedy.text,
            "greedy_reward": result.greedy.reward,
            "sampled": [completion.text for completion in result.sampled],
            "sampled_rewards": [completion.reward or 0.0 for completion in result.sampled],
        }
        for sample, result in chosen
        if result.greedy is not None
    ]


def _embedded(image: ImageBytes, input_size: tuple[int, int]) -> dict[str, Any]:
    kind = "jpeg" if image.data.startswith(b"\xff\xd8") else "png"
    return {
        "width": image.width,
        "height": image.height,
        "input_width": input_size[0],
        "input_height": input_size[1],
        "data": f"data:image/{kind};base64,{b64encode(image.data).decode()}",
    }
