"""All settings of a run as one frozen record, and the checks that need several groups of settings."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from conf.own_code import OwnCode, is_own
from conf.ranges import nearest
from learner.config import AlgorithmConfig, LearnerConfig
from orchestration.settings.cluster import ClusterConfig
from orchestration.settings.commands import CheckConfig, EvaluateConfig, PlanConfig, SubmitConfig
from orchestration.settings.demo import DemoSettings
from orchestration.settings.errors import ConfigError
from orchestration.settings.evaluation import EvaluationConfig, held_out_metrics
from orchestration.settings.model import NOT_SET, ModelConfig
from orchestration.settings.recipe import DataConfig
from orchestration.settings.strict import build
from orchestration.settings.tracking import TrackingConfig, tracker_faults
from rewards.core.config import DEFAULT_ROUTES, RewardConfig
from rewards.core.envelope import fill_instruction
from rollout.config import AdapterConfig, RolloutConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Steps, how far rollout runs ahead, checkpoints, and the limits at which a run stops."""

    num_steps: Annotated[int, Ge(1)]
    """Training steps in all; each takes algorithm.num_epochs * num_minibatches optimiser updates."""
    groups_per_step: Annotated[int, Ge(1), Le(100_000)]
    """Prompts a step; each gives group_size completions."""
    max_staleness: Annotated[int, Ge(0)]
    """0: rollout and training take turns. k: a step trains on nothing begun more than k steps before it."""
    run_ahead: Annotated[int, Ge(0)] | None
    """Steps that rollout may run ahead of the live weights; null is max_staleness. The rest of max_staleness
    is how often a straggler may be carried over."""
    straggler_deadline_s: Annotated[float, Ge(0), Le(10**9)] | None
    """Time a step waits for its own groups; then any others that are done fill it, and the missing ones are carried
    over to the next step. null waits for all."""
    oversampling: Annotated[float, Ge(1), Le(1000)]
    """Prompts that a step may use up, in units of groups_per_step, so that groups whose completions all earned the same
    are replaced by others; with algorithm.normalise=parts, groups in which no part of the reward differs. 1 takes
    them as they come."""
    filter: Annotated[str, OwnCode(), MinLen(1)] | None = None
    """FILE.py:NAME of a function keep(group) of your own: a group for which it returns False is not trained on, and
    another takes its place as far as oversampling allows. null trains on all."""
    checkpoint_every: Annotated[int, Ge(1)]
    checkpoint_dir: Annotated[str, "path", MinLen(1)] | None
    """Absolute path, or a URI of object storage (s3://bucket/folder), where checkpoints are kept; null is
    run_dir/checkpoints."""
    staging_dir: Annotated[str, "path", MinLen(1)] | None
    """Absolute path on fast local disk, where a checkpoint is staged; it is copied to checkpoint_dir while training
    continues. null is the system's temporary directory. It must hold the shares of all ranks of a machine."""
    keep_last: Annotated[int, Ge(1)]
    """Newest complete checkpoints that stay."""
    keep_best: bool | Annotated[str, MinLen(1)]
    """Keep the best checkpoint by macro mean and of each reward function too; needs evaluation.every_steps. A held-out
    metric, such as held_out/set/charts/mean/greedy, keeps the best by that alone; needs every_steps of its set."""
    time_limit_s: Annotated[float, Gt(0), Le(10**9)] | None
    """Length of the allocation, from the start of the job; null reads SLURM_JOB_END_TIME where there is one."""
    checkpoint_before_s: Annotated[float, Ge(0), Le(10**9)]
    """How long before the end of the allocation the run saves a checkpoint and ends."""
    weight_check_every: Annotated[int, Ge(1)]
    """Tensors of engine and learner are compared when a run starts or resumes, and after every k-th step."""
    max_mismatch: Annotated[float, Gt(0)]
    """Mean log-probability difference between engine and learner on the same weights and one completion of each step;
    above it in three steps in a row, the run stops."""
    max_drop_frac: Annotated[float, Ge(0), Le(1)]
    """Share of a step's groups that may be dropped for bad data."""
    max_failed_frac: Annotated[float, Ge(0), Le(1)]
    """Share of a step's completions whose reference or grader may fail; they are masked and counted."""
    recorded_groups_per_step: Annotated[int, Ge(0)]
    """Groups a step whose completions are written to samples.jsonl."""
    push_to: Annotated[str, "path", MinLen(1)] | None = None
    """Where the export is copied besides, when the run has ended: an absolute folder, a URI of object storage
    (s3://bucket/folder), or hf://ORG/NAME, a repository of the Hugging Face Hub. Where that fails the run still ends
    well, with its export in run_dir, and the same command tries again."""

    @property
    def steps_ahead(self) -> int:
        """Steps that rollout runs ahead of the live weights."""
        return self.max_staleness if self.run_ahead is None else self.run_ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """Everything one run needs."""

    run_dir: Annotated[str, "path", MinLen(1)]
    """Folder of the run: settings, metrics, checkpoints, the trained model and its report."""
    cache_dir: Annotated[str, "path", MinLen(1)]
    """Where the demo keeps what it made, so that the second run starts at once."""
    seed: Annotated[int, Ge(0)]
    trackers: tuple[Annotated[str, OwnCode(), MinLen(1)], ...]
    """Where metrics, held-out scores and samples go beside the files of run_dir: tensorboard, wandb, mlflow, trackio,
    or a class of your own, FILE.py:NAME; any number of them."""
    allow_config_change: bool
    """Continue a run folder although settings that shape the result differ from those it began with."""
    model: ModelConfig
    data: DataConfig
    demo: DemoSettings
    reward: RewardConfig
    rollout: RolloutConfig
    training: TrainingConfig
    algorithm: AlgorithmConfig
    """After those from which conf takes some of its values, so that a value out of range is named where it was set."""
    learner: LearnerConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    """Options of the trackers."""
    evaluate: EvaluateConfig
    """Read by `mixed-r1 evaluate` alone."""
    check: CheckConfig
    """Read by `mixed-r1 check` alone."""
    cluster: ClusterConfig
    plan: PlanConfig
    """Read by `mixed-r1 plan`, by which `mixed-r1 train` refuses what cannot fit."""
    submit: SubmitConfig
    """Read by `mixed-r1 submit` alone."""

    @property
    def run_path(self) -> Path:
        """The run folder."""
        return Path(self.run_dir)


