"""A checkpoint of a learner that is away when its turn comes to be written: staged before, begun later."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from learner.checkpoint import StagedShare, newest_whole
from learner.errors import CheckpointError
from learner.store import FileEntry, FileStore, open_store
from orchestration.storage.checkpoints import Checkpoints, Saver
from orchestration.storage.faults import FaultLog
from tests.unit.storage.fault_limits import fault_limits


class Learner:
    """Stages while it is here; writes one file."""

    def __init__(self) -> None:
        self.is_here = True
        self.staged: list[int] = []
        self.failures: list[CheckpointError] = []

    async def stage(self, step: int) -> StagedShare:
        assert self.is_here, "asked to stage while it is away"
        self.staged.append(step)
        if self.failures:
            raise self.failures.pop()
        return StagedShare(step=step, weight_version=step, num_ranks=1)

    async def upload(self, store: FileStore, step: int) -> Sequence[FileEntry]:
        return ()


def saving(folder: Path) -> tuple[Learner, Saver, FileStore]:
    learner, store = Learner(), open_store(folder)
    checkpoints = Checkpoints(store, learner, keep_last=2, keep_best=False, say=lambda _: None)
    return learner, Saver(checkpoints, FaultLog(fault_limits()), lambda _: None), store


def test_checkpoint_that_was_staged_early_is_begun_without_the_learner(tmp_path: Path) -> None:
    learner, saver, store = saving(tmp_path)

    async def scenario() -> None:
        await saver.stage(4)
        learner.is_here = False
        await saver.begin(4, {"cursor": 9})
        await saver.settle(4, dict)

    asyncio.run(scenario())
    found = newest_whole(store, pass_over=pytest.fail)
    assert found is not None
    assert (found.step, found.extra, learner.staged) == (4, {"cursor": 9}, [4])


def test_staging_that_fails_is_tried_again_while_the_learner_is_there(tmp_path: Path) -> None:
    learner, saver, _ = saving(tmp_path)
    learner.failures.append(CheckpointError("disk full"))
    asyncio.run(saver.stage(4))
    assert learner.staged == [4, 4]


def test_what_was_staged_of_another_step_is_not_taken_for_this_one(tmp_path: Path) -> None:
    learner, saver, store = saving(tmp_path)

    async def scenario() -> None:
        await saver.stage(4)
        await saver.begin(5, {})
        await saver.settle(5, dict)

    asyncio.run(scenario())
    found = newest_whole(store, pass_over=pytest.fail)
    assert found is not None
    assert (found.step, learner.staged) == (5, [4, 5])


def test_share_of_a_learner_that_was_lost_is_forgotten(tmp_path: Path) -> None:
    learner, saver, _ = saving(tmp_path)

    async def scenario() -> None:
        await saver.stage(4)
        await saver._checkpoints.abandon()
        await saver.begin(4, {})
        await saver.settle(4, dict)

    asyncio.run(scenario())
    assert learner.staged == [4, 4]
