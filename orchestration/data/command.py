"""A configured recipe becomes a dataset: the session around a build, for `mixed-r1 data build` and for a run."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestration import cluster
from orchestration.config.experiment import ExperimentConfig
from orchestration.data.build import Attempt, build_dataset
from orchestration.data.chunks import Chunk, ImageReader, digest_of
from orchestration.data.code import STAGES, stage_code
from orchestration.data.files import FileDigests
from orchestration.data.job import BuildJob
from orchestration.data.plan import plan_sources
from orchestration.data.progress import Advance, StageBars
from orchestration.data.publish import MANIFEST, read_key
from orchestration.data.stages.measure import Ruler, processor_files
from orchestration.data.stages.runner import result_folder
from orchestration.data.stages.sample import PoolPolicy, sample_chunks
from orchestration.data.workers import RayWorkers
from orchestration.errors import ConfigError
from orchestration.faults import FaultLog
from orchestration.guard import guarded
from orchestration.lock import exclusive
from orchestration.pools.generators import start_generators
from orchestration.pools.rewards import start_reward_pool
from rollout.records import SamplingSpec


@dataclass(frozen=True, slots=True)
class Dataset:
    """A built dataset on disk."""

    root: Path

    @property
    def train(self) -> Path:
        """Folder of the training shards."""
        return self.root / "train"

    @property
    def held_out(self) -> Path:
        """Folder of the evaluation shards."""
        return self.root / "held_out"

    @property
    def manifest(self) -> Path:
        """What the dataset was made of, and what was left out."""
        return self.root / MANIFEST


def build_from_config(config: ExperimentConfig, model: Path) -> Dataset:
    """Build the configured recipe, or find it built.

    Args:
        config: Of a run; its model's processor measures the prompts, and its rollout tries the rows.
        model: Hugging Face folder.

    Raises:
        ConfigError: A setting of the recipe cannot be used, or its result would replace another dataset.
        DataError: Files of a source are missing, or a strict quota cannot be filled.
    """
    job = plan_build(config, model)
    if not is_built(job):
        busy = f"another process is building data in {job.store}; wait for it, or use another cache_dir"
        with exclusive(job.store, refusal=busy):
            _clear_half_chunks(job.store)
            _build(config, job, model)
    return Dataset(job.out)


def _clear_half_chunks(store: Path) -> None:
    """Delete what killed builds left in the middle of a chunk; nobody else writes while the store is locked."""
    for stage in STAGES:
        for half in (store / stage).glob("*.partial-*"):
            shutil.rmtree(half, ignore_errors=True)


def plan_build(config: ExperimentConfig, model: Path) -> BuildJob:
    """Find the sources and name the result."""
    recipe = config.data.recipe
    assert recipe is not None  # checked where the configuration was built
    store = Path(config.cache_dir) / "data"
    digests = FileDigests(store / "files.json")
    engine, sampling = config.rollout.engine, config.rollout.sampling
    ruler = Ruler(
        model=model,
        system_prompt=config.rollout.system_prompt,
        max_images=engine.max_images_per_prompt,
        max_prompt_tokens=recipe.measure.max_prompt_tokens or engine.max_model_len - sampling.max_completion_tokens,
    )
    processor = digest_of([digests.of(path) for path in processor_files(model)])
    policy = ""
    if recipe.difficulty.enabled:
        weights = [digests.of(path) for path in sorted(model.glob("*.safetensors"))]
        policy = digest_of(
            weights,
            processor,
            asdict(config.reward),
            asdict(sampling),
            config.rollout.system_prompt,
            config.rollout.engine.dtype,
            config.model.coord_mode,
            recipe.difficulty.num_completions,
            recipe.seed,
            stage_code("sample"),
        )
    job = BuildJob(
        recipe=recipe,
        plans=plan_sources(recipe, store, digests),
        reward=config.reward,
        ruler=ruler,
        processor=processor,
        policy=policy,
        store=store,
        out=Path(),
    )
    out = Path(recipe.out).expanduser().absolute() if recipe.out else store / "built" / f"{recipe.name}-{job.key}"
    return replace(job, out=out)


def is_built(job: BuildJob) -> bool:
    """Whether the result is there.

    Raises:
        ConfigError: Another dataset, or something else, is in its place.
    """
    manifest = job.out / MANIFEST
    if not manifest.is_file():
        if job.out.exists():
            raise ConfigError(f"data.recipe.out={job.out} exists and is no dataset; name a folder that does not exist")
        return False
    if read_key(manifest) != job.key:
        raise ConfigError(
            f"data.recipe.out={job.out} holds a dataset of other settings, sources or code; name another folder, or "
            "remove it"
        )
    return True


def _build(config: ExperimentConfig, job: BuildJob, model: Path) -> None:
    cores = cluster.available_cores()
    is_tried = job.recipe.difficulty.enabled
    plan = cluster.plan_without_learner(config, cores=cores)
    if not is_tried:
        plan = replace(plan, engines=(), rewards=())
    logs = job.store / "logs"
    with guarded(), cluster.ray_session(config.cluster, plan, logs), StageBars() as bars:
        workers = RayWorkers(job.recipe.num_workers)
        build_dataset(job, workers, _attempt(config, job, model, plan, logs) if is_tried else None, bars)


def _attempt(config: ExperimentConfig, job: BuildJob, model: Path, plan: cluster.ClusterPlan, logs: Path) -> Attempt:
    """Give the function that starts engines and reward actors and lets them try the rows of some chunks."""
    sampling = config.rollout.sampling
    spec = SamplingSpec(
        group_size=job.recipe.difficulty.num_completions,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_completion_tokens=sampling.max_completion_tokens,
    )

    async def run(targets: Sequence[tuple[Chunk, Path]], advance: Advance) -> list[Chunk]:
        limits = config.cluster.faults
        log = FaultLog(limits, logs / "faults.jsonl")
        generators = start_generators(config.rollout, model, plan.engines, logs, faults=limits, log=log)
        rewards = start_reward_pool(config, model, plan.rewards, logs, log)
        try:
            await asyncio.gather(generators.ready(), rewards.ready())
            return await sample_chunks(
                targets,
                PoolPolicy(generators, rewards),
                spec=spec,
                seed=job.recipe.seed,
                images=ImageReader(job.store),
                advanced=advance,
            )
        finally:
            rewards.close()
            await generators.close()

    def attempt(chunks: Sequence[Chunk], key: str, advance: Advance) -> list[Chunk]:
        targets = [(chunk, result_folder(job.store, "sample", key, chunk)) for chunk in chunks]
        done = [Chunk.open(folder) for _, folder in targets]
        if all(done):
            advance(sum(chunk.num_rows for chunk in chunks))
            return [chunk for chunk in done if chunk is not None]
        return asyncio.run(run(targets, advance))

    return attempt
