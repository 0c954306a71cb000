"""Stage 6, sample: the current policy tries every row, Mixed-Reward scores it, the row learns how hard it is."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Protocol

from orchestration.data.rows.chunks import Chunk, ChunkWriter, ImageReader
from orchestration.data.rows.reasons import Refused, RejectReason
from orchestration.data.rows.records import EXCERPT_CHARS, Candidate, Rejected
from orchestration.data.rows.tables import candidate_from_json, candidate_to_json, to_sample
from orchestration.settings.errors import ScoringError
from orchestration.settings.seeds import derive_seed
from orchestration.workers.summaries import summary_of
from orchestration.workers.tickets import GroupSummary, RecordedCompletion
from rollout.errors import RolloutError
from rollout.records import Difficulty, Sample, SamplingSpec

STAGE = "sample"
FULL_REWARD = 1.0 - 1e-6
CHUNKS_AT_ONCE = 2
"""The next chunk fills the engines while the last rows of this one finish."""
ROWS_AT_ONCE = 128


class Policy(Protocol):
    """Whatever samples a group of completions and scores it."""

    async def attempt(self, group_id: str, sample: Sample, spec: SamplingSpec) -> GroupSummary:
        """Give the summary of a scored group, its completions included.

        Raises:
            RolloutError: The engine refuses the row.
            ScoringError: No reward actor could score it.
        """
        ...


def difficulty_of(completions: Sequence[RecordedCompletion]) -> Difficulty:
    """Boil the completions of one row down to its difficulty.

    Raises:
        Refused: Not one of them has a reward.
    """
    rewards = [c.result.task_reward for c in completions if c.result.task_reward is not None]
    if not rewards:
        causes = Counter(c.result.failure or "no completion" for c in completions)
        raise Refused(RejectReason.NOT_SAMPLED, str(causes.most_common(1)[0][0]) if causes else "no completion")
    answers = Counter(c.result.parsed_answer for c in completions if c.result.parsed_answer is not None)
    return Difficulty(
        num_completions=len(completions),
        mean=fmean(rewards),
        std=pstdev(rewards),
        min=min(rewards),
        max=max(rewards),
        pass_rate=sum(reward >= FULL_REWARD for reward in rewards) / len(rewards),
        format_rate=fmean(c.result.format_reward for c in completions),
        agreement=max(answers.values(), default=0) / len(completions),
    )


async def sample_chunks(
    chunks: Iterable[tuple[Chunk, Path]],
    policy: Policy,
    *,
    spec: SamplingSpec,
    seed: int,
    images: ImageReader,
    advanced: Callable[[int], None],
) -> list[Chunk]:
    """Sample the rows of some chunks and give the chunks that result, in order.

    Args:
        chunks: Each with the folder of its result; results that are there already are taken as they are.
        policy: Engines and rewards.
        spec: Group size, temperature and limits; the seed is set for each row from `seed` and its id.
        seed: Of the recipe.
        images: Reads the rows' pictures.
        advanced: Told how many rows were finished, as they finish.
    """
    rows_at_once = asyncio.Semaphore(ROWS_AT_ONCE)
    chunks_at_once = asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def attempt(row: Candidate) -> Candidate | Rejected:
        async with rows_at_once:
            own = replace(spec, seed=derive_seed(seed, "difficulty", row.sample_id))
            try:
                summary = await policy.attempt(f"build-{row.sample_id}", to_sample(row, images), own)
                return replace(row, difficulty=difficulty_of(summary.completions))
            except (RolloutError, ScoringError) as error:
                return _refused(row, str(error))
            except Refused as refusal:
                return _refused(row, refusal.detail)
            finally:
                advanced(1)

    async def finish(chunk: Chunk, folder: Path) -> Chunk:
        async with chunks_at_once:
            done = Chunk.open(folder)
            if done is not None:
                advanced(chunk.num_rows)
                return done
            rows = [candidate_from_json(values) for values in chunk.rows()]
            results = await asyncio.gather(*map(attempt, rows))
            return await asyncio.to_thread(_write, folder, results, chunk.origin)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(finish(chunk, folder)) for chunk, folder in chunks]
    return [task.result() for task in running]


def _write(folder: Path, results: Sequence[Candidate | Rejected], origin: dict[str, str]) -> Chunk:
    writer = ChunkWriter(folder)
    for result in results:
        if isinstance(result, Rejected):
            writer.reject(result)
        else:
            writer.add(candidate_to_json(result))
    return writer.finish(origin)


def _refused(row: Candidate, detail: str) -> Rejected:
    return Rejected(
        stage=STAGE,
        source=row.source,
        source_id=row.source_id,
        role=row.role,
        reason=RejectReason.NOT_SAMPLED,
        detail=detail[:EXCERPT_CHARS],
        question=row.question[:EXCERPT_CHARS],
    )


class PoolPolicy:
    """The engines and reward actors of a session."""

    def __init__(self, generators: Any, rewards: Any) -> None:
        """Attempt rows on these pools."""
        self._generators = generators
        self._rewards = rewards

    async def attempt(self, group_id: str, sample: Sample, spec: SamplingSpec) -> GroupSummary:
        """See Policy."""
        return await summary_of(self._generators, self._rewards, group_id, sample, spec)
