"""The dataset that a recipe becomes: its key, where it lies, and whether it is there. No Ray: a plan asks this too."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestration.data.job import BuildJob
from orchestration.data.plan import plan_sources
from orchestration.data.publish import MANIFEST, read_key
from orchestration.data.rows.chunks import digest_of
from orchestration.data.rows.code import stage_code
from orchestration.data.rows.files import FileDigests
from orchestration.data.stages.measure import Ruler, processor_files
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig


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
