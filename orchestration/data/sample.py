"""Stage 6, sample: completions of the current policy for each row are scored, which measures its difficulty."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from orchestration.data.chunks import Chunk, ChunkWriter, ImageReader, to_sample
from orchestration.data.sources.rows import Refused, RejectReason, candidate_from_json
from orchestration.data.stages import Advance, Verdict, settle
from orchestration.settings.errors import ScoringError
from orchestration.settings.seeds import derive_seed
from orchestration.workers.tickets import GroupSummary, RecordedCompletion
from rollout.errors import RolloutError
from rollout.records import Difficulty, Sample, SamplingSpec

STAGE = "sample"
FULL_REWARD = 1.0 - 1e-6
CHUNKS_AT_ONCE = 2
"""The next chunk keeps the engines busy while the last rows of this one finish."""
ROWS_AT_ONCE = 128


Attempt = Callable[[str, Sample, SamplingSpec], Awaitable[GroupSummary]]
"""Samples and scores one group: takes its id, the row and the sampling settings. Raises RolloutError if the engine
refuses the row, ScoringError if no reward actor could score it."""


def difficulty_of(completions: Sequence[RecordedCompletion]) -> Difficulty:
    """Return the difficulty of a row, computed from its completions.

    Raises:
        Refused: None of them has a reward.
    """
    rewards = [c.result.task_reward for c in completions if c.result.task_reward is not None]
    if not rewards:
        causes = Counter((c.result.failure or "no completion").partition("\n")[0] for c in completions)
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
    attempt: Attempt,
    *,
    spec: SamplingSpec,
    seed: int,
    images: ImageReader,
    advance: Advance,
) -> list[Chunk]:
    """Sample the rows of some chunks and return the resulting chunks in order.

    Args:
        chunks: Each with the folder of its result; finished results are reused.
        attempt: Samples and scores one row with engines and reward actors.
        spec: Group size, temperature and limits; the seed is set for each row from `seed` and its id.
        seed: Seed of the recipe.
        images: Reads the images of rows.
        advance: Called with 1 for every finished row.
    """
    rows_at_once = asyncio.Semaphore(ROWS_AT_ONCE)
    chunks_at_once = asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def sampled(values: dict[str, Any]) -> Verdict:
        row = candidate_from_json(values)
        own = replace(spec, seed=derive_seed(seed, "difficulty", row.sample_id))
        async with rows_at_once:
            try:
                summary = await attempt(f"build-{row.sample_id}", to_sample(row, images), own)
                return {"difficulty": asdict(difficulty_of(summary.completions))}
            except (RolloutError, ScoringError) as error:
                return Refused(RejectReason.NOT_SAMPLED, str(error))
            except Refused as refusal:
                return refusal
            finally:
                advance(1)

    async def finish(chunk: Chunk, folder: Path) -> Chunk:
        async with chunks_at_once:
            done = Chunk.open(folder)
            if done is not None:
                advance(chunk.num_rows)
                return done
            rows = list(chunk.rows())
            verdicts = await asyncio.gather(*map(sampled, rows))
            return await asyncio.to_thread(_write, folder, rows, verdicts, chunk.origin)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(finish(chunk, folder)) for chunk, folder in chunks]
    return [task.result() for task in running]


def _write(folder: Path, rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict], origin: dict[str, str]) -> Chunk:
    writer = ChunkWriter(folder)
    for values, verdict in zip(rows, verdicts, strict=True):
        settle(writer, STAGE, values, verdict)
    return writer.finish(origin)
