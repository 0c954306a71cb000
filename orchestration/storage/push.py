"""Copies an exported model to a folder, to object storage or to the Hugging Face Hub."""

import re
from pathlib import Path

from learner.errors import CheckpointError
from learner.store import open_store
from orchestration.settings.errors import ConfigError

HUB = "hf://"
HUB_PLACE = re.compile(r"hf://[\w.-]+/[\w.-]+")


def check_place(key: str, place: str) -> None:
    """Check that a place is an absolute path, a URI of storage, or `hf://ORG/NAME`; nothing is reached.

    Raises:
        ConfigError: naming the setting.
    """
    if place.startswith(HUB) and not HUB_PLACE.fullmatch(place):
        raise ConfigError(f"{key}={place} names no repository; write {HUB}ORG/NAME")
    if "://" not in place and not Path(place).is_absolute():
        raise ConfigError(
            f"{key}={place} is relative; write a folder from the root, s3://bucket/folder, or {HUB}ORG/NAME"
        )


def push(folder: Path, place: str) -> None:
    """Copy every file of a folder; what is there already under the same name is replaced.

    A repository of the hub is made where there is none, and is private then.

    Raises:
        CheckpointError: the storage does not take a file, or the hub refuses.
    """
    if place.startswith(HUB):
        _push_to_hub(folder, place.removeprefix(HUB))
        return
    store = open_store(place, key="training.push_to")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.put(path, path.relative_to(folder).as_posix())


def _push_to_hub(folder: Path, repository: str) -> None:
    try:
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of a training run")
    except Exception as error:  # of the library, of its HTTP client, or of the network
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(f"{repository}: {type(error).__name__}: {reason}") from error
