"""Checkpoints that fail are tried again; a run knows when its allocation ends, and when it needs nothing more."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from learner.config import LoraConfig
from learner.errors import CheckpointError
from orchestration.settings.errors import ResumeError, TooManyFaultsError
from orchestration.storage.checkpoints import Saver, check_finished
from orchestration.storage.faults import FaultLog, Role
from orchestration.storage.run_folder import RunFolder
from orchestration.train.run_state import SLURM_END, Allocation
from tests.unit.storage.fault_limits import fault_limits


class Disk:
    """Checkpoints on a disk that is full for a while: `begin` fails in place, `settle` for what was begun."""

    def __init__(self, *, failing_begins: int = 0, failing_settles: int = 0) -> None:
        self.failing_begins = failing_begins
        self.failing_settles = failing_settles
        self.begun: list[int] = []

    async def begin(self, step: int, *, extra: Mapping[str, Any], scores: Mapping[str, float] | None = None) -> None:
        self.begun.append(step)
        if self.failing_begins > 0:
            self.failing_begins -= 1
            raise CheckpointError("no space left")

    async def settle(self) -> None:
        if self.failing_settles > 0:
            self.failing_settles -= 1
            raise CheckpointError("no space left")


def saver_on(disk: Disk, said: list[str], *, limit: int = 3) -> tuple[Saver, FaultLog]:
    log = FaultLog(fault_limits(max_checkpoint_faults=limit))
    return Saver(disk, log, said.append), log  # type: ignore[arg-type]


def test_a_checkpoint_that_fails_is_begun_again_and_counted() -> None:
    said: list[str] = []
    disk = Disk(failing_begins=2)
    saver, log = saver_on(disk, said)
    asyncio.run(saver.begin(4, {}))
    assert disk.begun == [4, 4, 4]
    assert log.counts()[f"faults/{Role.CHECKPOINT}"] == 2.0
    assert said == ["step 4: no space left"] * 2


def test_a_step_is_saved_once() -> None:
    disk = Disk()
    saver, _ = saver_on(disk, [])
    asyncio.run(saver.begin(4, {}))
    asyncio.run(saver.settle(4, dict))
    assert disk.begun == [4]


def test_settling_begins_what_was_not_and_again_what_failed_beside_training() -> None:
    disk = Disk(failing_settles=1)
    saver, _ = saver_on(disk, [])
    asyncio.run(saver.settle(5, dict))
    assert disk.begun == [5, 5]


def test_a_disk_that_stays_full_ends_the_run() -> None:
    saver, _ = saver_on(Disk(failing_begins=100), [], limit=3)
    with pytest.raises(TooManyFaultsError, match=r"max_checkpoint_faults=3.*no space left"):
        asyncio.run(saver.begin(4, {}))


def test_an_allocation_ends_before_what_takes_too_long() -> None:
    now = [1000.0]
    allocation = Allocation(600.0, 100.0, clock=lambda: now[0])
    now[0] = 1480.0
    assert not allocation.is_ending(next_s=20.0)
    assert allocation.is_ending(next_s=20.1)


def test_slurm_says_when_an_allocation_ends_unless_the_settings_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SLURM_END, "2000")
    assert Allocation(None, 100.0, clock=lambda: 1901.0).is_ending(next_s=0.0)
    assert not Allocation(600.0, 100.0, clock=lambda: 1901.0).is_ending(next_s=0.0)
    monkeypatch.delenv(SLURM_END)
    assert not Allocation(None, 100.0, clock=lambda: 1e12).is_ending(next_s=0.0)


def folder_at(root: Path, step: int) -> RunFolder:
    folder = RunFolder(root)
    folder.root.mkdir(exist_ok=True)
    folder.config.write_text(json.dumps({"training": {"checkpoint_dir": None}}))
    checkpoint = folder.checkpoints / f"step_{step:08d}"
    checkpoint.mkdir(parents=True)
    return folder


def test_a_run_without_a_marked_checkpoint_is_not_finished(tmp_path: Path) -> None:
    assert not check_finished(folder_at(tmp_path, 3), num_steps=3)


def test_a_run_beyond_its_last_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.storage.checkpoints.newest_step", lambda store: 7)
    with pytest.raises(ResumeError, match=r"step 7, beyond training.num_steps=3"):
        check_finished(folder_at(tmp_path, 7), num_steps=3)


def test_a_run_is_finished_when_its_model_is_exported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.storage.checkpoints.newest_step", lambda store: 3)
    folder = folder_at(tmp_path, 3)
    assert not check_finished(folder, num_steps=3)
    folder.export.mkdir()
    (folder.export / "config.json").write_text("{}")
    assert check_finished(folder, num_steps=3)


@pytest.mark.parametrize(
    ("export", "files"),
    [("adapter", ["adapter_config.json"]), ("both", ["config.json", "adapter/adapter_config.json"])],
)
def test_a_run_is_finished_when_all_that_its_export_is_to_hold_is_there(
    export: Literal["adapter", "both"], files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.storage.checkpoints.newest_step", lambda store: 3)
    folder, lora = folder_at(tmp_path, 3), LoraConfig(export=export)
    for file in files:
        assert not check_finished(folder, 3, lora)
        (folder.export / file).parent.mkdir(parents=True, exist_ok=True)
        (folder.export / file).write_text("{}")
    assert check_finished(folder, 3, lora)
