"""Facts of models by their config.json, computed once by a child process and kept: the driver never imports torch.

`orchestration.models.meta_model` says what they are. They depend on config.json, on transformers and on the code that
reads them, so they are kept in the user's cache under a digest of all three, next to no run.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]
_KNOWN: dict[str, Facts] = {}
"""Facts that this process has read, by digest."""
SOURCES = ("meta_model.py", "meta_blocks.py")
CHILD_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}


class FactsError(RuntimeError):
    """Facts cannot be computed here."""


def facts_of(config: Mapping[str, Any]) -> Facts:
    """Return the facts of one config.json; see `facts_of_all`."""
    return facts_of_all([config])[0]


def facts_of_all(configs: Iterable[Mapping[str, Any]]) -> list[Facts]:
    """Return the facts of each config.json; one child process computes all that are not yet known.

    Raises:
        FactsError: the child ended without an answer; what it said is in the message.
    """
    named = [(_digest(config), config) for config in configs]
    missing = {digest: config for digest, config in named if digest not in _KNOWN and not _read(digest)}
    if missing:
        for digest, facts in zip(missing, compute(list(missing.values())), strict=True):
            _KNOWN[digest] = facts
            _keep(digest, facts)
    return [_KNOWN[digest] for digest, _ in named]


def compute(configs: list[Mapping[str, Any]]) -> list[Facts]:
    """Compute facts in a child process: some seconds to import torch, and half a second each.

    Raises:
        FactsError: as `facts_of_all`; or torch and transformers are not installed.
    """
    if lacking := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        raise FactsError(
            f"sizes of a model are read from transformers' classes, and {' and '.join(lacking)} are not installed "
            "here; install mixed-r1[train]"
        )
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "facts.json"
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.models.meta_model", str(answer)],
            input=json.dumps(configs),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **CHILD_ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise FactsError(
                f"reading the sizes of a model with transformers failed with exit code {done.returncode}: "
                f"{lines[-1] if lines else 'nothing was said'}"
            )
        found: list[Facts] = json.loads(answer.read_text())
        return found


def cache_folder() -> Path:
    """Return the folder in which facts are kept: of the user, for all runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixed-r1" / "models"


def _digest(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True, default=dict)
    return hashlib.blake2b(f"{_libraries()}\n{text}".encode(), digest_size=16).hexdigest()


@cache
def _libraries() -> str:
    """Return the digest of what computes facts."""
    hasher = hashlib.blake2b(importlib.metadata.version("transformers").encode(), digest_size=16)
    here = Path(__file__).parent
    families = sorted((here.parents[1] / "learner" / "families").glob("*.py"))
    for path in (*(here / name for name in SOURCES), *families):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _read(digest: str) -> bool:
    """Read kept facts; returns whether they are there."""
    try:
        _KNOWN[digest] = json.loads((cache_folder() / f"{digest}.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def _keep(digest: str, facts: Facts) -> None:
    """Keep facts for later processes, where the folder can be written."""
    folder = cache_folder()
    partial = folder / f".{digest}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(facts))
        partial.rename(folder / f"{digest}.json")
    except OSError:
        return
