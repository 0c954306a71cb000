"""Checkpoints in a store, and which of them to keep. No torch, so that the driver may import it.

<checkpoint directory>/step_00000012/
    weights/           sharded weights and optimiser state, in the backend's own files
    random_00000.pt    random states of rank 0, ...
    meta.json          step, weight_version, num_ranks, scores, and the caller's extra
    complete           the marker, written last: every file with its size and blake2b; without it nothing counts

A marker that was cut short is no JSON, so it marks nothing. A checkpoint is deleted, or written anew, marker first.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from learner.errors import CheckpointError, DamagedCheckpointError
from learner.store import FileEntry, FileStore, describe

COMPLETE_MARKER = "complete"
META_FILE = "meta.json"
FORMAT_VERSION = 2
STEP_PATTERN = re.compile(r"step_(\d{8,})")
READERS = 8
"""Files that are read at once while they are checked; each holds one chunk in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedShare:
    """Report of a rank about the state it has staged; the same on every rank."""

    step: int
    weight_version: int
    num_ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A marked checkpoint, as its marker and its meta.json describe it."""

    step: int
    weight_version: int
    num_ranks: int
    scores: Mapping[str, float]
    """By reward function, and by the metric of the best if one is named; empty where it was not scored."""
    extra: Mapping[str, Any]
    """The caller's own."""
    files: tuple[FileEntry, ...]

    @property
    def name(self) -> str:
        """Its folder in the store."""
        return step_name(self.step)


def step_name(step: int) -> str:
    """Name the checkpoint of a step.

    Example:
        >>> step_name(12)
        'step_00000012'
    """
    return f"step_{step:08d}"


def remove(store: FileStore, step: int) -> None:
    """Delete the checkpoint of a step, whole or partial.

    The marker goes first, so that an interrupted deletion leaves nothing that looks complete.
    """
    store.delete(f"{step_name(step)}/{COMPLETE_MARKER}")
    store.delete(step_name(step))


def put_share(store: FileStore, step: int, folder: Path) -> tuple[FileEntry, ...]:
    """Copy what one rank has staged; returns the files, named below the checkpoint's folder.

    Raises:
        CheckpointError: the store does not take it.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return tuple(_below(step, store.put(folder / name, f"{step_name(step)}/{name}")) for name in names)


def mark(
    store: FileStore,
    share: StagedShare,
    files: Sequence[FileEntry],
    *,
    extra: Mapping[str, Any],
    scores: Mapping[str, float],
) -> Checkpoint:
    """Write meta.json and the marker of a checkpoint whose files are all there; from here on it counts.

    Args:
        store: where the files are.
        share: of any rank.
        files: of all ranks.
        extra: the caller's own, as JSON.
        scores: by reward function.
    """
    step = share.step
    names = [entry.name for entry in files]
    assert len(set(names)) == len(names), f"two ranks wrote one file of {step_name(step)}: {sorted(names)}"
    meta = {"format": FORMAT_VERSION, **asdict(share), "scores": dict(scores), "extra": dict(extra)}
    meta_entry = store.put_bytes(_to_json(meta), f"{step_name(step)}/{META_FILE}")
    whole = (*files, _below(step, meta_entry))
    store.sync(step_name(step))
    marker = {"format": FORMAT_VERSION, "files": [asdict(entry) for entry in whole]}
    store.put_bytes(_to_json(marker), f"{step_name(step)}/{COMPLETE_MARKER}")
    store.sync(step_name(step))
    return Checkpoint(**asdict(share), scores=dict(scores), extra=dict(extra), files=whole)


def _below(step: int, entry: FileEntry) -> FileEntry:
    return replace(entry, name=entry.name.removeprefix(f"{step_name(step)}/"))


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def steps(store: FileStore) -> list[int]:
    """Return the steps of all checkpoints, whole or not, oldest first."""
    return sorted(int(found[1]) for name in store.folders() if (found := STEP_PATTERN.fullmatch(name)))


def marked_steps(store: FileStore) -> list[int]:
    """Return the steps of all marked checkpoints, oldest first; their files are not checked."""
    return [step for step in steps(store) if store.read(f"{step_name(step)}/{COMPLETE_MARKER}") is not None]


def read(store: FileStore, step: int) -> Checkpoint:
    """Read marker and meta.json of a step.

    Raises:
        CheckpointError: there is no marker.
        DamagedCheckpointError: the marker, or meta.json, is not what was written.
    """
    where = f"{store}/{step_name(step)}"
    marker = store.read(f"{step_name(step)}/{COMPLETE_MARKER}")
    if marker is None:
        raise CheckpointError(f"{where} is no complete checkpoint; it was not written to its end")
    try:
        files = tuple(FileEntry(**entry) for entry in json.loads(marker)["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedCheckpointError(f"{where}/{COMPLETE_MARKER} is broken ({error}); take an older one") from error
    meta_bytes = store.read(f"{step_name(step)}/{META_FILE}")
    if meta_bytes is None or describe(meta_bytes, META_FILE) not in files:
        raise DamagedCheckpointError(f"{where}/{META_FILE} is not what was written; take an older one")
    meta = json.loads(meta_bytes)
    if meta["format"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has format {meta['format']}, and this version reads {FORMAT_VERSION}; read it with the version "
            "that wrote it"
        )
    known = {name: meta[name] for name in ("step", "weight_version", "num_ranks", "scores", "extra")}
    return Checkpoint(**known, files=files)


def verify(store: FileStore, checkpoint: Checkpoint) -> None:
    """Compare every file with the manifest: all sizes first, then all checksums.

    Raises:
        DamagedCheckpointError: naming the first file that differs.
    """
    sizes = store.sizes(checkpoint.name)
    for entry in checkpoint.files:
        num_bytes = sizes.get(entry.name)
        if num_bytes != entry.num_bytes:
            difference = "is missing" if num_bytes is None else f"has {num_bytes} bytes"
            raise _damaged(store, checkpoint, entry, f"{difference}, and {entry.num_bytes} were written")
    readers = ThreadPoolExecutor(READERS)
    try:
        read_through = readers.map(lambda entry: store.digest(f"{checkpoint.name}/{entry.name}"), checkpoint.files)
        for entry, found in zip(checkpoint.files, read_through, strict=True):
            _check(store, checkpoint, entry, found)
    finally:
        readers.shutdown(cancel_futures=True)  # after the first damaged file, or an interrupt, the rest is not needed


def _check(store: FileStore, checkpoint: Checkpoint, written: FileEntry, found: FileEntry) -> None:
    if found.blake2b != written.blake2b:
        raise _damaged(store, checkpoint, written, "has another checksum than was written")


def _damaged(store: FileStore, checkpoint: Checkpoint, entry: FileEntry, what: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"{store}/{checkpoint.name}/{entry.name} {what}; take an older checkpoint")


def newest_whole(store: FileStore, *, pass_over: Callable[[int, str], None]) -> Checkpoint | None:
    """Return the newest checkpoint whose files are all as they were written, or None.

    Args:
        store: of the checkpoints.
        pass_over: called with step and reason for every newer marked checkpoint that is damaged.
    """
    for step in reversed(marked_steps(store)):
        try:
            checkpoint = read(store, step)
            verify(store, checkpoint)
            return checkpoint
        except DamagedCheckpointError as error:
            pass_over(step, str(error))
    return None


def fetch(store: FileStore, step: int, target: Path) -> Path:
    """Return a local folder with a checkpoint's files: its own in a local store, else a checked copy in `target`.

    Raises:
        DamagedCheckpointError: a file that arrived is not what was written.
    """
    checkpoint = read(store, step)
    if (local := store.local_path(checkpoint.name)) is not None:
        return local
    for entry in checkpoint.files:
        found = store.fetch(f"{checkpoint.name}/{entry.name}", target / entry.name)
        _check(store, checkpoint, entry, found)
    return target


MACRO = "macro"
"""Name of the mean over reward functions, beside the functions' own."""


