"""What is submitted: entry point, environment and name of a job, from settings alone; pure."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
"""Read by the process that Ray puts beside the driver; its default of 3 s is too short for a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that Ray is told of a run, but for its code and the number of the attempt."""

    name: str
    entrypoint: str
    """A line for the shell of the driver's machine."""
    environment: Mapping[str, str]
    metadata: Mapping[str, str]


def make_job(config: ExperimentConfig, overrides: Sequence[str], shell: Mapping[str, str]) -> Job:
    """Describe the job that trains as these settings say.

    Args:
        config: composed from `overrides`, with folders as they were written.
        overrides: what the user wrote; settings of `submit` itself stay behind.
        shell: environment of the submitting process.

    Raises:
        ConfigError: the run cannot be a job, or a variable to pass on is not set.
    """
    check_job(config)
    submit = config.submit
    kept = [override for override in overrides if not re.match(r"[+~]*submit[.=/]", override)]
    return Job(
        name=submit.name or default_name(config.run_dir),
        entrypoint=entrypoint(submit.python, kept, submit.require_environment),
        environment=_environment(submit, shell),
        metadata={"project": "mixed-r1", "run_dir": config.run_dir},
    )


def job_id(name: str, attempt: int) -> str:
    """Name one attempt.

    Example:
        >>> job_id("first-5b1c2d3e", 2)
        'first-5b1c2d3e-2'
    """
    return f"{name}-{attempt}"


def attempt_of(found: str, name: str) -> int | None:
    """Read the attempt out of a job's id; None if the job is not of this name.

    Example:
        >>> attempt_of("first-12", "first"), attempt_of("first-long-1", "first")
        (12, None)
    """
    match = re.fullmatch(re.escape(name) + r"-(\d+)", found)
    return int(match[1]) if match else None


def default_name(run_dir: str) -> str:
    """Derive a name from the run folder: the same folder gives the same name, and no other folder does.

    Example:
        >>> default_name("/shared/runs/first try")
        'first-try-7c134df8'
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", PurePosixPath(run_dir).name).strip("-_")
    digest = hashlib.blake2b(run_dir.encode(), digest_size=4).hexdigest()
    return f"{readable or 'run'}-{digest}"


def entrypoint(python: str, overrides: Sequence[str], required: Sequence[str]) -> str:
    """Write the command line of the driver.

    `exec` makes the shell become the driver, so that a signal's number arrives as the exit code. The console script
    is not there where the code was shipped, hence the module.

    Example:
        >>> entrypoint("python3", ["cluster=ray", "reward.format.weight=0.1"], [])
        'exec python3 -m orchestration.cli train cluster=ray reward.format.weight=0.1'
    """
    checks = "".join(
        f'[ -n "${{{name}:-}}" ] || {{ echo "mixed-r1: {name} is not set on $(hostname), and '
        f'submit.require_environment names it; set it where ray starts" >&2; exit 2; }}; '
        for name in required
    )
    return checks + shlex.join(["exec", python, "-m", "orchestration.cli", "train", *overrides])


def _environment(submit: SubmitConfig, shell: Mapping[str, str]) -> dict[str, str]:
    missing = [name for name in submit.pass_environment if name not in shell]
    if missing:
        raise ConfigError(
            f"submit.pass_environment names {', '.join(missing)}, not set in this shell; set it here, or on the "
            "cluster's machines and in submit.require_environment"
        )
    passed = {name: shell[name] for name in submit.pass_environment}
    return {**submit.environment, **passed, STOP_WAIT_VARIABLE: str(round(submit.stop_wait_s))}


def check_job(config: ExperimentConfig) -> None:
    """What a run must be so that a job of it finds its machines and its folders again.

    Raises:
        ConfigError: with the key and the remedy.
    """
    if config.cluster.address != "auto":
        raise ConfigError(
            f"cluster.address is {config.cluster.address or 'null'}; a job joins the cluster that runs it: add "
            "cluster=ray, or set cluster.address=auto"
        )
    folders = {
        "run_dir": config.run_dir,
        "cache_dir": config.cache_dir,
        "model.path": config.model.path,
        "data.train": config.data.train,
        "data.held_out": config.data.held_out,
    }
    for key, folder in folders.items():
        if folder is not None and not folder.startswith("/"):
            raise ConfigError(
                f"{key}={folder} is relative, and a job runs in a folder of its own that is deleted; write it from the "
                f"root, on storage that all machines share: {key}=/shared/{PurePosixPath(folder).name}"
            )
    parts = PurePosixPath(config.run_dir)
    if any(parts.is_relative_to(place) for place in TEMPORARY) and not config.submit.allow_temporary_run_dir:
        raise ConfigError(
            f"run_dir={config.run_dir} is on one machine and goes with it, so the next attempt would begin anew; use "
            "storage that all machines share, or set submit.allow_temporary_run_dir=true for a cluster of one machine"
        )
