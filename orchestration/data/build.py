"""The data engine on one screen: raw sources in, a verified and selected dataset out, resumable at every chunk."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from orchestration.data.duplicates.deduplicate import Deduplicator
from orchestration.data.measure import MeasureStage
from orchestration.data.normalisation.rows import NormaliseStage
from orchestration.data.plan import BuildJob
from orchestration.data.publish import of_role, publish
from orchestration.data.read import read_sources
from orchestration.data.rows.chunks import Chunk
from orchestration.data.rows.reasons import Refused
from orchestration.data.rows.records import candidate_from_json
from orchestration.data.selection.select import Selectable, answer_class, select_rows
from orchestration.data.stages.rules import stage_code
from orchestration.data.stages.runner import Advance, Map, RowStage, StageBars, Verdict, rows_in_order, run_stage, sift
from orchestration.data.validation.rows import ValidateStage
from orchestration.settings.errors import DataError
from rewards.config import RewardConfig
from rollout.records import Difficulty

Attempt = Callable[[Sequence[Chunk], str, Advance], list[Chunk]]
"""Samples the rows of some chunks from the policy; takes the chunks, the key of their results, and a progress bar."""


def build_dataset(job: BuildJob, in_workers: Map, attempt: Attempt | None, bars: StageBars) -> None:
    """Run all stages over the sources and publish the result as `job.out`.

    Each stage finds by key the chunks that an earlier, perhaps killed, build has finished.

    Args:
        job: What to build.
        in_workers: Applies a function to many items; runs the stages that take one row at a time.
        attempt: Samples the rows from the current policy; None leaves their difficulty unknown.
        bars: Shows how far the build is.
    """
    recipe, store = job.recipe, job.store
    stages: dict[str, list[Chunk]] = {}
    seconds: dict[str, float] = {}

    def run(stage: str, rows: Sequence[Chunk] | None, work: Callable[[Advance], list[Chunk]]) -> list[Chunk]:
        started = time.perf_counter()
        stages[stage] = work(bars.begin(stage, None if rows is None else total(rows)))
        seconds[stage] = time.perf_counter() - started
        bars.end(stage)
        return stages[stage]

    def by_row(stage: RowStage, chunks: list[Chunk]) -> list[Chunk]:
        return run(stage.name, chunks, lambda advance: run_stage(stage, chunks, store, in_workers, advance))

    chunks = run("read", None, lambda advance: read_sources([plan.tasks for plan in job.plans], in_workers, advance))
    chunks = by_row(ValidateStage(recipe.limits, store), chunks)
    chunks = by_row(NormaliseStage(recipe.normalise, recipe.limits, job.reward, recipe.seed), chunks)
    chunks = run("deduplicate", chunks, partial(deduplicate, job, chunks))
    chunks = by_row(MeasureStage(job.ruler, job.processor), of_role(chunks, "held_out", "train"))
    train = of_role(chunks, "train")
    if attempt is not None:
        train = run("sample", train, partial(attempt, train, job.policy))
    train = run("select", train, partial(select, job, train))
    if not total(train):
        raise DataError(f"recipe {recipe.name}: no training row is left; most went as {most_frequent_reasons(stages)}")
    rows_to_write = total(train) + total(of_role(chunks, "held_out"))
    publish(job, stages, seconds, in_workers, bars.begin("write", rows_to_write))


def total(chunks: Sequence[Chunk]) -> int:
    """Rows of some chunks."""
    return sum(chunk.num_rows for chunk in chunks)


def most_frequent_reasons(stages: Mapping[str, Sequence[Chunk]]) -> str:
    """Return the most frequent reasons of rejection, for the error of a build that has no rows left."""
    counts = Counter(
        f"{row['reason']} ({stage})" for stage, chunks in stages.items() for chunk in chunks for row in chunk.rejected()
    )
    return ", ".join(f"{reason} x {count}" for reason, count in counts.most_common(5)) or "nothing: no row was read"


def deduplicate(job: BuildJob, chunks: Sequence[Chunk], advance: Advance) -> list[Chunk]:
    """Stage 4: reject rows that another row makes superfluous, wrong or a leak."""
    settings = job.recipe.deduplicate

    def verdicts() -> Iterator[tuple[int, Verdict]]:
        with Deduplicator(settings, job.store / "deduplicate" / "scratch") as seen:
            for number, values in rows_in_order(chunks):
                seen.add(candidate_from_json(values), number)
                advance(1)
            for number, reason, detail in seen.decide():
                yield number, Refused(reason, detail)

    return sift("deduplicate", [asdict(settings), stage_code("deduplicate")], chunks, job.store, verdicts)


def select(job: BuildJob, chunks: Sequence[Chunk], advance: Advance) -> list[Chunk]:
    """Stage 7: keep rows whose difficulty fits, as many as the quotas allow."""
    recipe = job.recipe
    quotas = {name: source.quota for name, source in recipe.sources.items() if source.quota is not None}

    def verdicts() -> Iterator[tuple[int, Verdict]]:
        if not (quotas or recipe.select.quotas or recipe.select.bands or recipe.select.strata):
            advance(total(chunks))
            return  # everything is kept, and nothing has to be remembered
        rows = []
        for chunk in chunks:
            for values in chunk.rows():
                rows.append(_selectable(job.reward, chunk.origin["source"], values))
                advance(1)
        selection = select_rows(rows, config=recipe.select, source_quotas=quotas, seed=recipe.seed)
        for number, verdict in enumerate(selection.verdicts):
            kept = {"stratum": verdict.stratum}
            yield number, kept if verdict.reason is None else Refused(verdict.reason, verdict.detail)

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
