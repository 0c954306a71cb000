"""The data engine: builds a verified and selected dataset from raw sources, resumable at every chunk."""

import asyncio
import heapq
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.cluster.found import map_in_tasks
from orchestration.cluster.reservations import Reservations, num_actors, reserved
from orchestration.cluster.session import ray_session
from orchestration.data.chunks import Chunk, ImageReader
from orchestration.data.deduplicate import decide, distinct_ids
from orchestration.data.filter import filter_stage
from orchestration.data.links import FOLDER as LINKS
from orchestration.data.losses import check_losses, read_manifest, source_table
from orchestration.data.measure import measure_stage
from orchestration.data.normalise import normalise_stage
from orchestration.data.plan import BuildJob, Dataset, is_built, plan_build, reward_code
from orchestration.data.publish import of_role, publish
from orchestration.data.read import read_sources
from orchestration.data.row_index import RowIndex
from orchestration.data.sample import sample_chunks
from orchestration.data.select import Selectable, answer_class, select_rows
from orchestration.data.sources.rows import Refused, candidate_from_json, rejected_from_json
from orchestration.data.stages import (
    STAGES,
    Advance,
    Map,
    RowStage,
    Verdict,
    result_folder,
    run_stage,
    sift,
    stage_code,
)
from orchestration.data.validate import validate_stage
from orchestration.page.formatting import progress_bars
from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import DataError
from orchestration.settings.experiment import ExperimentConfig, check_writable
from orchestration.storage.faults import FaultLog
from orchestration.storage.files import exclusive
from orchestration.workers.engine_pool import start_engines
from orchestration.workers.reward_pool import start_reward_pool
from orchestration.workers.summaries import summary_of
from rewards.core.config import RewardConfig
from rollout.records import Difficulty, SamplingSpec

if TYPE_CHECKING:
    from rich.progress import Progress

TITLES = {
    "read": "reading sources",
    "validate": "checking images and texts",
    "normalise": "normalising and proving references",
    "filter": "asking filters",
    "deduplicate": "looking for duplicates and leaks",
    "measure": "measuring prompts",
    "sample": "sampling the policy",
    "select": "selecting",
    "write": "writing shards",
}
"""Title of the progress bar of each stage."""
TITLE_WIDTH = 34

Bar = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Context manager of a progress bar; takes the name of a stage and its number of rows, None if unknown."""
Sampler = Callable[[Sequence[Chunk], str, Advance], list[Chunk]]
"""Runs stage sample over chunks; takes the chunks, the key of their results, and the progress callback."""


def build_dataset(job: BuildJob, in_workers: Map, attempt: Sampler | None, bar: Bar) -> None:
    """Run all stages over the sources and publish the result as `job.out`.

    Each stage reuses, by key, the chunks that an earlier build has finished, even if that build was killed.

    Args:
        job: What to build.
        in_workers: Applies a function to items in worker processes; runs the stages that process one row at a time.
        attempt: Samples the rows from the current policy; None leaves difficulty unknown.
        bar: Shows the progress of a stage.
    """
    recipe, store = job.recipe, job.store
    stages: dict[str, list[Chunk]] = {}
    seconds: dict[str, float] = {}

    def run(stage: str, rows: Sequence[Chunk] | None, work: Callable[[Advance], list[Chunk]]) -> list[Chunk]:
        started = time.perf_counter()
        with bar(stage, None if rows is None else total(rows)) as advance:
            stages[stage] = work(advance)
        seconds[stage] = time.perf_counter() - started
        return stages[stage]

    def by_row(stage: RowStage, chunks: list[Chunk]) -> list[Chunk]:
        return run(stage.name, chunks, lambda advance: run_stage(stage, chunks, store, in_workers, advance))

    chunks = run("read", None, lambda advance: read_sources([plan.tasks for plan in job.plans], in_workers, advance))
    chunks = by_row(validate_stage(recipe.limits, store), chunks)
    chunks = by_row(normalise_stage(recipe.normalise, recipe.limits, job.reward, recipe.seed), chunks)
    if recipe.filters:
        chunks = by_row(filter_stage(recipe.filters, job.filter_code, store), chunks)
    chunks = run("deduplicate", chunks, partial(deduplicate, job, chunks))
    chunks = by_row(measure_stage(job.ruler, job.processor), of_role(chunks, "held_out", "train"))
    train = of_role(chunks, "train")
    if attempt is not None:
        train = run("sample", train, partial(attempt, train, job.policy))
    train = run("select", train, partial(select, job, train))
    if not total(train):
        raise DataError(
            f"recipe {recipe.name}: no training row is left; most were rejected for {most_frequent_reasons(stages)}"
        )
    rows_to_write = total(train) + total(of_role(chunks, "held_out"))
    with bar("write", rows_to_write) as advance:
        publish(job, stages, seconds, in_workers, advance)


def total(chunks: Sequence[Chunk]) -> int:
    """Return the number of rows of all chunks."""
    return sum(chunk.num_rows for chunk in chunks)


def most_frequent_reasons(stages: Mapping[str, Sequence[Chunk]]) -> str:
    """Return the most frequent reasons of rejection, for the error of a build that has no rows left."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for stage, chunks in stages.items():
        for row in (row for chunk in chunks for row in chunk.rejected()):
            reason = f"{rejected_from_json(row).counted_as} ({stage})"
            counts[reason] += 1
            examples.setdefault(reason, f"{row['source_id']}: {row['detail']}")
    most = counts.most_common(5)
    listed = ", ".join(f"{reason} x {count}" for reason, count in most)
    return f"{listed}; such as {examples[most[0][0]]}" if most else "no reason: no row was read"