def build_settings(values: dict[str, Any]) -> ExperimentConfig:
    """Build the record without the checks between groups of settings or of this machine.

    The system prompt is complete from here on: `{format}` in it is replaced by what `reward.format` asks for.
    """
    config = build(ExperimentConfig, values)
    rollout = config.rollout
    prompt = fill_instruction(rollout.system_prompt, config.reward.format)
    return replace(config, rollout=replace(rollout, system_prompt=prompt))


def settings_errors(config: ExperimentConfig, *, is_for_training: bool = True) -> Iterator[ConfigError]:
    """Yield the errors of the checks that need several groups of settings, one per check."""
    for_training = (check_sampling, check_gpu_shares, check_held_out)
    for check in (*SETTINGS_CHECKS, *for_training) if is_for_training else SETTINGS_CHECKS:
        try:
            check(config)
        except ConfigError as error:
            yield error


def check_pipeline(config: ExperimentConfig) -> None:
    """Check how far rollout runs ahead, and whether stragglers may be carried over."""
    training = config.training
    ahead = training.steps_ahead
    if ahead > training.max_staleness:
        raise ConfigError(
            f"training.run_ahead is {ahead} and training.max_staleness {training.max_staleness}; use 0 to "
            f"{training.max_staleness}, or null for {training.max_staleness}"
        )
    if training.straggler_deadline_s is not None and ahead == training.max_staleness:
        raise ConfigError(
            f"training.straggler_deadline_s needs steps of staleness that rollout does not use up itself, and "
            f"run_ahead={ahead} takes all of max_staleness={training.max_staleness}; raise max_staleness or lower "
            "run_ahead"
        )


def check_demo(config: ExperimentConfig) -> None:
    """Refuse pictures of the demo for a tiny model that takes none."""
    tiny = config.model.tiny
    if config.model.path is None and tiny is not None and tiny.hf_processor is None and not config.demo.in_words:
        raise ConfigError("demo.in_words is false, and model.tiny takes no pictures; set demo=in_words")


def check_folders(config: ExperimentConfig) -> None:
    """Check that folders are absolute: workers run in folders of their own."""
    for key in ("checkpoint_dir", "staging_dir"):
        value = getattr(config.training, key)
        is_uri = key == "checkpoint_dir" and value is not None and "://" in value
        if value is not None and not is_uri and not Path(value).is_absolute():
            raise ConfigError(
                f"training.{key}={value} must be absolute: workers run in folders of their own; write it from the root"
            )


