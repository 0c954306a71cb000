"""The whole run as one frozen record, and the checks that need more than one room to see."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from learner.config import SUPPORTED_FAMILIES, AlgorithmConfig, LearnerConfig
from orchestration.data.config import RecipeConfig
from orchestration.demo.settings import FAMILY_FRAMES, DemoSettings, FamilyName
from orchestration.errors import ConfigError
from orchestration.evaluation.config import EvaluateConfig
from orchestration.strict import build
from rewards.config import RewardConfig
from rollout.config import RolloutConfig, StreamConfig

PROCESSOR_FILES = {
    "image processor": ("preprocessor_config.json", "processor_config.json"),
    "tokenizer": ("tokenizer.json", "vocab.json"),
}
"""What a model folder must hold beside weights: one of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model is trained."""

    path: str | None
    """Hugging Face folder; null takes the tiny model that the demo makes and warm-starts."""
    family: FamilyName | None
    """Which tiny model the demo makes. Not read where a path is given: a folder says itself what it holds."""
    coord_mode: Literal["pixel", "pixel_resized", "norm1000", "norm1"]
    """Frame in which this model family answers boxes."""

    def __post_init__(self) -> None:
        """A model of the demo needs a family, and the frame in which that family learns to write boxes."""
        if self.path is not None:
            return
        if self.family is None:
            raise ConfigError(
                "model.path and model.family are both null; point model.path at a Hugging Face folder, or set "
                f"model.family to {' or '.join(FAMILY_FRAMES)} for a tiny model of the demo"
            )
        if self.coord_mode != FAMILY_FRAMES[self.family]:
            raise ConfigError(
                f"model.coord_mode is {self.coord_mode}, but the demo's {self.family} writes boxes in "
                f"{FAMILY_FRAMES[self.family]}; set that"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which samples are trained on and which are held out."""

    train: str | None
    """Parquet file or folder of shards; null builds the recipe."""
    held_out: str | None
    """The same for evaluation."""
    recipe: RecipeConfig | None
    """What is built where train and held_out are null."""
    stream: StreamConfig
    """In which order and mixture the rows are trained on."""

    def __post_init__(self) -> None:
        """Data is either there, or has a recipe."""
        if (self.train is None) != (self.held_out is None):
            raise ConfigError("data.train and data.held_out must both be set, or both be null to build data.recipe")
        if self.train is None and self.recipe is None:
            raise ConfigError("data.train and data.recipe are both null; set the files, or choose a recipe (data=demo)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The run's rhythm."""

    num_steps: int
    """Training steps in all; each takes algorithm.num_epochs * num_minibatches optimiser updates."""
    groups_per_step: int
    """Prompts a step; each gives group_size completions."""
    max_staleness: int
    """0: rollout and training take turns. k: rollout may run k steps ahead of the live weights."""
    checkpoint_every: int
    keep_last: int
    """Complete checkpoints that stay on disk."""
    weight_check_every: int
    """Tensors of engine and learner are compared on the first and every k-th publication of weights."""
    max_mismatch: float
    """Mean log-probability difference between engine and learner above which the run stops."""
    max_drop_frac: float
    """Share of a step's groups that may be dropped for bad data."""
    max_failed_frac: float
    """Share of a step's completions whose reference or grader may fail; they are masked and counted."""
    recorded_groups_per_step: int
    """Groups a step whose completions are written to samples.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a run scores held-out data before and after."""

    samples_per_family: int
    completions_per_sample: int
    """Sampled at rollout.sampling.temperature, beside one greedy completion."""
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardPoolConfig:
    """The actors that score groups."""

    num_actors: int
    calls_per_actor: int = 2
    """Groups that one actor may hold, the one at work included; further groups wait in the driver."""
    timeout_s: float = 120.0
    """Time for one group, after which its actor is replaced. Must exceed group_size math answers that all time out."""

    def __post_init__(self) -> None:
        """Check the limit."""
        if self.timeout_s <= 0.0:
            raise ConfigError(f"cluster.reward_pool.timeout_s is {self.timeout_s}; use a value above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Ray and the machines under it."""

    address: str | None
    """Address of a running cluster; null starts Ray on this machine for the length of the run."""
    reward_pool: RewardPoolConfig
    pin_cores: bool
    """Bind each engine and learner rank to cores of its own (CPU runs)."""
    object_store_bytes: int
    """Shared memory of a Ray started here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """Everything one run needs."""

    run_dir: str
    cache_dir: str
    """Where the demo keeps what it made, so that the second run starts at once."""
    seed: int
    tensorboard: bool
    allow_config_change: bool
    """Continue a run folder although settings that shape the result differ from those it began with."""
    model: ModelConfig
    data: DataConfig
    demo: DemoSettings
    reward: RewardConfig
    algorithm: AlgorithmConfig
    rollout: RolloutConfig
    learner: LearnerConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    evaluate: EvaluateConfig
    """Read by `mixed-r1 evaluate` alone."""
    cluster: ClusterConfig

    @property
    def run_path(self) -> Path:
        """The run folder."""
        return Path(self.run_dir)


def build_config(values: dict[str, Any]) -> ExperimentConfig:
    """Build the record from composed YAML and check it across rooms.

    Raises:
        ConfigError: naming the dotted key, its value and the remedy.
    """
    config = build(ExperimentConfig, values)
    check_counts(config)
    check_paths(config)
    return config


def check_counts(config: ExperimentConfig) -> None:
    """Counts that must be positive, and batches that must divide."""
    training, evaluation = config.training, config.evaluation
    positive = {
        "training.num_steps": training.num_steps,
        "training.groups_per_step": training.groups_per_step,
        "training.checkpoint_every": training.checkpoint_every,
        "training.keep_last": training.keep_last,
        "training.weight_check_every": training.weight_check_every,
        "evaluation.samples_per_family": evaluation.samples_per_family,
        "evaluation.completions_per_sample": evaluation.completions_per_sample,
        "cluster.reward_pool.num_actors": config.cluster.reward_pool.num_actors,
        "cluster.reward_pool.calls_per_actor": config.cluster.reward_pool.calls_per_actor,
    }
    for key, value in positive.items():
        if value < 1:
            raise ConfigError(f"{key} is {value}; it must be at least 1")
    if training.max_staleness < 0:
        raise ConfigError(f"training.max_staleness is {training.max_staleness}; use 0 (synchronous) or more")
    ranks = config.learner.num_ranks
    if training.groups_per_step % ranks:
        nearest = max(ranks, training.groups_per_step - training.groups_per_step % ranks)
        raise ConfigError(
            f"training.groups_per_step={training.groups_per_step} does not divide by learner.num_ranks={ranks}; "
            f"use {nearest} or {nearest + ranks}"
        )


def check_model_folder(folder: Path) -> None:
    """A Hugging Face folder of a family that the learner knows, with the files that turn images and text into input."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model.path={folder} holds no config.json; point it at a Hugging Face folder")
    family = json.loads((folder / "config.json").read_text()).get("model_type")
    if family not in SUPPORTED_FAMILIES:
        raise ConfigError(
            f"model.path={folder} is a {family} model; supported are {', '.join(SUPPORTED_FAMILIES)}. Another "
            "architecture begins with a file in learner/families"
        )
    for what, names in PROCESSOR_FILES.items():
        if not any((folder / name).is_file() for name in names):
            raise ConfigError(
                f"model.path={folder} holds no {what} ({' or '.join(names)}); copy the processor's files of the "
                "original checkpoint into it"
            )


def check_paths(config: ExperimentConfig) -> None:
    """Inputs that must exist and a run folder that must be writable."""
    inputs = {"data.train": config.data.train, "data.held_out": config.data.held_out}
    for key, value in inputs.items():
        if value is not None and not Path(value).exists():
            raise ConfigError(f"{key}={value} does not exist; build it (mixed-r1 data build) or correct the path")
    if config.model.path is not None:
        check_model_folder(Path(config.model.path))
    if not config.run_path.is_absolute():
        raise ConfigError(f"run_dir={config.run_dir} must be absolute: workers run in folders of their own")
    try:
        config.run_path.mkdir(parents=True, exist_ok=True)
        probe = config.run_path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"run_dir={config.run_dir} cannot be written ({os.strerror(error.errno or 0)})") from error