def with_macro(scores: Mapping[str, float]) -> dict[str, float]:
    """Add the macro mean, the mean over the reward functions; scores that are not finite are left out.

    Names with a slash are of metrics, which are no reward functions.

    Example:
        >>> with_macro({"chart": 0.5, "grounding": 1.0})
        {'chart': 0.5, 'grounding': 1.0, 'macro': 0.75}
    """
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    functions = [score for name, score in finite.items() if "/" not in name]
    return {**finite, MACRO: fmean(functions)} if functions else finite


def best_steps(scores_of: Mapping[int, Mapping[str, float]], *, metric: str | None = None) -> dict[str, int]:
    """Return the step with the highest score by each name, the macro mean included; of equal ones the newest.

    Args:
        scores_of: by step, the scores by reward function and metric; a checkpoint without scores is best at nothing.
        metric: the only name that counts; None is every reward function and the macro mean.

    Example:
        >>> best_steps({1: {"chart": 0.5}, 2: {"chart": 0.4}})
        {'chart': 1, 'macro': 1}
    """
    best: dict[str, tuple[float, int]] = {}
    for step, scores in scores_of.items():
        for name, score in with_macro(scores).items():
            if name == metric or (metric is None and "/" not in name):
                best[name] = max(best.get(name, (score, step)), (score, step))
    return {name: step for name, (_, step) in best.items()}


def steps_to_keep(scores_of: Mapping[int, Mapping[str, float]], *, keep_last: int, keep_best: bool | str) -> set[int]:
    """Return the steps of the checkpoints to keep.

    Args:
        scores_of: by step of every whole checkpoint, its scores by reward function and metric.
        keep_last: number of newest checkpoints to keep.
        keep_best: whether the best by macro mean and by each reward function are kept too; or the metric of the best.

    Raises:
        CheckpointError: keep_last is below 1.

    Example:
        >>> sorted(steps_to_keep({1: {"chart": 0.9}, 2: {"chart": 0.1}, 3: {}}, keep_last=1, keep_best=True))
        [1, 3]
    """
    if keep_last < 1:
        raise CheckpointError(f"training.keep_last is {keep_last}; keep at least 1, or nothing could be resumed")
    newest = set(sorted(scores_of)[-keep_last:])
    metric = keep_best if isinstance(keep_best, str) else None
    return newest | set(best_steps(scores_of, metric=metric).values()) if keep_best else newest