def check_best(config: ExperimentConfig) -> None:
    """Check that the metric of the best checkpoint exists, and that every checkpoint is scored by it."""
    training, evaluation, best = config.training, config.evaluation, config.training.keep_best
    if best is False:
        return
    key, every = "evaluation", evaluation.every_steps
    if isinstance(best, str):
        metrics = held_out_metrics(config.reward, evaluation)
        if best not in metrics:
            near = nearest(best, metrics)
            known = f"did you mean {near}?" if near else f"use true, or one of {', '.join(metrics)}"
            raise ConfigError(f"training.keep_best is {best!r}, no held-out metric of this run; {known}")
        if (name := metrics[best].set_name) is not None:
            key, every = f"evaluation.sets.{name}", evaluation.sets[name].every_steps
    if every is None or not evaluation.enabled or training.checkpoint_every % every:
        raise ConfigError(
            f"training.keep_best needs scores of every checkpoint: set evaluation.enabled=true and "
            f"{key}.every_steps to a divisor of training.checkpoint_every={training.checkpoint_every}; got "
            f"enabled={evaluation.enabled}, every_steps={every}"
        )


def check_division(config: ExperimentConfig) -> None:
    """Check that the groups of a step divide by the learner ranks."""
    training, ranks = config.training, config.learner.num_ranks
    if training.groups_per_step % ranks:
        nearest = max(ranks, training.groups_per_step - training.groups_per_step % ranks)
        raise ConfigError(
            f"training.groups_per_step={training.groups_per_step} does not divide by learner.num_ranks={ranks}; "
            f"use {nearest} or {nearest + ranks}"
        )


def check_replacement(config: ExperimentConfig) -> None:
    """Check what does not work where outcomes decide which prompts a step trains on."""
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


def check_tasks(config: ExperimentConfig) -> None:
    """Check that tasks to train on, and those with settings of their own, are tasks that a reward scores."""
    known = {*config.reward.routes, *(rule.task for rule in config.reward.rules if rule.task)}
    named = {
        "data.stream.tasks": config.data.stream.tasks,
        "algorithm.tasks": tuple(config.algorithm.tasks),
        "rollout.sampling.tasks": tuple(config.rollout.sampling.tasks),
        "rollout.task_prompts": tuple(task for task in config.rollout.task_prompts if task not in DEFAULT_ROUTES),
    }
    for key, tasks in named.items():
        for task in tasks:
            if task not in known:
                raise ConfigError(
                    f"{key} names {task}, which no reward scores; tasks are {', '.join(sorted(known))} (reward.routes)"
                )


def check_judges(config: ExperimentConfig) -> None:
    """Check that what is reserved for judges belongs to judges whose servers the run starts."""
    for name in config.cluster.judges:
        judge = config.reward.judges.get(name)
        if judge is None or not judge.needs_server:
            why = "has an address, so no server is started for it" if judge is not None else "is no judge"
            starts = [other for other, each in config.reward.judges.items() if each.needs_server]
            raise ConfigError(
                f"cluster.judges.{name}: {name} of reward.judges {why}; judges without an address are "
                f"{', '.join(starts) or 'none'}"
            )
    for name in config.reward.judges_in_use():
        judge = config.reward.judges[name]
        if judge.needs_server and not Path(judge.model).is_absolute():
            raise ConfigError(
                f"reward.judges.{name}.model={judge.model} must be absolute where the run starts the server: workers "
                "run in folders of their own; write it from the root, or give an address"
            )
        if judge.needs_server and not Path(judge.model, "config.json").is_file():
            raise ConfigError(
                f"reward.judges.{name}.model={judge.model} is no Hugging Face folder (no config.json); correct the "
                "path, or give the address of a server that knows a model of this name"
            )


def check_recipe(config: ExperimentConfig) -> None:
    """Check that quotas and bands of a recipe are those of reward functions."""
    if config.data.recipe is None:
        return
    functions = dict.fromkeys((*config.reward.function_names, *(r.function for r in config.reward.every_route())))
    for key in ("quotas", "bands"):
        for name in getattr(config.data.recipe.select, key):
            if name not in functions:
                raise ConfigError(f"data.recipe.select.{key} names {name}; reward functions are {', '.join(functions)}")


def check_trackers(config: ExperimentConfig) -> None:
    """Check that every tracker is one of ours or names code, and that options belong to one."""
    if faults := tracker_faults(config.trackers, config.tracking):
        raise ConfigError("; ".join(faults))


