"""Held-out samples through the same engines and rewards as training: sampled and greedy, by reward function."""

import asyncio
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from orchestration.buffer import GroupSummary
from orchestration.errors import ScoringError
from orchestration.seeds import derive_seed
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.records import ImageBytes, Sample, SamplingSpec

if TYPE_CHECKING:
    from orchestration.pools.generators import GeneratorPool
    from orchestration.pools.rewards import RewardPool

# Prompts in flight; enough to fill an engine, few enough to keep host memory flat.
MAX_IN_FLIGHT = 128


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


def choose_samples(table: SampleTable, family_of: Mapping[tuple[str, str], str], per_family: int) -> list[Sample]:
    """The first `per_family` rows of every reward function; the same ones at every evaluation.

    Args:
        table: held-out samples.
        family_of: reward function of each (task, source).
        per_family: how many of each function.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(table.tasks_and_sources()):
        rows[family_of[pair]].append(index)
    return [table[index] for indices in rows.values() for index in islice(indices, per_family)]


async def evaluate(
    samples: Sequence[Sample],
    *,
    generators: "GeneratorPool",
    rewards: "RewardPool",
    sampled: SamplingSpec,
    seed: int,
    step: int,
    num_examples: int = 12,
) -> Evaluation:
    """Score every sample with `sampled.group_size` sampled completions and one greedy one.

    Seeds depend on the sample alone, so two evaluations of one run draw the same random numbers.
    """
    greedy = SamplingSpec(group_size=1, temperature=0.0, max_completion_tokens=sampled.max_completion_tokens)
    gate = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def score(sample: Sample, spec: SamplingSpec, name: str) -> GroupSummary | None:
        async with gate:
            try:
                group = await generators.generate_group(f"evaluation-{name}-{sample.sample_id}", sample, spec)
                return (await rewards.score(group, keep_texts=True))[1]
            except (RolloutError, ScoringError):
                return None  # reported when training meets its like; here the sample has no score

    def seeded(sample: Sample) -> SamplingSpec:
        return SamplingSpec(
            group_size=sampled.group_size,
            temperature=sampled.temperature,
            max_completion_tokens=sampled.max_completion_tokens,
            seed=derive_seed(seed, "evaluation", sample.sample_id),
        )

    drawn = await asyncio.gather(*(score(sample, seeded(sample), "sampled") for sample in samples))
    best = await asyncio.gather(*(score(sample, greedy, "greedy") for sample in samples))
    pairs = [(s, d, g) for s, d, g in zip(samples, drawn, best, strict=True) if d and g and d.rewards and g.rewards]
    families = sorted({d.family for _, d, _ in pairs})
    return Evaluation(
        step=step,
        families={name: _family_score([(d, g) for _, d, g in pairs if d.family == name]) for name in families},
        examples=[e for name in families for e in _examples(pairs, name, max(1, num_examples // len(families)))],
    )


def _family_score(pairs: Sequence[tuple[GroupSummary, GroupSummary]]) -> FamilyScore:
    sampled = [fmean(d.rewards) for d, _ in pairs]
    greedy = [fmean(g.rewards) for _, g in pairs]
    return FamilyScore(
        num_samples=len(pairs),
        sampled=fmean(sampled),
        sampled_se=_standard_error(sampled),
        sampled_task=fmean(r for d, _ in pairs for r in d.task_rewards),
        greedy=fmean(greedy),
        greedy_se=_standard_error(greedy),
        greedy_task=fmean(r for _, g in pairs for r in g.task_rewards),
        format=fmean(r for d, _ in pairs for r in d.format_rewards),
    )


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def _examples(
    pairs: Sequence[tuple[Sample, GroupSummary, GroupSummary]], family: str, count: int
) -> list[dict[str, Any]]:
    chosen = [pair for pair in pairs if pair[1].family == family][:count]
    return [
        {
            "sample_id": sample.sample_id,
            "family": family,
            "task": sample.task,
            "question": sample.question,
            "answer": sample.answer,
            "images": [
                _embedded(image, size) for image, size in zip(sample.images, drawn.image_input_sizes, strict=True)
            ],
            "greedy": greedy.texts[0],
            "greedy_reward": greedy.rewards[0],
            "sampled": list(drawn.texts),
            "sampled_rewards": list(drawn.rewards),
        }
        for sample, drawn, greedy in chosen
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
