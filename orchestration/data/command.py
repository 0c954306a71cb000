"""A configured recipe becomes a dataset: the session around a build, for `mixed-r1 data build` and for a run."""

import asyncio
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from orchestration.cluster.reservations import Reservations, num_actors, reserved
from orchestration.cluster.session import ray_session
from orchestration.data.build import Attempt, build_dataset
from orchestration.data.plan import BuildJob, Dataset, is_built, plan_build
from orchestration.data.rows.chunks import Chunk, ImageReader
from orchestration.data.sample import sample_chunks
from orchestration.data.stages.rules import STAGES
from orchestration.data.stages.runner import Advance, StageBars, result_folder
from orchestration.settings.cluster import ActorRole
from orchestration.settings.experiment import ExperimentConfig, check_writable
from orchestration.storage.faults import FaultLog
from orchestration.storage.files import exclusive
from orchestration.workers.engine_pool import start_engines
from orchestration.workers.reward_pool import start_reward_pool
from orchestration.workers.row_tasks import RayWorkers
from orchestration.workers.summaries import summary_of
from rollout.records import SamplingSpec

POLICY_ROLES: tuple[ActorRole, ...] = ("engine", "reward")
"""Actors that sample rows and score the completions."""


def build_from_config(config: ExperimentConfig, model: Path) -> Dataset:
    """Build the configured recipe, or find it built.

    Args:
        config: Of a run; its model's processor measures the prompts, and its rollout tries the rows.
        model: Hugging Face folder.

    Raises:
        ConfigError: A setting of the recipe cannot be used, its result cannot be written or would replace another
            dataset.
        DataError: Files of a source are missing, or a strict quota cannot be filled.
    """
    job = plan_build(config, model)
    if not is_built(job):
        check_writable("data.recipe.out", job.out)
        busy = f"another process is building data in {job.store}; wait for it, or use another cache_dir"
        with exclusive(job.store, refusal=busy):
            _clear_half_chunks(job.store)
            _build(config, job, model)
    return Dataset(job.out)


def _clear_half_chunks(store: Path) -> None:
    """Delete unfinished chunks of killed builds; the store is locked, so no other build writes them."""
    for stage in STAGES:
        for half in (store / stage).glob("*.partial-*"):
            shutil.rmtree(half, ignore_errors=True)


def _build(config: ExperimentConfig, job: BuildJob, model: Path) -> None:
    is_tried = job.recipe.difficulty.enabled
    logs = job.store / "logs"
    cores_needed = num_actors(config, POLICY_ROLES) if is_tried else 0
    with ray_session(config.cluster, cores_needed, logs), StageBars() as bars:
        in_workers = RayWorkers(job.recipe.num_workers).map
        build_dataset(job, in_workers, _attempt(config, job, model, logs) if is_tried else None, bars)


def _attempt(config: ExperimentConfig, job: BuildJob, model: Path, logs: Path) -> Attempt:
    """Return the function that starts engines and reward actors and samples the rows of chunks with them."""
    sampling = config.rollout.sampling
    spec = SamplingSpec(
        group_size=job.recipe.difficulty.num_completions,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_completion_tokens=sampling.max_completion_tokens,
    )

    async def run(seats: Reservations, targets: Sequence[tuple[Chunk, Path]], advance: Advance) -> list[Chunk]:
        limits = config.cluster.faults
        log = FaultLog(limits, logs / "faults.jsonl")
        engines = start_engines(config.rollout, model, seats, logs, faults=limits, log=log)
        rewards = start_reward_pool(config, model, seats, logs, log)
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
        # Reserved only while sampling: the workers of other stages need these cores too.
        with reserved(config, roles=POLICY_ROLES) as seats:
            return asyncio.run(run(seats, targets, advance))

    return attempt
