"""Evaluation on a dataset: which of its rows, how completions are sampled, and each completion with its reward."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.settings.errors import DataError, ScoringError
from orchestration.settings.seeds import derive_seed
from orchestration.workers.answers import Completion, EvaluatedSample
from orchestration.workers.judge_counts import judge_counts
from orchestration.workers.summaries import summary_of
from orchestration.workers.tickets import GroupSummary, RecordedCompletion
from rollout.config import SamplingConfig
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.records import ImageBytes, Sample, SamplingSpec, readable, readable_turns

if TYPE_CHECKING:
    from orchestration.workers.engine_pool import EnginePool
    from orchestration.workers.reward_pool import RewardPool

MAX_IN_FLIGHT = 128
"""Samples whose images are in memory; enough to fill engines, few enough to keep the host's memory flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRows:
    """The rows of a dataset that one evaluation uses."""

    table: SampleTable
    ids: dict[str, int]
    """Row of each sample id, in the order of the rows."""
    digest: str
    """Of questions, references and images; evaluations of equal digests may be compared."""

    def samples(self, done: Mapping[str, EvaluatedSample]) -> Iterator[Sample]:
        """Read the samples that are not answered yet."""
        for sample_id, row in self.ids.items():
            if sample_id not in done:
                yield self.table[row]

    def images_of(self, sample_id: str) -> Sequence[ImageBytes]:
        """Return the images of one row."""
        return self.table[self.ids[sample_id]].images


def draw_rows(table: SampleTable, rows: Sequence[int], *, seed: int, max_rows: int) -> list[int]:
    """Return at most `max_rows` of some rows, in their order, drawn by the seed over all tasks and sources.

    Each (task, source) gets its share, the first row of each before the second of any. A smaller draw is part of a
    larger one, and the rows of one task and source have the same order in every draw, so what a run scores of its
    held-out data is what an evaluation of the same seed asks first.
    """
    columns = table.columns("sample_id", "task", "source")
    strata: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        sample_id, task, source = columns[row]
        strata[task, source].append((derive_seed(seed, "evaluate", sample_id), row))
    order = sorted(
        (place / len(members), draw, row)
        for members in strata.values()
        for place, (draw, row) in enumerate(sorted(members))
    )
    return sorted(row for _, _, row in order[:max_rows])


def open_rows(data: Path, *, seed: int, max_samples: int | None) -> EvaluationRows:
    """Open a dataset and choose its rows.

    Raises:
        DataError: Two rows share an id.
    """
    table = SampleTable(data)
    columns = table.columns("sample_id", "question", "answer")
    rows = range(len(columns))
    chosen = rows if max_samples is None else draw_rows(table, rows, seed=seed, max_rows=max_samples)
    ids = {str(columns[row][0]): row for row in chosen}
    if len(ids) < len(chosen):
        raise DataError(f"{data} holds a sample_id twice; every row needs an id of its own: build the data again")
    images, told = table.image_digests(), table.columns("system", "history")
    hasher = hashlib.sha256()
    for row in chosen:
        hasher.update(repr((columns[row], images[row])).encode(errors="replace"))
        if any(told[row]):  # rows with neither keep the digest that they had before there were such columns
            hasher.update(repr(told[row]).encode(errors="replace"))
    return EvaluationRows(table=table, ids=ids, digest=hasher.hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSampling:
    """Sampling of the completions of every sample."""

    greedy: bool
    """One completion at temperature 0."""
    num_sampled: int
    """Completions at the sampling temperature; 0 asks for none."""
    sampling: SamplingConfig
    """Temperature, lengths and stops, also those of single tasks; its group sizes are not read."""
    seed: int
    """Seeds depend on it and on the sample alone, so two evaluations draw the same random numbers."""
    coord_mode: str
    """Frame in which the model answers boxes."""

    def specs(self, sample: Sample) -> dict[str, SamplingSpec]:
        """Return the groups to ask for, by name."""
        found = {}
        if self.greedy:
            found["greedy"] = self.sampling.spec(sample.task, group_size=1, greedy=True)
        if self.num_sampled:
            seed = derive_seed(self.seed, "evaluation", sample.sample_id)
            found["sampled"] = self.sampling.spec(sample.task, group_size=self.num_sampled, seed=seed)
        return found


async def collect(
    samples: Iterable[Sample],
    *,
    engines: "EnginePool",
    rewards: "RewardPool",
    sampling: EvaluationSampling,
    function_of: Callable[[str, str], str],
    finished: Callable[[EvaluatedSample], None],
) -> None:
    """Ask and score every sample, as many at once as engines can use.

    Samples are read one by one, as places become free; `finished` takes each result as it comes, in any order.
    """
    places = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def ask(sample: Sample) -> None:
        try:
            groups: dict[str, GroupSummary] = {}
            failure = None
            for name, spec in sampling.specs(sample).items():
                try:
                    group_id = f"evaluation-{name}-{sample.sample_id}"
                    groups[name] = await summary_of(engines, rewards, group_id, sample, spec)
                except (RolloutError, ScoringError) as error:
                    failure = str(error)
            function = function_of(sample.task, sample.source)
            finished(evaluated_sample(sample, groups, failure, function=function, coord_mode=sampling.coord_mode))
        finally:
            places.release()

    async with asyncio.TaskGroup() as tasks:
        for sample in samples:
            await places.acquire()
            tasks.create_task(ask(sample))


def evaluated_sample(
    sample: Sample,
    groups: Mapping[str, GroupSummary],
    failure: str | None = None,
    *,
    function: str,
    coord_mode: str,
) -> EvaluatedSample:
    """Return the record of one row; a row of which no completion has a reward is a failed one, whatever else is known.

    Its completions are the groups `greedy` (one, at temperature 0) and `sampled`.
    """
    completions = {
        name: tuple(_completion(recorded, is_sum=bool(group.parts)) for recorded in group.completions)
        for name, group in groups.items()
    }
    greedy, sampled = completions.get("greedy", ())[:1], completions.get("sampled", ())
    if failure is None and all(completion.reward is None for completion in (*greedy, *sampled)):
        reasons = sorted({completion.reason for completion in (*greedy, *sampled)})
        failure = f"no completion has a reward: {', '.join(reasons) or 'there is none'}"
    return EvaluatedSample(
        sample_id=sample.sample_id,
        source=sample.source,
        source_id=sample.source_id,
        task=sample.task,
        function=function,
        question=readable(sample.question),
        history=readable_turns(sample.history),
        answer=sample.answer,
        options=sample.options,
        answer_type=sample.answer_type,
        metadata=dict(sample.metadata),
        image_sizes=tuple(image.size for image in sample.images),
        image_input_sizes=next((tuple(group.image_input_sizes) for group in groups.values()), ()),
        coord_mode=coord_mode,
        greedy=greedy[0] if greedy else None,
        sampled=sampled,
        failure=failure,
        counts=judge_counts(groups.values()),
    )


def _completion(recorded: RecordedCompletion, *, is_sum: bool) -> Completion:
    result = recorded.result
    return Completion(
        text=recorded.text,
        reward=result.reward,
        task_reward=result.task_reward,
        format_reward=result.format_reward,
        reason=result.reason.value,
        parsed_answer=result.parsed_answer,
        num_tokens=recorded.num_tokens,
        truncated=recorded.truncated,
        parts=dict(result.breakdown) if is_sum else {},
    )