def check_sampling(config: ExperimentConfig) -> None:
    """Check that completions are sampled from a distribution whose logprobs the learner can compute."""
    sampling = config.rollout.sampling
    for key, value in {"top_p": 1.0, "top_k": 0, "min_p": 0.0}.items():
        if (given := getattr(sampling, key)) != value:
            raise ConfigError(
                f"rollout.sampling.{key} is {given}; the learner computes logprobs over the whole vocabulary, so "
                f"training needs rollout.sampling.{key}={value}; held-out completions have evaluation.{key}"
            )
    if sampling.stop:
        raise ConfigError(
            f"rollout.sampling.stop is {list(sampling.stop)}; a completion that trains ends with the model's own "
            "end-of-turn token, so training needs rollout.sampling.stop=[]; held-out completions have evaluation.stop"
        )
    if config.algorithm.task_temperatures or config.algorithm.task_max_completion_tokens:
        raise ConfigError(
            "algorithm.task_temperatures and algorithm.task_max_completion_tokens are set by the run; set "
            "rollout.sampling.tasks alone"
        )
    if sampling.temperature != config.algorithm.temperature:
        raise ConfigError(
            f"algorithm.temperature is {config.algorithm.temperature} and rollout.sampling.temperature "
            f"{sampling.temperature}; engines and learner need one temperature: set rollout.sampling.temperature alone"
        )


def check_layout(config: ExperimentConfig) -> None:
    """Check the weight channel of the layout, and what engines and learner ranks on the same GPUs require."""
    engine, learner, channel = config.rollout.engine, config.learner, config.rollout.weight_channel.backend
    if config.cluster.layout == "disaggregated":
        if channel == "ipc":
            raise ConfigError(
                "rollout.weight_channel.backend is ipc, which reaches an engine on the learner rank's own GPU alone; "
                "set nccl, or cluster.layout=colocated"
            )
        return
    if config.training.max_staleness != 0:
        raise ConfigError(
            f"training.max_staleness is {config.training.max_staleness} with cluster.layout=colocated, where engines "
            "sleep while the learner trains; set training.max_staleness=0, or cluster.layout=disaggregated"
        )
    if engine.device != learner.device:
        raise ConfigError(
            f"rollout.engine.device={engine.device} and learner.device={learner.device} with cluster.layout=colocated: "
            "both sides take turns on the same devices; set both alike, or cluster.layout=disaggregated"
        )
    wanted = "ipc" if engine.device == "cuda" else "gloo"
    if channel != wanted:
        reason = "; NCCL cannot have two ranks on one GPU" if channel == "nccl" else ""
        raise ConfigError(
            f"rollout.weight_channel.backend is {channel} with cluster.layout=colocated and "
            f"rollout.engine.device={engine.device}{reason}; set {wanted}"
        )
    if config.rollout.most_engines > config.rollout.engines:
        raise ConfigError(
            f"rollout.max_engines is {config.rollout.max_engines} with cluster.layout=colocated, where engines run "
            "on the learner's GPUs; set it to null, or cluster.layout=disaggregated"
        )
    num_workers = config.rollout.engines * engine.tensor_parallel_size
    if engine.device == "cuda" and num_workers != learner.num_ranks:
        raise ConfigError(
            f"cluster.layout is colocated, where every GPU holds an engine's worker and a learner rank, but "
            f"rollout.engines={config.rollout.engines} x rollout.engine.tensor_parallel_size="
            f"{engine.tensor_parallel_size} is {num_workers} and learner.num_ranks is {learner.num_ranks}; "
            f"set learner.num_ranks={num_workers}"
        )


def adapter_of(learner: LearnerConfig) -> AdapterConfig | None:
    """Return the adapter that engines add to the model; None where they are sent whole weights."""
    lora = learner.lora
    if lora is None or lora.publish == "merged":
        return None
    return AdapterConfig(rank=lora.rank, target_modules=lora.target_modules)