def deduplicate(job: BuildJob, chunks: Sequence[Chunk], advance: Advance) -> list[Chunk]:
    """Run stage 4: reject duplicates, contradictions and leaks."""
    settings = job.recipe.deduplicate

    def verdicts() -> Iterator[tuple[int, Verdict]]:
        with RowIndex(job.store / "deduplicate" / "scratch") as index:
            for number, values in enumerate(values for chunk in chunks for values in chunk.rows()):
                index.add(candidate_from_json(values), number)
                advance(1)
            refused: Iterator[tuple[int, Verdict]] = (
                (number, Refused(reason, detail)) for number, reason, detail in decide(index, settings)
            )
            renamed: Iterator[tuple[int, Verdict]] = (
                (number, {"source_id": own, "sample_id": sample}) for number, own, sample in distinct_ids(index)
            )
            # All is decided before the first verdict comes, so `refused` stands first.
            yield from heapq.merge(refused, renamed, key=lambda verdict: verdict[0])

    return sift("deduplicate", [asdict(settings), stage_code("deduplicate")], chunks, job.store, verdicts)


def select(job: BuildJob, chunks: Sequence[Chunk], advance: Advance) -> list[Chunk]:
    """Run stage 7: keep rows of suitable difficulty, up to the quotas."""
    recipe = job.recipe
    quotas = {name: source.quota for name, source in recipe.sources.items() if source.quota is not None}

    def verdicts() -> Iterator[tuple[int, Verdict]]:
        if not (quotas or recipe.select.quotas or recipe.select.bands or recipe.select.strata):
            advance(total(chunks))
            return  # everything is kept, so no row is collected
        rows = []
        for chunk in chunks:
            for values in chunk.rows():
                rows.append(_selectable(job.reward, chunk.origin["source"], values))
                advance(1)
        selected = select_rows(rows, config=recipe.select, source_quotas=quotas, seed=recipe.seed)
        for number, verdict in enumerate(selected):
            yield number, verdict if isinstance(verdict, Refused) else {"stratum": verdict}

    key = [asdict(recipe.select), quotas, recipe.seed, stage_code("select")]
    return sift("select", key, chunks, job.store, verdicts)


def _selectable(reward: RewardConfig, source: str, values: dict[str, Any]) -> Selectable:
    difficulty = values["difficulty"]
    return Selectable(
        sample_id=values["sample_id"],
        source=source,
        function=reward.route(values["task"], values["source"]).function,
        task=values["task"],
        answer=values["answer"] if answer_class(values["task"], values["answer"]) else "",
        difficulty=None if difficulty is None else Difficulty(**difficulty),
    )


POLICY_ROLES: tuple[ActorRole, ...] = ("engine", "reward")
"""Actors that sample rows and score the completions."""


