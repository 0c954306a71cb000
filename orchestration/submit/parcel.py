"""Files of the user that go with a job, and the settings that name them there.

A job runs in a folder of its own with the project's packages. Beside them lie `own_code/<digest>/`, the code that the
settings name by file, and packages that they name by module and that are not installed; `--config` and `--config-dir`
lie in `settings/`. Settings that name such files are rewritten to where they lie in that folder.
"""

import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from conf.own_code import check_own, digest_of, files_of, root_of
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.files import Arguments, as_written
from orchestration.settings.own_code import own_code, with_own_code

PACKAGES = ("conf", "learner", "orchestration", "rewards", "rollout")
"""Listing what is shipped is safer than listing what is not: data, runs, .env and .git never leave the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is shipped beside the packages."""

    files: Mapping[str, Path]
    """Files here, by their path in the folder of the job."""
    arguments: tuple[str, ...]
    """Options and settings for the job, which name them there."""


def pack(config: ExperimentConfig, given: Arguments) -> Parcel:
    """Return the user's files that the settings need, and the arguments with their places in the job's folder.

    Args:
        config: with paths as they were written; relative ones of code count from the working folder.
        given: from which they were composed.

    Raises:
        OwnCodeError: code is not there.
    """
    if not config.submit.ship_code:
        _check_absolute(config)
        return Parcel(files={}, arguments=given.written())
    files: dict[str, Path] = {}
    changed: set[str] = set()

    def packed(key: str, text: str) -> str:
        check_own(key, text)
        place, _, name = text.rpartition(":")
        root, is_file = root_of(key, text), place.endswith(".py")
        if not is_file and _is_on_the_machines(root, place):
            return text
        folder = PurePosixPath("own_code", digest_of(key, text)) if is_file else PurePosixPath()
        files.update({str(folder / path.relative_to(root).as_posix()): path for path in files_of(key, text)})
        if not is_file:
            return text
        changed.add(key.partition("[")[0])
        return f"{folder / PurePosixPath(place).name}:{name}"

    moved = with_own_code(config, packed)
    rewritten = [f"++{key}={as_written(_value(moved, key))}" for key in sorted(changed)]
    there = replace(given, overrides=(*given.overrides, *rewritten))
    if given.config is not None:
        there = replace(there, config=Path("settings", given.config.name))
        files[str(there.config)] = given.config
    if given.config_dir is not None:
        there = replace(there, config_dir=Path("settings", "groups"))
        for path in sorted(given.config_dir.rglob("*.yaml")):
            files[str(Path("settings", "groups", path.relative_to(given.config_dir)))] = path
    return Parcel(files=files, arguments=there.written())


def _check_absolute(config: ExperimentConfig) -> None:
    for key, text in own_code(config).items():
        place = text.rpartition(":")[0]
        if place.endswith(".py") and not place.startswith("/"):
            raise ConfigError(
                f"{key}={text} is relative, and submit.ship_code=false sends no code along; write the file from the "
                "root, on storage that all machines share, or set submit.ship_code=true"
            )


def _is_on_the_machines(root: Path, module: str) -> bool:
    """Return whether a module is installed, as on the cluster's machines, or goes with our packages anyway."""
    installed = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
    return module.partition(".")[0] in PACKAGES or any(root.is_relative_to(place) for place in installed)


def _value(config: object, key: str) -> object:
    """Return the value of a setting, by its dotted key."""
    found: object = config
    for part in key.split("."):
        found = found[part] if isinstance(found, Mapping) else getattr(found, part)
    return found
