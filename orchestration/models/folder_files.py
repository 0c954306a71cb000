"""The small files of a model folder, read so that every way in which one is broken has words."""

import json
import os
from pathlib import Path
from typing import Any

from orchestration.settings.errors import ConfigError

LFS_POINTER = b"version https://git-lfs"
"""How the few lines begin that Git keeps in a file's place until Git LFS has fetched it."""


def read_text(path: Path) -> str:
    """Return the text of a file of a model folder.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is a Git LFS pointer.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"model.path: {path} cannot be read ({os.strerror(error.errno or 0)})") from error
    if data.startswith(LFS_POINTER):
        raise lfs_error(path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"model.path: {path} is no text; download it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file of a model folder holds.

    Raises:
        ConfigError: as `read_text`, or it holds no JSON object.
    """
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"model.path: {path} is no JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise ConfigError(f"model.path: {path} holds a {type(found).__name__}, no JSON object; download it again")
    return found


def lfs_error(path: Path) -> ConfigError:
    """Return the refusal of a Git LFS pointer."""
    return ConfigError(
        f"model.path: {path} is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}, or "
        "download the checkpoint again"
    )
