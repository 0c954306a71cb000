"""What a Ray that is started on this machine takes of it: a folder for its temporary files, and the object store.

A full object store slows a run down and does not break it: Ray writes what the store cannot hold to the disk and reads
it back. The run breaks where that disk is full too, so both are checked before anything is started.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean

import numpy as np

from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from rollout.dataset import SampleTable

PREFIX = "mr1-"
LOCK_NAME = "mixed-r1.lock"
SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux."""
FOLDER_BYTES = len(f"/{PREFIX}12345678")
RAY_BYTES = len("/session_2026-11-28_05-27-25_123456_4194304/sockets/plasma_store")


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new folder for the files of a local Ray, and remove it at the end with all that it holds.

    What killed runs of this user left behind is removed first.

    Raises:
        ConfigError: no folder can be made.
    """
    base = temporary_base()
    _remove_abandoned(base)
    try:
        folder, lock = _locked_folder(base)
    except OSError as error:
        raise ConfigError(
            f"TMPDIR={base} cannot be written ({error.strerror}); set TMPDIR to a folder that can"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def temporary_base() -> Path:
    """Return where a local Ray keeps its files: RAY_TMPDIR or TMPDIR, or /tmp where those are too long for sockets."""
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
    is_short = len(os.fsencode(base)) <= SOCKET_BYTES - FOLDER_BYTES - RAY_BYTES
    return base if is_short else Path("/tmp")


def _locked_folder(base: Path) -> tuple[Path, int]:
    """Make a folder and lock it; a folder whose lock nobody holds counts as abandoned."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / LOCK_NAME).exists():
            return folder, lock
        os.close(lock)  # another process removed it before it was locked


def _remove_abandoned(base: Path) -> None:
    for lock_file in base.glob(f"{PREFIX}????????/{LOCK_NAME}"):
        with suppress(OSError):  # another user's, in use, or gone meanwhile
            if lock_file.stat().st_uid != os.getuid():
                continue
            lock = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
            finally:
                os.close(lock)


BYTES_PER_TOKEN = 8
"""A token id and its log-probability."""

SAMPLED_ROWS = 16
"""Rows whose pictures are weighed."""

SPILL_DISK_FRAC = 0.95
"""Ray writes to a disk until so much of it is used (its setting local_fs_capacity_threshold)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreNeed:
    """What a run keeps in the object store at its fullest."""

    num_groups: int
    """Groups between their first token and the step that trains on them; one that is being scored is there twice."""
    group_bytes: int
    """Encoded pictures and tokens of one group."""

    @property
    def total_bytes(self) -> int:
        return self.num_groups * self.group_bytes


def store_need(config: ExperimentConfig, image_bytes: float) -> StoreNeed:
    """Count the groups that a run holds at once.

    `image_bytes` are those of one prompt's encoded pictures.
    """
    training, sampling, pool = config.training, config.rollout.sampling, config.cluster.reward_pool
    carried = (training.max_staleness - training.steps_ahead) * training.groups_per_step
    ahead = ceil((training.steps_ahead + 1) * training.groups_per_step * training.oversampling)
    tokens = config.rollout.engine.max_model_len + sampling.largest_group * sampling.longest_completion
    return StoreNeed(
        num_groups=ahead + carried + pool.num_actors * pool.calls_per_actor,
        group_bytes=int(image_bytes) + tokens * BYTES_PER_TOKEN,
    )


def check_object_store(config: ExperimentConfig, train: Path) -> str | None:
    """Compare what a run needs with the store that Ray gets on this machine; a cluster that is joined has its own.

    Returns:
        A line for the user where groups will travel over the disk; None where they fit.

    Raises:
        ConfigError: they fit neither in memory nor on the disk.
    """
    if config.cluster.address is not None:
        return None
    table = SampleTable(train)
    rows = {int(index) for index in np.linspace(0, len(table) - 1, SAMPLED_ROWS)}
    image_bytes = fmean(sum(len(image.data) for image in table[index].images) for index in sorted(rows))
    disk = shutil.disk_usage(temporary_base())
    return check_room(
        store_need(config, image_bytes),
        store_bytes=config.cluster.object_store_bytes,
        disk_bytes=max(0, int(SPILL_DISK_FRAC * disk.total) - disk.used),
    )


def check_room(need: StoreNeed, *, store_bytes: int, disk_bytes: int) -> str | None:
    """Compare a need with memory and with what may be written to disk; see `check_object_store`."""
    if need.total_bytes <= store_bytes:
        return None
    finding = (
        f"{need.num_groups} groups of {need.group_bytes / 1e6:.2f} MB are in flight at once, "
        f"{_gb(need.total_bytes)} in all, and cluster.object_store_bytes={store_bytes} holds {_gb(store_bytes)}"
    )
    if need.total_bytes > store_bytes + disk_bytes:
        raise ConfigError(
            f"{finding}; the disk of {temporary_base()}, to which Ray writes the rest, takes {_gb(disk_bytes)} more. "
            "Raise cluster.object_store_bytes, free that disk, or lower training.groups_per_step, training.run_ahead, "
            "training.max_staleness or training.oversampling"
        )
    return f"{finding}; the rest travels over the disk of {temporary_base()}, which is slower"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
