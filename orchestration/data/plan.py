"""Plan of a build: parts of the sources, key of the result, whether it is built. Without Ray: `plan` imports it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conf.own_code import OwnCodeError, is_own
from conf.own_code import digest_of as code_digest
from orchestration.data.chunks import digest_of
from orchestration.data.filter import RowFilter, filter_code
from orchestration.data.measure import Ruler, processor_files
from orchestration.data.read import STAGE, PartTask
from orchestration.data.sources.base import Adapter, Licence, Part
from orchestration.data.sources.registry import find_adapter
from orchestration.data.stages import STAGES, stage_code
from orchestration.models.measured import MeasuredWith, measured_with
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.own_code import own_code, with_own_code
from orchestration.settings.recipe import RecipeConfig, SourceConfig
from orchestration.storage.files import write_json
from rewards.core.config import RewardConfig

MANIFEST = "manifest.json"
SETTINGS_OF_THE_MACHINE = ("raw", "out", "num_workers", "allow_loss", "image_roots")
"""Settings that do not change the dataset; omitted, so that equal datasets have equal manifests."""
ELSEWHERE = "own:code"
"""Stands for own functions of rewards in settings that must not depend on where their files lie."""
ROLE_ORDER = ("guard", "held_out", "train")
"""Evaluation sets come first, so that of two equal rows the training row is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """One source with the tasks that read it."""

    name: str
    config: SourceConfig
    licence: Licence
    tasks: tuple[PartTask, ...]
    files: dict[str, str]
    """SHA-256 of every annotation file, by its path under the source's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """Everything that determines a dataset."""

    recipe: RecipeConfig
    plans: Sequence[SourcePlan]
    reward: RewardConfig
    """Without the places of own functions, which none but stage sample asks."""
    reward_code: Mapping[str, str]
    """Digest of the code of each own function, by its setting below `reward`; part of `policy`."""
    ruler: Ruler
    processor: str
    """Digest of the processor files that determine prompt lengths."""
    measured_with: MeasuredWith
    """The same for readers of the dataset, by part; follows from `ruler` and `processor`."""
    policy: str
    """Digest of the model that samples the rows, and of its sampling settings; empty without sampling."""
    filter_code: Mapping[str, str]
    """Digest of the code of each filter of the recipe."""
    store: Path
    """Folder of all chunks, shared by all machines with workers."""
    out: Path

    @property
    def key(self) -> str:
        """Digest of all fields and the code; equal keys mean equal datasets."""
        recipe = asdict(self.recipe) | dict.fromkeys(SETTINGS_OF_THE_MACHINE)
        for source in recipe["sources"].values():
            source["path"] = None
            del source["timeout_s"]
            if is_own(source["adapter"]):
                source["adapter"] = None  # its code is in the keys of the parts
        for name, values in recipe.pop("filters").items():
            del values["timeout_s"]
            recipe[f"filters.{name}"] = {**values, "path": self.filter_code[name]}  # wherever its file lies
        recipe["filters"] = list(self.recipe.filters)  # their order counts
        parts = [task.key for plan in self.plans for task in plan.tasks]
        # The code of stage sample is part of `policy`, which is empty without sampling.
        code = {stage: stage_code(stage) for stage in STAGES if stage != "sample"}
        return digest_of(recipe, parts, asdict(self.reward), self.ruler.settings, self.processor, self.policy, code)


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
        """File that describes sources, settings and rejected rows."""
        return self.root / MANIFEST


class FileDigests:
    """SHA-256 of files, cached by size and modification time in a JSON file."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, Any] = json.loads(memory.read_text()) if memory.is_file() else {}

    def of(self, path: Path) -> str:
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        found = self._known.get(str(path))
        if found is None or found["stamp"] != stamp:
            with path.open("rb") as file:
                found = {"stamp": stamp, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            self._known[str(path)] = found
        return str(found["sha256"])

    def save(self) -> None:
        """Write the cache."""
        write_json(self._memory, self._known)


def plan_build(config: ExperimentConfig, model: Path) -> BuildJob:
    """Find the sources of the configured recipe and compute the key of its result."""
    recipe = config.data.recipe
    assert recipe is not None  # checked where the configuration was built
    store = Path(config.cache_dir) / "data"
    digests = FileDigests(store / "files.json")
    ruler = ruler_of(config, model)
    processor = digest_of([digests.of(path) for path in processor_files(model)])
    own_rewards = reward_code(config.reward)
    policy = ""
    if recipe.difficulty.enabled:
        weights = [digests.of(path) for path in sorted(model.glob("*.safetensors"))]
        policy = digest_of(
            weights,
            processor,
            asdict(with_own_code(config.reward, lambda key, _: f"own:{own_rewards[key]}")),
            asdict(config.rollout.sampling),
            config.rollout.prompt_spec.record,
            config.rollout.engine.dtype,
            config.model.box_frame,
            recipe.difficulty.num_completions,
            recipe.seed,
            stage_code("sample"),
        )
    for name, one in recipe.filters.items():
        RowFilter(name, one)  # a fault of it is said before anything is read
    job = BuildJob(
        recipe=recipe,
        plans=plan_sources(recipe, store, digests),
        reward=with_own_code(config.reward, lambda *_: ELSEWHERE),
        reward_code=own_rewards,
        ruler=ruler,
        processor=processor,
        measured_with=measured_with(config.model, model, config.rollout.prompt_spec),
        policy=policy,
        filter_code=filter_code(recipe.filters),
        store=store,
        out=Path(),
    )
    out = Path(recipe.out).expanduser().absolute() if recipe.out else store / "built" / f"{recipe.name}-{job.key}"
    return replace(job, out=out)


def ruler_of(config: ExperimentConfig, model: Path) -> Ruler:
    """Return what measures the prompts of a run, with the limit of its recipe or the one that its engines leave."""
    engine, sampling, recipe = config.rollout.engine, config.rollout.sampling, config.data.recipe
    limit = None if recipe is None else recipe.measure.max_prompt_tokens
    return Ruler(
        model=model,
        spec=config.rollout.prompt_spec,
        max_images=engine.max_images_per_prompt,
        max_prompt_tokens=limit or engine.max_model_len - sampling.longest_completion,
    )


def reward_code(reward: RewardConfig) -> dict[str, str]:
    """Return the digest of the code of every own function, by its setting below `reward`.

    Raises:
        ConfigError: There is no such file or module.
    """
    try:
        return {key: code_digest(f"reward.{key}", text) for key, text in own_code(reward).items()}
    except OwnCodeError as error:
        raise ConfigError(str(error)) from error


def is_built(job: BuildJob) -> bool:
    """Return whether the result exists.

    Raises:
        ConfigError: Its path holds another dataset, or something else.
    """
    manifest = job.out / MANIFEST
    if not manifest.is_file():
        if job.out.exists():
            raise ConfigError(
                f"data.recipe.out={job.out} exists and is not a dataset; name a folder that does not exist"
            )
        return False
    if json.loads(manifest.read_text())["key"] != job.key:
        raise ConfigError(
            f"data.recipe.out={job.out} holds a dataset of other settings, sources or code; name another folder, or "
            "remove it"
        )
    return True


def plan_sources(recipe: RecipeConfig, store: Path, digests: FileDigests) -> list[SourcePlan]:
    """Find the parts of all sources, evaluation sets first, then in the order of the recipe.

    Raises:
        ConfigError: A source names an unknown adapter, or options that its adapter does not have.
        DataError: Files of sources are missing; names all such sources.
    """
    plans, missing = [], []
    for name in sorted(recipe.sources, key=lambda name: ROLE_ORDER.index(recipe.sources[name].role)):
        try:
            plans.append(_plan_source(name, recipe, store, digests))
        except DataError as error:
            missing.append(f"  {name}: {error}; to leave it out: ~data.recipe.sources.{name}")
    digests.save()
    if missing:
        raise DataError("files of these sources are missing:\n" + "\n".join(missing))
    return plans


def _plan_source(name: str, recipe: RecipeConfig, store: Path, digests: FileDigests) -> SourcePlan:
    source = recipe.sources[name]
    adapter = _adapter(name, source)
    licence = replace(adapter.licence, name=source.license) if source.license else adapter.licence
    root = store if source.path is None else Path(recipe.raw or ".").expanduser().absolute() / source.path
    code = code_digest(f"data.recipe.sources.{name}.adapter", source.adapter) if is_own(source.adapter) else ""
    tasks, files = [], {}
    for part in _parts(adapter, root, name, source):
        own = [digests.of(path) for path in part.files]
        for path, digest in zip(part.files, own, strict=True):
            files[str(path.relative_to(root) if path.is_relative_to(root) else path)] = digest
        shape = {**asdict(source), "path": None, "quota": None}
        del shape["timeout_s"]
        if code:
            shape["adapter"] = code  # wherever the file lies
        limits = (recipe.limits.max_image_bytes, recipe.image_roots, recipe.fetch_images)
        key = digest_of(name, shape, recipe.seed, recipe.chunk_rows, *limits, part.name, part.arguments, own,
                        stage_code(STAGE))  # fmt: skip
        tasks.append(
            PartTask(
                store=store,
                recipe=recipe,
                name=name,
                license=licence.name,
                root=root,
                part=part,
                role=source.role,
                key=key,
                code=code,
            )
        )
    return SourcePlan(name=name, config=source, licence=licence, tasks=tuple(tasks), files=files)


def _adapter(name: str, source: SourceConfig) -> Adapter:
    try:
        return find_adapter(source.adapter)
    except ConfigError as error:
        raise ConfigError(f"data.recipe.sources.{name}: {error}") from error


def _parts(adapter: Adapter, root: Path, name: str, source: SourceConfig) -> list[Part]:
    try:
        return adapter.parts(root, source)
    except ConfigError as error:  # the adapter knows its options, not under which name the recipe gives them
        raise ConfigError(f"data.recipe.sources.{name}: {error}") from error
