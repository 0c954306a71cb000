"""Samples through engines and rewards: each comes back with its greedy and its sampled completions, scored."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestration.settings.errors import ScoringError
from orchestration.settings.seeds import derive_seed
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.evaluated import completion_of, evaluated_sample
from orchestration.workers.summaries import summary_of
from orchestration.workers.tickets import GroupSummary
from rollout.errors import RolloutError
from rollout.records import Sample, SamplingSpec

if TYPE_CHECKING:
    from orchestration.workers.engine_pool import GeneratorPool
    from orchestration.workers.reward_pool import RewardPool

MAX_IN_FLIGHT = 128
"""Samples whose images are in memory; enough to fill engines, few enough to keep the host's memory flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questioning:
    """How every sample is asked."""

    greedy: bool
    """One completion at temperature 0."""
    sampled: SamplingSpec | None
    """Completions at a temperature; its seed is set for each sample. None asks for none."""
    max_completion_tokens: int
    """Of the greedy completion."""
    seed: int
    """Seeds depend on it and on the sample alone, so two evaluations draw the same random numbers."""
    coord_mode: str
    """Frame in which the model answers boxes."""

    def specs(self, sample: Sample) -> dict[str, SamplingSpec]:
        """Give the groups to ask for, by name."""
        found = {}
        if self.greedy:
            found["greedy"] = SamplingSpec(
                group_size=1, temperature=0.0, max_completion_tokens=self.max_completion_tokens
            )
        if self.sampled is not None:
            found["sampled"] = replace(self.sampled, seed=derive_seed(self.seed, "evaluation", sample.sample_id))
        return found


async def collect(
    samples: Iterable[Sample],
    *,
    generators: "GeneratorPool",
    rewards: "RewardPool",
    questioning: Questioning,
    function_of: Callable[[str, str], str],
    finished: Callable[[EvaluatedSample], None],
) -> None:
    """Ask and score every sample, as many at once as engines can use.

    Args:
        samples: Read one by one, as places become free.
        generators: All engines.
        rewards: All reward actors.
        questioning: What is asked of each.
        function_of: Reward function of (task, source).
        finished: Takes each result as it comes; the order is not that of `samples`.
    """
    places = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def ask(sample: Sample) -> None:
        try:
            groups: dict[str, GroupSummary] = {}
            failure = None
            for name, spec in questioning.specs(sample).items():
                try:
                    group_id = f"evaluation-{name}-{sample.sample_id}"
                    groups[name] = await summary_of(generators, rewards, group_id, sample, spec)
                except (RolloutError, ScoringError) as error:
                    failure = str(error)
            finished(_evaluated(sample, groups, failure, questioning, function_of(sample.task, sample.source)))
        finally:
            places.release()

    async with asyncio.TaskGroup() as tasks:
        for sample in samples:
            await places.acquire()
            tasks.create_task(ask(sample))


def _evaluated(
    sample: Sample, groups: dict[str, GroupSummary], failure: str | None, questioning: Questioning, function: str
) -> EvaluatedSample:
    completions = {
        name: [
            completion_of(c.result, text=c.text, num_tokens=c.num_tokens, truncated=c.truncated)
            for c in group.completions
        ]
        for name, group in groups.items()
    }
    return evaluated_sample(
        sample,
        function=function,
        coord_mode=questioning.coord_mode,
        image_input_sizes=next((group.image_input_sizes for group in groups.values()), ()),
        greedy=next(iter(completions.get("greedy", ())), None),
        sampled=completions.get("sampled", ()),
        failure=failure,
    )
