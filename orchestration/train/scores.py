"""Scores of held-out samples under one step's weights: sampled and greedy, by reward function and source."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from orchestration.page.figures import data_uri
from orchestration.workers.answers import EvaluatedSample, row_metrics, split_rows
from orchestration.workers.collect import Questioning, collect
from rollout.records import Sample

if TYPE_CHECKING:
    from orchestration.workers.engine_pool import GeneratorPool
    from orchestration.workers.reward_pool import RewardPool

NEEDED = ("sampled/reward", "greedy/reward")
"""What a sample must have to count, so that both means are over the same samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyScore:
    """Held-out score of one reward function, or one source.

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
    """Training steps that the weights have seen."""
    rows: str
    """Digest of the samples; scores of equal digests may be compared."""
    families: dict[str, FamilyScore]
    sources: dict[str, FamilyScore]
    """The same samples by source."""
    examples: list[dict[str, Any]]
    failure: str | None
    """The most frequent reason for which samples have no score; None where all have one."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "step": self.step,
            "rows": self.rows,
            "families": {name: asdict(score) for name, score in self.families.items()},
            "sources": {name: asdict(score) for name, score in self.sources.items()},
            "examples": self.examples,
        }

    def metrics(self) -> dict[str, float]:
        """Return the scores by metric name: of reward functions, their mean, and of sources where there are several.

        Example:
            >>> Evaluation(step=0, rows="", families={}, sources={}, examples=[], failure=None).metrics()
            {}
        """
        found: dict[str, float] = {}
        for name, score in self.families.items():
            found |= {
                f"held_out/{name}/sampled": score.sampled,
                f"held_out/{name}/sampled_task": score.sampled_task,
                f"held_out/{name}/greedy": score.greedy,
                f"held_out/{name}/greedy_task": score.greedy_task,
                f"held_out/{name}/format": score.format,
            }
        if self.families:
            found["held_out/mean/sampled"] = fmean(score.sampled for score in self.families.values())
            found["held_out/mean/greedy"] = fmean(score.greedy for score in self.families.values())
        for name, score in self.sources.items() if len(self.sources) > 1 else ():
            found |= {
                f"held_out/source/{name}/sampled": score.sampled,
                f"held_out/source/{name}/greedy": score.greedy,
            }
        return found


def rows_digest(samples: Sequence[Sample]) -> str:
    """Return a digest of which samples these are, whatever their order."""
    return sha256("\n".join(sorted(sample.sample_id for sample in samples)).encode(errors="replace")).hexdigest()


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
    scored = [(sample, result) for sample, result in pairs if row_metrics(result).keys() >= {*NEEDED}]
    results = [result for _, result in scored]
    families = split_rows(results, "function")
    failures = Counter(result.failure for _, result in pairs if result.failure is not None)
    return Evaluation(
        step=step,
        rows=rows_digest(samples),
        families={name: _score(rows) for name, rows in families.items()},
        sources={name: _score(rows) for name, rows in split_rows(results, "source").items()},
        examples=[e for name in families for e in _examples(scored, name, max(1, num_examples // len(families)))],
        failure=next((reason for reason, _ in failures.most_common(1)), None),
    )


def _score(results: Sequence[EvaluatedSample]) -> FamilyScore:
    rows = [row_metrics(result) for result in results]
    mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
    return FamilyScore(
        num_samples=len(rows),
        sampled=mean["sampled/reward"],
        sampled_se=_standard_error([row["sampled/reward"] for row in rows]),
        sampled_task=mean["sampled/task_reward"],
        greedy=mean["greedy/reward"],
        greedy_se=_standard_error([row["greedy/reward"] for row in rows]),
        greedy_task=mean["greedy/task_reward"],
        format=mean["sampled/format"],
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
                {
                    "width": image.width,
                    "height": image.height,
                    "input_width": input_width,
                    "input_height": input_height,
                    "data": data_uri(image),
                }
                for image, (input_width, input_height) in zip(sample.images, result.image_input_sizes, strict=True)
            ],
            "greedy": result.greedy.text,
            "greedy_reward": result.greedy.reward,
            "sampled": [completion.text for completion in result.sampled],
            "sampled_rewards": [completion.reward or 0.0 for completion in result.sampled],
        }
        for sample, result in chosen
        if result.greedy is not None
    ]
