"""What a run folder keeps of the user's own code: a digest of every file, by which a resumed run compares, and copies.

    own_code.json           by setting: the code as it was named, its digest, and those of its files
    own_code/<digest>/      the files; actors load these, so that an edit reaches no run that has begun

An accepted change adds a folder; the code of earlier steps stays.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf.own_code import digest_of, files_of, root_of
from orchestration.settings.errors import ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.own_code import Change, own_code
from orchestration.storage.files import write_json, writing


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRecord:
    """The code that one setting names."""

    code: str
    """`FILE.py:NAME` or `MODULE:NAME`."""
    digest: str
    """Of all files and the name; it does not depend on where they lie."""
    files: Mapping[str, str]
    """Digest of each file, by its path below the folder from which the code imports; its own first."""

    @property
    def copy(self) -> str:
        """The code in the folder of copies: `<digest>/FILE.py:NAME`; a module's name as it is."""
        place, _, name = self.code.rpartition(":")
        return f"{self.digest}/{next(iter(self.files))}:{name}" if place.endswith(".py") else self.code


def records_of(config: ExperimentConfig) -> dict[str, CodeRecord]:
    """Return what the settings name now, by setting.

    Raises:
        OwnCodeError: a file is not there.
    """
    found = {}
    for key, text in own_code(config).items():
        root = root_of(key, text)
        files = {str(path.relative_to(root)): _blake2b(path) for path in files_of(key, text)}
        found[key] = CodeRecord(code=text, digest=digest_of(key, text), files=files)
    return found


def read_records(path: Path) -> dict[str, CodeRecord]:
    """Return what a run has noted; empty where it noted nothing, as a run without own code.

    Raises:
        ResumeError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        noted: Any = json.loads(path.read_text())
        return {key: CodeRecord(**record) for key, record in noted.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ResumeError(f"{path} is not whole ({error}); restore or delete it") from error


def keep(records: Mapping[str, CodeRecord], path: Path, copies: Path) -> None:
    """Write the record of the code, and copies of its files."""
    for key, record in records.items():
        _copy(key, record, copies / record.digest)
    write_json(path, {key: asdict(record) for key, record in records.items()})


def changed_files(before: CodeRecord, now: CodeRecord) -> str:
    """Return in words which files of the code under a setting differ."""
    names = before.files.keys() | now.files.keys()
    changed = sorted(name for name in names if before.files.get(name) != now.files.get(name))
    return f"{', '.join(changed)} of {now.code} changed" if changed else f"{before.code} -> {now.code}"


def to_copies(path: Path, copies: Path) -> Change:
    """Return the change, for `with_own_code`, of what settings name to the copies that a run keeps.

    What it has no copy of stays, such as the code of modules.
    """
    records = read_records(path)

    def copied(key: str, text: str) -> str:
        record = records.get(key)
        there = record is not None and (copies / record.copy.rpartition(":")[0]).is_file()
        return str(copies / record.copy) if record is not None and there else text

    return copied


def _copy(key: str, record: CodeRecord, folder: Path) -> None:
    if folder.is_dir():
        return
    root = root_of(key, record.code)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    with writing(folder):
        for name in record.files:
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(unfinished)  # another process made the same folder first


def _blake2b(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
