"""The limits of faults above which a run ends."""

import json
from pathlib import Path

import pytest

from orchestration.settings.errors import InfrastructureError, TooManyFaultsError
from orchestration.storage.faults import FaultLog, Role, read_faults
from tests.unit.storage.fault_limits import fault_limits


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_one_fault_more_than_allowed_ends_the_run_and_names_the_setting() -> None:
    log = FaultLog(fault_limits(max_engine_faults=2), clock=Clock())
    log.record(Role.ENGINE, 0, "died")
    log.record(Role.ENGINE, 1, "died")
    with pytest.raises(TooManyFaultsError, match=r"max_engine_faults=2; the last, of engine 3: hangs"):
        log.record(Role.ENGINE, 3, "hangs")


def test_faults_older_than_the_window_are_forgiven() -> None:
    clock = Clock()
    log = FaultLog(fault_limits(max_engine_faults=1, window_s=60.0), clock=clock)
    for _ in range(5):
        log.record(Role.ENGINE, 0, "died")
        clock.now += 60.5
    log.record(Role.ENGINE, 0, "died")
    clock.now += 59.5
    with pytest.raises(TooManyFaultsError):
        log.record(Role.ENGINE, 0, "died")
    assert log.counts()["faults/engine"] == 7.0


def test_roles_have_limits_of_their_own() -> None:
    log = FaultLog(fault_limits(max_engine_faults=0, max_reward_faults=2), clock=Clock())
    log.record(Role.REWARD, 0, "died")
    log.record(Role.REWARD, 0, "died")
    with pytest.raises(InfrastructureError, match="max_engine_faults=0"):
        log.record(Role.ENGINE, 0, "died")
    counts = log.counts()
    assert (counts["faults/engine"], counts["faults/reward"]) == (1.0, 2.0)
    assert set(counts) == {f"faults/{role}" for role in Role}


def test_every_fault_is_a_line_of_the_file_the_last_one_too(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    clock = Clock()
    log = FaultLog(fault_limits(max_learner_faults=1), path, clock=clock)
    log.record(Role.LEARNER, 1, 'died: "out of memory"')
    clock.now += 5.0
    with pytest.raises(TooManyFaultsError):
        log.record(Role.LEARNER, 0, "hangs")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"role": "learner", "index": 1, "cause": 'died: "out of memory"', "at": 1000.0},
        {"role": "learner", "index": 0, "cause": "hangs", "at": 1005.0},
    ]


def test_faults_after_one_that_a_kill_cut_short_are_read(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    log = FaultLog(fault_limits(), path, clock=Clock())
    log.record(Role.ENGINE, 0, "died")
    log.record(Role.ENGINE, 1, "died")
    path.write_bytes(path.read_bytes()[:-9])
    log.record(Role.REWARD, 2, "hangs")
    assert [(fault.role, fault.index) for fault in read_faults(path)] == [("engine", 0), ("reward", 2)]
