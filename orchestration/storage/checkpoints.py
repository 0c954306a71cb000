"""Checkpoints of a run: written beside training, kept by rule, found again; and whether a run is complete."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from learner import checkpoint
from learner.checkpoint import Checkpoint, StagedShare
from learner.config import LoraConfig
from learner.errors import CheckpointError, DamagedCheckpointError
from learner.store import FileEntry, FileStore, open_store
from orchestration.settings.errors import ResumeError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.faults import FaultLog, Role
from orchestration.storage.run_folder import RunFolder, read_config


class StagingLearner(Protocol):
    """What a checkpoint asks of the learner."""

    async def stage(self, step: int) -> StagedShare:
        """Write the state of every rank to its local disk."""
        ...

    async def upload(self, store: FileStore, step: int) -> Sequence[FileEntry]:
        """Copy what was staged into the store, beside training."""
        ...


class Checkpoints:
    """All checkpoints of a run, of which the `keep_last` newest and, with `keep_best`, those of the best scores stay.

    Consumes: the learner's state, scores. Produces: marked checkpoints in the store. Waits for: the one before.
    """

    def __init__(
        self,
        store: FileStore,
        learner: StagingLearner,
        *,
        keep_last: int,
        keep_best: bool | str,
        say: Callable[[str], None],
    ) -> None:
        self.store = store
        self.learner = learner
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._say = say
        self._damaged: set[int] = set()
        self._writing: asyncio.Task[None] | None = None
        self._staged: StagedShare | None = None

    async def stage(self, step: int) -> None:
        """Stage the learner's state now, because it will be offloaded when `begin` is called for this step."""
        await self.settle()
        self._staged = await self.learner.stage(step)

    async def begin(self, step: int, *, extra: Mapping[str, Any], scores: Mapping[str, float] | None = None) -> None:
        """Stage the learner's state; returns when training may continue, while the upload runs in the background.

        Args:
            step: names the checkpoint; one of the same step is replaced.
            extra: what the run needs to go on, as JSON.
            scores: by reward function, of the weights that are saved.

        Raises:
            CheckpointError: the checkpoint before this one failed, and this one was not begun; or nothing could be
                staged.
        """
        await self.settle()
        share, self._staged = self._staged, None
        if share is None or share.step != step:
            share = await self.learner.stage(step)
        self._writing = asyncio.create_task(self._complete(share, dict(extra), dict(scores or {})))

    async def settle(self) -> None:
        """Wait until what was begun is complete.

        Raises:
            CheckpointError: it failed; the checkpoints before it are as they were.
        """
        if self._writing is None:
            return
        try:
            # The caller may be cancelled; the checkpoint is not.
            await asyncio.shield(self._writing)
        finally:
            if self._writing.done():
                self._writing = None

    async def abandon(self) -> None:
        """Wait until what was begun has ended, well or not, and forget its failure.

        For when the learner that had staged it is gone: its death ends the copying. What was copied marks nothing.
        """
        task, self._writing, self._staged = self._writing, None, None
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _complete(self, share: StagedShare, extra: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        try:
            await asyncio.to_thread(checkpoint.remove, self.store, share.step)
            files = await self.learner.upload(self.store, share.step)
            await asyncio.to_thread(checkpoint.mark, self.store, share, files, extra=extra, scores=scores)
        except CheckpointError as error:
            # Delete what there is of it, as far as possible.
            await asyncio.gather(asyncio.to_thread(checkpoint.remove, self.store, share.step), return_exceptions=True)
            raise CheckpointError(
                f"the checkpoint of step {share.step} in {self.store} failed, and older ones are as they were: {error}"
            ) from error
        self._damaged.discard(share.step)
        await asyncio.to_thread(self._tidy, share.step)

    def _tidy(self, newest: int) -> None:
        """Delete checkpoints outside of the retention rule, and partial or damaged ones."""
        scores_of = {one.step: one.scores for one in self._whole()}
        keep = checkpoint.steps_to_keep(scores_of, keep_last=self._keep_last, keep_best=self._keep_best)
        for step in checkpoint.steps(self.store):
            if step not in keep | {newest}:
                checkpoint.remove(self.store, step)

    def _whole(self) -> list[Checkpoint]:
        """Return complete checkpoints, oldest first, without those known to be damaged; reads markers only."""
        found = []
        for step in checkpoint.marked_steps(self.store):
            try:
                found.append(checkpoint.read(self.store, step))
            except DamagedCheckpointError as error:
                self._skip(step, str(error))
        return [one for one in found if one.step not in self._damaged]

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint whose files match their digests, or None.

        Reads every file of it once. A damaged one is reported and skipped, and deleted when the next one is complete.
        """
        return checkpoint.newest_whole(self.store, pass_over=self._skip)

    def has_any(self) -> bool:
        """Return whether a checkpoint was once complete here, even if its files are damaged now."""
        return newest_step(self.store) is not None

    def _skip(self, step: int, reason: str) -> None:
        if step not in self._damaged:
            self._say(f"skipped the checkpoint of step {step}: {reason}")
        self._damaged.add(step)

    def best(self) -> dict[str, Checkpoint]:
        """Return the best checkpoint by each reward function and by `macro`, or by the metric; reads markers only."""
        found = {one.step: one for one in self._whole()}
        metric = self._keep_best if isinstance(self._keep_best, str) else None
        best = checkpoint.best_steps({step: one.scores for step, one in found.items()}, metric=metric)
        return {name: found[step] for name, step in best.items()}


def store_of(folder: RunFolder) -> FileStore:
    """Open the store of a run's checkpoints, where the settings in its folder have put it."""
    training = read_config(folder).get("training", {})
    return open_store(training.get("checkpoint_dir") or folder.checkpoints)


def newest_step(store: FileStore) -> int | None:
    """Return the step of the newest checkpoint with a readable marker, or None; reads markers only."""
    for step in reversed(checkpoint.marked_steps(store)):
        try:
            return checkpoint.read(store, step).step
        except DamagedCheckpointError:
            continue
    return None


def config_digest(config: ExperimentConfig) -> str:
    """Return the blake2b of the settings as canonical JSON, in hex."""
    canonical = json.dumps(asdict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


class Saver:
    """Saves a run within the limits of its fault log, and raises TooManyFaultsError above them."""

    def __init__(self, checkpoints: Checkpoints, faults: FaultLog, say: Callable[[str], None]) -> None:
        self._checkpoints = checkpoints
        self._faults = faults
        self._say = say
        self.saved_step: int | None = None
        """The newest step that is saved or being written."""

    async def begin(self, step: int, extra: Mapping[str, Any], scores: Mapping[str, float] | None = None) -> None:
        """Stage a checkpoint; it is written beside training, and the ones before stay until it is whole."""
        while self.saved_step != step:
            try:
                await self._checkpoints.begin(step, extra=extra, scores=scores)
                self.saved_step = step
            except CheckpointError as error:
                self._note(step, error)

    async def stage(self, step: int) -> None:
        """Stage the learner's state now, for a `begin` of the same step."""
        while True:
            try:
                return await self._checkpoints.stage(step)
            except CheckpointError as error:
                self._note(step, error)

    async def settle(self, step: int, extra: Callable[[], Mapping[str, Any]]) -> None:
        """Wait until a checkpoint of `step` is complete, which is begun if it was not."""
        while True:
            await self.begin(step, extra())
            try:
                return await self._checkpoints.settle()
            except CheckpointError as error:
                self._note(step, error)

    def _note(self, step: int, error: CheckpointError) -> None:
        self.saved_step = None
        self._say(f"step {step}: {error}")
        self._faults.record(Role.CHECKPOINT, 0, str(error))


def check_finished(folder: RunFolder, num_steps: int, lora: LoraConfig | None = None) -> bool:
    """Return whether the run needs nothing more: all steps done, model or adapter exported.

    Raises:
        ResumeError: the folder holds more steps than are asked for.
    """
    step = newest_step(store_of(folder))
    if step is None:
        return False
    if step > num_steps:
        raise ResumeError(
            f"{folder.root} is at step {step}, beyond training.num_steps={num_steps}; raise num_steps or use another "
            "run_dir"
        )
    return step == num_steps and folder.is_exported(lora)
