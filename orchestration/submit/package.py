"""The code that goes with a job: the project's own packages and nothing else of the folder that they lie in."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestration.settings.errors import ConfigError
from orchestration.storage.commit import COMMIT_FILE, project_commit

PACKAGES = ("conf", "learner", "orchestration", "rewards", "rollout")
"""Naming what goes is safer than naming what stays: data, runs, .env and .git never leave the machine."""
LEFT_OUT = ("__pycache__", "*.py[co]", ".*")
MIB = 2**20


def source_folder() -> Path:
    """Give the folder that this process imports the packages from: a checkout, or the site-packages of a wheel."""
    return Path(__file__).parents[2]


def stage_code(source: Path, target: Path, *, max_mib: float) -> Path:
    """Copy the packages into a folder that Ray can take as a job's `working_dir`.

    Args:
        source: Holds the packages.
        target: Made here.
        max_mib: Above this size nothing is copied.

    Raises:
        ConfigError: It is too large; the largest files are named.
    """
    sizes = {path: path.stat().st_size for package in PACKAGES for path in shipped_files(source / package)}
    total = sum(sizes.values()) / MIB
    if total > max_mib:
        largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:3]
        names = ", ".join(f"{path.relative_to(source)} ({sizes[path] / MIB:.1f} MiB)" for path in largest)
        raise ConfigError(
            f"the code to ship has {total:.1f} MiB and submit.max_package_mib is {max_mib:g}; move data out of the "
            f"packages (largest: {names}), or raise it: Ray takes up to 512 and copies them to every node"
        )
    for package in PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if source == source_folder() and (commit := project_commit()) is not None:
        (target / COMMIT_FILE.relative_to(source_folder())).write_text(f"{commit}\n")
    return target


def shipped_files(folder: Path) -> Iterator[Path]:
    """Give every file below a package that goes with a job."""
    leave_out = shutil.ignore_patterns(*LEFT_OUT)
    for path in sorted(folder.iterdir()):
        if path.name in leave_out(str(folder), [path.name]):
            continue
        if path.is_dir():
            yield from shipped_files(path)
        else:
            yield path
