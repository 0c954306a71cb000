"""What is submitted: entry point, environment, name and code of a job."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from orchestration.inputs.hub import KINDS, hub_name
from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.files import read_arguments
from orchestration.storage.commit import COMMIT_FILE, project_commit
from orchestration.submit.parcel import PACKAGES, pack

TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
"""Read by the process that Ray puts beside the driver; its default of 3 s is too short for a checkpoint."""
LEFT_OUT = ("__pycache__", "*.py[co]", ".*")
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What Ray gets of a run, without its code and the number of the attempt."""

    name: str
    entrypoint: str
    """A line for the shell of the driver's machine."""
    environment: Mapping[str, str]
    metadata: Mapping[str, str]
    files: Mapping[str, Path]
    """The user's own, by their path in the folder of the job; sent beside the packages."""


def make_job(config: ExperimentConfig, overrides: Sequence[str], shell: Mapping[str, str]) -> Job:
    """Describe the job that trains as these settings say.

    Args:
        config: composed from `overrides`, with folders as they were written.
        overrides: what the user wrote, options included; settings of `submit` itself are left out.
        shell: environment of the submitting process.

    Raises:
        ConfigError: the run cannot be a job, or a variable to pass on is not set.
    """
    check_job(config)
    submit = config.submit
    parcel = pack(config, read_arguments(overrides))
    kept = [argument for argument in parcel.arguments if not re.match(r"[+~]*submit[.=/]", argument)]
    return Job(
        name=submit.name or default_name(config.run_dir),
        entrypoint=entrypoint(submit.python, kept, submit.require_environment),
        environment=_environment(submit, shell),
        metadata={"project": "mixed-r1", "run_dir": config.run_dir},
        files=parcel.files,
    )


def job_id(name: str, attempt: int) -> str:
    """Return the id of one attempt.

    Example:
        >>> job_id("first-5b1c2d3e", 2)
        'first-5b1c2d3e-2'
    """
    return f"{name}-{attempt}"


def attempt_of(found: str, name: str) -> int | None:
    """Return the attempt that a job's id names; None if the job is not of this name.

    Example:
        >>> attempt_of("first-12", "first"), attempt_of("first-long-1", "first")
        (12, None)
    """
    match = re.fullmatch(re.escape(name) + r"-(\d+)", found)
    return int(match[1]) if match else None


def default_name(run_dir: str) -> str:
    """Return a name for a run folder; no other folder has the same.

    Example:
        >>> default_name("/shared/runs/first try")
        'first-try-7c134df8'
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", PurePosixPath(run_dir).name).strip("-_")
    digest = hashlib.blake2b(run_dir.encode(), digest_size=4).hexdigest()
    return f"{readable or 'run'}-{digest}"


def entrypoint(python: str, overrides: Sequence[str], required: Sequence[str]) -> str:
    """Return the command line of the driver.

    `exec` replaces the shell by the driver, so that a signal's number arrives as the exit code. The console script
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
    """Check that a job of the run finds its cluster, and its folders on every machine.

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
        "learner.lora.start": config.learner.lora.start if config.learner.lora else None,
        **{f"evaluation.sets.{name}.path": held_out.path for name, held_out in config.evaluation.sets.items()},
    }
    for key, folder in folders.items():
        if folder is not None and not folder.startswith("/") and not (key in KINDS and hub_name(folder)):
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


def source_folder() -> Path:
    """Return the folder that this process imports the packages from: a checkout, or the site-packages of a wheel."""
    return Path(__file__).parents[2]


def stage_code(source: Path, target: Path, *, max_mib: float, files: Mapping[str, Path] = MappingProxyType({})) -> Path:
    """Copy the packages, and the user's own files, into a folder that Ray can take as a job's `working_dir`.

    Above `max_mib` nothing is copied.

    Raises:
        ConfigError: It is too large; the largest files are named.
    """
    names = {path: str(path.relative_to(source)) for package in PACKAGES for path in shipped_files(source / package)}
    names |= {path: str(path) for path in files.values()}
    sizes = {path: path.stat().st_size for path in names}
    total = sum(sizes.values()) / MIB
    if total > max_mib:
        largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:3]
        shown = ", ".join(f"{names[path]} ({sizes[path] / MIB:.1f} MiB)" for path in largest)
        raise ConfigError(
            f"the code to ship has {total:.1f} MiB and submit.max_package_mib is {max_mib:g}; move data out of the "
            f"packages (largest: {shown}), or raise it: Ray takes up to 512 and copies them to every node"
        )
    for package in PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name, path in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    if source == source_folder() and (commit := project_commit()) is not None:
        (target / COMMIT_FILE.relative_to(source_folder())).write_text(f"{commit}\n")
    return target


def shipped_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a package that goes with a job."""
    leave_out = shutil.ignore_patterns(*LEFT_OUT)
    for path in sorted(folder.iterdir()):
        if path.name in leave_out(str(folder), [path.name]):
            continue
        if path.is_dir():
            yield from shipped_files(path)
        else:
            yield path