def build_from_config(
    config: ExperimentConfig, model: Path, say: Callable[[str], None], *, is_told_again: bool = False
) -> Dataset:
    """Build the configured recipe and return the dataset; one that exists is returned at once.

    Args:
        config: Settings of a run; its processor measures prompts, its rollout settings sample the rows.
        model: Hugging Face folder.
        say: Gets the lines of a table of the sources.
        is_told_again: Whether the table is told of a dataset that exists too.

    Raises:
        LossError: The dataset is complete, and a source lost rows that `allow_loss` does not allow it to lose.
        ConfigError: A setting of the recipe cannot be used, its result cannot be written or would replace another
            dataset.
        DataError: Files of a source are missing, or a strict quota cannot be filled.
    """
    job = plan_build(config, model)
    is_new = not is_built(job)
    if is_new:
        check_writable("data.recipe.out", job.out)
        busy = f"another process is building data in {job.store}; wait for it, or use another cache_dir"
        with exclusive(job.store, refusal=busy):
            _clear_half_chunks(job.store)
            _build(config, job, model)
    if is_new or is_told_again:
        for line in source_table(read_manifest(job.out) or {}):
            say(line)
    check_losses(job.out, job.recipe.allow_loss)
    return Dataset(job.out)


def _clear_half_chunks(store: Path) -> None:
    """Delete unfinished chunks and downloads of killed builds; the store is locked, so no other build writes them."""
    for stage in STAGES:
        for half in (store / stage).glob("*.partial-*"):
            shutil.rmtree(half, ignore_errors=True)
    for half in (store / LINKS).glob("*.partial-*"):
        half.unlink(missing_ok=True)


def _build(config: ExperimentConfig, job: BuildJob, model: Path) -> None:
    is_tried = job.recipe.difficulty.enabled
    logs = job.store / "logs"
    cores_needed = num_actors(config, POLICY_ROLES) if is_tried else 0
    with ray_session(config.cluster, cores_needed, logs), progress_bars(width=TITLE_WIDTH) as bars:
        in_workers = partial(map_in_tasks, num_workers=job.recipe.num_workers)
        build_dataset(
            job, in_workers, _attempt(config, job, model, logs) if is_tried else None, partial(_stage_bar, bars)
        )


@contextmanager
def _stage_bar(bars: "Progress", stage: str, total: int | None) -> Iterator[Advance]:
    bar = bars.add_task(TITLES[stage], total=total)
    yield lambda rows: bars.update(bar, advance=rows)
    bars.update(bar, total=bars.tasks[bar].completed)  # stops the clock


def _attempt(config: ExperimentConfig, job: BuildJob, model: Path, logs: Path) -> Sampler:
    """Return the function that runs stage sample with engines and reward actors of its own."""
    sampling = config.rollout.sampling
    spec = SamplingSpec(
        group_size=job.recipe.difficulty.num_completions,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_completion_tokens=sampling.max_completion_tokens,
    )

    async def run(reservations: Reservations, targets: Sequence[tuple[Chunk, Path]], advance: Advance) -> list[Chunk]:
        limits = config.cluster.faults
        log = FaultLog(limits, logs / "faults.jsonl")
        engines = start_engines(config.rollout, model, reservations, logs, faults=limits, log=log)
        rewards = start_reward_pool(config, model, reservations, logs, log)
        try:
            await asyncio.gather(engines.ready(), rewards.ready())
            return await sample_chunks(
                targets,
                partial(summary_of, engines, rewards),
                spec=spec,
                seed=job.recipe.seed,
                images=ImageReader(job.store),
                advance=advance,
            )
        finally:
            rewards.close()
            await engines.close()

    def attempt(chunks: Sequence[Chunk], key: str, advance: Advance) -> list[Chunk]:
        targets = [(chunk, result_folder(job.store, "sample", key, chunk)) for chunk in chunks]
        done = [Chunk.open(folder) for _, folder in targets]
        if all(done):
            advance(sum(chunk.num_rows for chunk in chunks))
            return [chunk for chunk in done if chunk is not None]
        if reward_code(config.reward) != job.reward_code:
            raise DataError("code of reward.functions has changed since the build began; start it again")
        # Reserved only while sampling: the workers of other stages need these cores too.
        with reserved(config, roles=POLICY_ROLES) as reservations:
            return asyncio.run(run(reservations, targets, advance))

    return attempt
