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
    """0: rollout and training take turns. k: a step trains on nothing begun more than k steps before it."""
    run_ahead: int | None
    """Steps that rollout may run ahead of the live weights; null is max_staleness. What it leaves of max_staleness is
    how often a straggler may be carried over."""
    straggler_deadline_s: float | None
    """Time a step waits for its own groups; then any others that are done fill it, and the missing ones are carried
    over to the next step. null waits for all."""
    oversampling: float
    """Prompts that a step may use up, in units of groups_per_step, so that groups whose completions all earned the same
    are replaced by others. 1 takes them as they come."""
    checkpoint_every: int
    checkpoint_dir: str | None
    """Absolute path, or a URI of object storage (s3://bucket/folder), where checkpoints are kept; null is
    run_dir/checkpoints."""
    staging_dir: str | None
    """Absolute path on fast local disk, where a checkpoint waits on its way to checkpoint_dir, so that training need
    not; null is the system's temporary directory. Room for the shares of all ranks of a machine."""
    keep_last: int
    """Newest complete checkpoints that stay."""
    keep_best: bool
    """Keep the best checkpoint by macro mean and of each reward function too; needs evaluation.every_steps."""
    time_limit_s: float | None
    """Length of the allocation, from the start of the job; null reads SLURM_JOB_END_TIME where there is one."""
    checkpoint_before_s: float
    """So long before the allocation ends, the run saves a checkpoint and leaves."""
    weight_check_every: int
    """Tensors of engine and learner are compared when a run starts or resumes, and after every k-th step."""
    max_mismatch: float
    """Mean log-probability difference between engine and learner above which the run stops."""
    max_drop_frac: float
    """Share of a step's groups that may be dropped for bad data."""
    max_failed_frac: float
    """Share of a step's completions whose reference or grader may fail; they are masked and counted."""
    recorded_groups_per_step: int
    """Groups a step whose completions are written to samples.jsonl."""

    @property
    def steps_ahead(self) -> int:
        """Steps that rollout runs ahead of the live weights."""
        return self.max_staleness if self.run_ahead is None else self.run_ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a run scores held-out data before and after."""

    samples_per_family: int
    completions_per_sample: int
    """Sampled at rollout.sampling.temperature, beside one greedy completion."""
    enabled: bool = True
    every_steps: int | None = None
    """Score held-out data during the run too, after every k-th step; null only before and after."""


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
class FaultsConfig:
    """How faults of processes and machines are noticed, and how many of them a run bears."""

    heartbeat_s: float
    """Between two heartbeats of an engine or a learner rank."""
    heartbeat_timeout_s: float
    """A process that does not answer a heartbeat for so long is taken for dead."""
    start_timeout_s: float
    """Time in which an engine must stand, or a learner must have loaded."""
    call_timeout_s: float
    """Time for one training step, weight transfer or checkpoint of the learner; longer is a hang."""
    window_s: float
    """Faults older than this no longer count against the limits."""
    max_engine_faults: int
    """Engines lost within the window, over all engines."""
    max_reward_faults: int
    max_learner_faults: int
    """Learners lost within the window; each costs the steps since the last checkpoint."""
    max_transfer_faults: int
    """Objects lost, and weight transfers that broke though every engine lives, within the window."""
    max_checkpoint_faults: int
    """Checkpoints that could not be written within the window; the ones before stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Ray and the machines under it."""

    address: str | None
    """Address of a running cluster; null starts Ray on this machine for the length of the run."""
    reward_pool: RewardPoolConfig
    faults: FaultsConfig
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
    check_pipeline(training)
    check_replacement(config)
    check_best(training, evaluation)
    check_folders(training)
    ranks = config.learner.num_ranks
    if training.groups_per_step % ranks:
        nearest = max(ranks, training.groups_per_step - training.groups_per_step % ranks)
        raise ConfigError(
            f"training.groups_per_step={training.groups_per_step} does not divide by learner.num_ranks={ranks}; "
            f"use {nearest} or {nearest + ranks}"
        )


def check_pipeline(training: TrainingConfig) -> None:
    """How far rollout runs ahead, who may be carried over, and how many prompts a step may use up."""
    if training.max_staleness < 0:
        raise ConfigError(f"training.max_staleness is {training.max_staleness}; use 0 (synchronous) or more")
    ahead = training.steps_ahead
    if not 0 <= ahead <= training.max_staleness:
        raise ConfigError(
            f"training.run_ahead is {ahead} and training.max_staleness {training.max_staleness}; use 0 to "
            f"{training.max_staleness}, or null for {training.max_staleness}"
        )
    if training.straggler_deadline_s is not None:
        if training.straggler_deadline_s < 0.0:
            raise ConfigError(
                f"training.straggler_deadline_s is {training.straggler_deadline_s}; use 0 or more, or null"
            )
        if ahead == training.max_staleness:
            raise ConfigError(
                f"training.straggler_deadline_s needs steps of staleness that rollout does not use up itself, and "
                f"run_ahead={ahead} takes all of max_staleness={training.max_staleness}; raise max_staleness or lower "
                "run_ahead"
            )
    if training.oversampling < 1.0:
        raise ConfigError(f"training.oversampling is {training.oversampling}; use 1 (off) or more, such as 2")


def check_replacement(config: ExperimentConfig) -> None:
    """What goes together with steps whose prompts are not known before their groups are there."""
    training = config.training
    if training.oversampling > 1.0 and config.algorithm.name == "reinforce_plus_plus":
        raise ConfigError(
            f"training.oversampling is {training.oversampling}, but reinforce_plus_plus compares completions across "
            "groups: a group of equal rewards has a signal there; set oversampling=1"
        )
    is_open = training.oversampling > 1.0 or training.straggler_deadline_s is not None
    if is_open and config.data.stream.curriculum.kind == "adaptive":
        raise ConfigError(
            "data.stream.curriculum.kind is adaptive, which follows fixed steps of prompts; set "
            "training.oversampling=1 and training.straggler_deadline_s=null, or another curriculum"
        )


def check_folders(training: TrainingConfig) -> None:
    """Folders that workers see under the same name, whatever folder they run in."""
    for key in ("checkpoint_dir", "staging_dir"):
        value = getattr(training, key)
        is_uri = key == "checkpoint_dir" and value is not None and "://" in value
        if value is not None and not is_uri and not Path(value).is_absolute():
            raise ConfigError(
                f"training.{key}={value} must be absolute: workers run in folders of their own; write it from the root"
            )


def check_best(training: TrainingConfig, evaluation: EvaluationConfig) -> None:
    """The best checkpoint is known only where checkpoints are scored."""
    every = evaluation.every_steps
    if every is not None and every < 1:
        raise ConfigError(f"evaluation.every_steps is {every}; use 1 or more, or null")
    if training.keep_best and (every is None or not evaluation.enabled or training.checkpoint_every % every):
        raise ConfigError(
            f"training.keep_best needs scores of every checkpoint: set evaluation.enabled=true and "
            f"evaluation.every_steps to a divisor of training.checkpoint_every={training.checkpoint_every}; got "
            f"enabled={evaluation.enabled}, every_steps={every}"
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
