"""Trackers of a run: the settings of each, and whether those that are named can be used on this machine."""

import importlib.util
import inspect
import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, MinLen

from conf.own_code import OwnCodeError, is_own, load_own
from conf.ranges import nearest
from orchestration.settings.errors import ConfigError

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
"""Tracker -> the package that it needs."""
METHODS = ("log_metrics", "log_held_out", "log_samples", "rewind", "log_outcome", "close")
"""What a tracker of one's own must have; `orchestration.train.trackers.Tracker` has them all."""
WANDB_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
"""Environment variables of which one lets W&B in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbConfig:
    """Weights & Biases; its key comes from the environment, WANDB_API_KEY."""

    mode: Literal["online", "offline"] = "online"
    """offline writes to run_dir/wandb without a network; `wandb sync run_dir/wandb/offline-run-*` uploads it later."""
    entity: Annotated[str, MinLen(1)] | None = None
    """User or team; null is the default of the key."""
    address: Annotated[str, MinLen(1)] | None = None
    """Of a server of your own; null reads WANDB_BASE_URL, or takes the public one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowConfig:
    """MLflow; credentials come from the environment, MLFLOW_TRACKING_TOKEN and the like."""

    address: Annotated[str, MinLen(1)] | None = None
    """Tracking URI: http(s)://HOST, or the absolute path of a folder; null reads MLFLOW_TRACKING_URI, or takes the
    folder run_dir/mlruns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackioConfig:
    """Trackio; tokens come from the environment, HF_TOKEN or TRACKIO_WRITE_TOKEN."""

    address: Annotated[str, MinLen(1)] | None = None
    """A Space of the Hugging Face hub, USER/NAME, or http(s)://HOST of a server of your own; null reads Trackio's own
    variables, or writes to the folder of this machine in which `trackio show` looks."""
    private: bool = True
    """Whether a Space that does not exist yet is made as a private one."""

    def __post_init__(self) -> None:
        if self.address is not None and "write_token" in self.address:
            raise ConfigError("tracking.trackio.address holds a write token; set TRACKIO_WRITE_TOKEN instead")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """Options of the trackers that `trackers` names."""

    project: Annotated[str, MinLen(1)] = "mixed-r1"
    """Project of W&B and Trackio, experiment of MLflow."""
    name: Annotated[str, MinLen(1)] | None = None
    """What the run is called there; null is the name of run_dir."""
    samples_per_step: Annotated[int, Ge(0), Le(1000)] = 16
    """Completions in the table of a step, of the groups that go to samples.jsonl; 0 for no table."""
    max_waiting: Annotated[int, Ge(1)] = 256
    """Records that wait for a slow tracker; what comes when so many wait is dropped for this tracker, and counted."""
    close_timeout_s: Annotated[float, Gt(0), Le(3600)] = 60.0
    """Time that all trackers have at the end of the run for what still waits; and W&B to begin."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    mlflow: MlflowConfig = field(default_factory=MlflowConfig)
    trackio: TrackioConfig = field(default_factory=TrackioConfig)
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Of trackers of your own: name of the class -> keyword arguments, such as {CsvTracker: {column: reward/mean}}."""


def tracker_faults(trackers: Sequence[str], config: TrackingConfig) -> list[str]:
    """Return what is wrong with the names of trackers, whatever is installed on this machine.

    Example:
        >>> tracker_faults(["wandbb"], TrackingConfig())[0].partition(";")[0]
        'trackers names wandbb, which is no tracker'
    """
    faults = []
    for name in trackers:
        if not is_own(name) and name not in PACKAGES:
            near = nearest(name, PACKAGES)
            hint = f"did you mean {near}?" if near else f"use {', '.join(PACKAGES)}, or FILE.py:NAME"
            faults.append(f"trackers names {name}, which is no tracker; {hint}")
    if twice := sorted({name for name in trackers if trackers.count(name) > 1}):
        faults.append(f"trackers names {', '.join(twice)} twice; name each once")
    own = {name.rpartition(":")[2] for name in trackers if is_own(name)}
    for name in config.options:
        if name not in own:
            faults.append(
                f"tracking.options.{name} belongs to no tracker; add FILE.py:{name} to trackers, or remove the "
                f"options: ~tracking.options.{name}"
            )
    return faults


def missing_packages(trackers: Sequence[str], config: TrackingConfig) -> list[str]:
    """Return what is wrong with trackers here: a package not installed, code not loadable, options it does not take.

    Args:
        trackers: those of the run.
        config: their options.
    """
    faults = []
    for name in trackers:
        if is_own(name):
            faults.extend(_own_faults(name, config.options.get(name.rpartition(":")[2], {})))
        elif name in PACKAGES and not _is_installed(PACKAGES[name]):
            extra = "train" if name == "tensorboard" else name
            faults.append(
                f"trackers names {name}, which is not installed; pip install '.[{extra}]' in the checkout, or leave it "
                "out"
            )
    return faults


def missing_key(trackers: Sequence[str], config: TrackingConfig, environment: Mapping[str, str] = os.environ) -> str:
    """Return that no key lets W&B in, which would ask for one on the terminal; empty where it is not needed or there.

    Args:
        trackers: those of the run.
        config: their options.
        environment: variables of this process.
    """
    if "wandb" not in trackers or config.wandb.mode == "offline" or any(environment.get(key) for key in WANDB_KEYS):
        return ""
    address = config.wandb.address or environment.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    try:
        file = environment.get("NETRC") or os.path.expanduser("~/.netrc")
        if netrc.netrc(file).authenticators(urlsplit(address).hostname or ""):
            return ""
    except (OSError, netrc.NetrcParseError):
        pass  # there is no such file, or none that W&B can read
    return (
        f"trackers names wandb, and there is no key for {address}: set WANDB_API_KEY in the environment, or "
        "tracking.wandb.mode=offline"
    )


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name, such as W&B's own, has no origin


def _own_faults(name: str, options: Mapping[str, Any]) -> list[str]:
    try:
        found: Any = load_own("trackers", name)
    except OwnCodeError as error:
        return [str(error)]
    missing = [method for method in METHODS if not callable(getattr(found, method, None))]
    if missing or not callable(found):
        lacks = f"it has no {', '.join(missing)}" if missing else "it cannot be called"
        return [f"trackers={name} is no tracker: {lacks}; derive the class from orchestration.train.trackers.Tracker"]
    try:
        inspect.signature(found).bind(None, **options)
    except TypeError as error:
        given = ", ".join(options) or "none"
        return [
            f"trackers={name} cannot be called with options {given} (tracking.options.{name.rpartition(':')[2]}): "
            f"{error}; it is called as NAME(run, **options)"
        ]
    return []