def check_publication(config: ExperimentConfig) -> None:
    """Check that engines can add an adapter to the model that they have read themselves.

    Raises:
        ConfigError: they let go of the model, or hold it in another type than the learner.
        RolloutError: vLLM has no buffers of its rank.
    """
    engine, learner = config.rollout.engine, config.learner
    if adapter_of(learner) is None:
        return
    remedy = "or learner.lora.publish=merged"
    if config.rollout.weight_channel.backend == "ipc":
        raise ConfigError(
            "learner.lora.publish is adapter with cluster.layout=colocated, where engines let go of all weights when "
            f"they sleep; set cluster.layout=disaggregated, {remedy}"
        )
    if (engine.dtype, learner.dtype) == ("float32", "bfloat16"):
        raise ConfigError(
            "rollout.engine.dtype is float32 and learner.dtype bfloat16 with learner.lora.publish=adapter: engines "
            f"read weights that the learner rounds, so both would differ; set rollout.engine.dtype=bfloat16, {remedy}"
        )


def check_gpu_shares(config: ExperimentConfig) -> None:
    """Check that ranks which train together, or transfer weights by NCCL, have a GPU each."""
    cluster, channel = config.cluster, config.rollout.weight_channel.backend
    uses_channel = "rollout.weight_channel.backend=nccl" if channel == "nccl" else None
    trains_together = f"learner.num_ranks={config.learner.num_ranks}" if config.learner.num_ranks > 1 else None
    other = ", or cluster.layout=colocated, where an engine and a rank take turns on a GPU"
    for key, share, device, reason in (
        ("gpus_per_engine_worker", cluster.gpus_per_engine_worker, config.rollout.engine.device, uses_channel),
        (
            "gpus_per_learner_rank",
            cluster.gpus_per_learner_rank,
            config.learner.device,
            uses_channel or trains_together,
        ),
    ):
        if share < 1 and device == "cuda" and reason is not None:
            raise ConfigError(
                f"cluster.{key} is {share:g} with {reason}: NCCL cannot have two ranks on one GPU; set it to 1"
                f"{other if cluster.layout == 'disaggregated' else ''}"
            )


def check_held_out(config: ExperimentConfig) -> None:
    """Check that a recipe that the run builds has a source to score the run on."""
    recipe = config.data.recipe
    if config.data.train is not None or recipe is None:
        return
    if not any(source.role == "held_out" or source.held_out_share for source in recipe.sources.values()):
        raise ConfigError(
            f"data.recipe.sources of {recipe.name} has no source of role held_out, and a run is scored on such rows "
            "before and after; give one of its sources role: held_out, hold out rows of one with held_out_share: 0.02, "
            "or build it and set data.train and data.held_out"
        )


SETTINGS_CHECKS: tuple[Callable[[ExperimentConfig], None], ...] = (
    check_pipeline,
    check_demo,
    check_replacement,
    check_best,
    check_folders,
    check_layout,
    check_publication,
    check_division,
    check_tasks,
    check_judges,
    check_recipe,
    check_trackers,
)
"""Checks that need no machine, only the settings."""


POINT_IT = "point it at a file or folder of rows (mixed-r1 data look PATH), or at a dataset of mixed-r1 data build"


def check_inputs_named(config: ExperimentConfig, *, is_build: bool = False) -> None:
    """Refuse settings that leave out what only the user can name: model, data, raw files; all of it in one line.

    Args:
        config: of a run, or of a build.
        is_build: whether data.recipe is built, whatever data.train says.
    """
    data = config.data
    missing: list[str] = []
    recipe = data.recipe if is_build or data.train is None else None
    raw = [source for source in recipe.sources.values() if source.adapter != "drawn"] if recipe is not None else []
    for key, value in {"data.train": data.train, "data.held_out": data.held_out}.items():
        if value == NOT_SET and not is_build:
            missing.append(f"{key} is not set; {POINT_IT}")
    has_root = recipe is None or recipe.raw not in (None, NOT_SET)
    lying_in_raw = [source for source in raw if source.path is not None or not is_own(source.adapter)]
    if not has_root and not all(Path(source.path or "").is_absolute() for source in lying_in_raw):
        missing.append("data.recipe.raw is not set; point it at the folder of the raw downloads")
    if config.model.folder is None and (config.model.tiny is None or raw):
        why = " that will be trained: its processor measures the prompts" if raw else "'s weights"
        missing.append(f"model.path is not set; point it at a Hugging Face folder with the model{why}")
    if missing:
        raise ConfigError("; ".join(missing))


def check_writable(key: str, folder: Path) -> None:
    """Raise ConfigError where a folder can be neither written nor made; everything is left as it was."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        # A nameless file, or a folder that is gone at once: some file systems refuse new names to everybody.
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={folder} cannot be written ({os.strerror(error.errno or 0)})") from error
