"""What becomes of a run that is submitted: followed, repeated, refused, interrupted."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestration.cli import compose
from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ResumeError
from orchestration.settings.strict import build
from orchestration.submit.client import LOST_DRIVER, JobState, JobStatus
from orchestration.submit.command import run_attempts
from orchestration.submit.job import Job

RUNNING = JobState(status=JobStatus.RUNNING)
SUCCEEDED = JobState(status=JobStatus.SUCCEEDED, driver_exit_code=0)
SAVED = JobState(status=JobStatus.FAILED, driver_exit_code=75)
KILLED = JobState(status=JobStatus.FAILED, driver_exit_code=-9)
LOST = JobState(status=JobStatus.FAILED, error_type=LOST_DRIVER, message="The actor died because its node died.\n...")
WRONG = JobState(status=JobStatus.FAILED, driver_exit_code=2)
STOPPED = JobState(status=JobStatus.STOPPED)
JOB = Job(name="first", entrypoint="exec python", environment={}, metadata={"run_dir": "/shared/first"}, files={})


class FakeServer:
    """Jobs that end as they are told, one after the other; Ctrl-C where an end is None."""

    address = "http://127.0.0.1:8265"

    def __init__(self, *ends: JobState | None, there: Mapping[str, JobState] | None = None) -> None:
        self._ends = list(ends)
        self._jobs = dict(there or {})
        self.stopped: list[str] = []

    def jobs(self) -> Mapping[str, JobState]:
        return self._jobs

    def submit(self, job: Job, identity: str) -> None:
        assert identity not in self._jobs
        self._jobs[identity] = RUNNING

    def follow(self, identity: str) -> JobState:
        end = self._ends.pop(0)
        if end is None:
            raise KeyboardInterrupt
        self._jobs[identity] = end
        return end

    def stop(self, identity: str) -> None:
        self.stopped.append(identity)


@pytest.fixture(scope="module")
def config() -> SubmitConfig:
    return build(SubmitConfig, {**compose([])["submit"], "max_attempts": 3, "retry_wait_s": 5.0})


def run(server: FakeServer, config: SubmitConfig) -> tuple[int, str, list[float]]:
    """Exit code, what was said, and the waits."""
    said: list[str] = []
    waits: list[float] = []
    code = run_attempts(JOB, config, server, say=said.append, wait=waits.append)
    return code, "\n".join(said), waits


def test_a_run_that_succeeds_is_one_job(config: SubmitConfig) -> None:
    server = FakeServer(SUCCEEDED)
    code, said, waits = run(server, config)
    assert (code, waits) == (0, [])
    assert server.jobs() == {"first-1": SUCCEEDED}
    assert "submitted first-1 to http://127.0.0.1:8265" in said


@pytest.mark.parametrize("end", [SAVED, KILLED, LOST])
def test_a_run_that_saved_itself_or_lost_its_machine_is_submitted_again(end: JobState, config: SubmitConfig) -> None:
    server = FakeServer(end, end, SUCCEEDED)
    code, said, waits = run(server, config)
    assert (code, waits) == (0, [5.0, 5.0])
    assert list(server.jobs()) == ["first-1", "first-2", "first-3"]
    assert "submitting again in 5 s; 1 attempts are left" in said


@pytest.mark.parametrize(("end", "code"), [(SAVED, 75), (KILLED, 137), (LOST, 1)])
def test_after_the_last_attempt_its_exit_code_is_carried(end: JobState, code: int, config: SubmitConfig) -> None:
    found, said, waits = run(FakeServer(end, end, end), config)
    assert (found, len(waits)) == (code, 2)
    assert "3 attempts are used up (submit.max_attempts)" in said


@pytest.mark.parametrize(("end", "code"), [(WRONG, 2), (STOPPED, 130), (replace(WRONG, driver_exit_code=1), 1)])
def test_what_would_end_in_the_same_way_is_not_repeated(end: JobState, code: int, config: SubmitConfig) -> None:
    server = FakeServer(end)
    assert run(server, config)[0] == code
    assert list(server.jobs()) == ["first-1"]


def test_the_next_attempt_has_the_next_number_and_other_jobs_do_not_count(config: SubmitConfig) -> None:
    there = {"first-7": WRONG, "first-long-9": RUNNING, "other": RUNNING}
    server = FakeServer(SUCCEEDED, there=there)
    run(server, config)
    assert server.jobs()["first-8"] == SUCCEEDED


def test_a_run_whose_job_is_there_is_refused(config: SubmitConfig) -> None:
    server = FakeServer(there={"first-2": RUNNING})
    refusal = r"first-2 is RUNNING and trains in /shared/first; add submit\.if_running=follow .* ray job stop first-2"
    with pytest.raises(ResumeError, match=refusal):
        run(server, config)
    assert list(server.jobs()) == ["first-2"]


def test_a_run_whose_job_is_there_can_be_joined_and_is_repeated_as_well(config: SubmitConfig) -> None:
    server = FakeServer(SAVED, SUCCEEDED, there={"first-2": RUNNING})
    code, _, _ = run(server, replace(config, if_running="follow"))
    assert code == 0
    assert server.jobs() == {"first-2": SAVED, "first-3": SUCCEEDED}


def test_without_following_the_command_returns_at_once_and_says_how_to_return(config: SubmitConfig) -> None:
    server = FakeServer()
    code, said, _ = run(server, replace(config, follow=False, max_attempts=1))
    assert code == 0
    assert "ray job logs first-1 --follow --address http://127.0.0.1:8265" in said


def test_ctrl_c_leaves_the_job_running(config: SubmitConfig) -> None:
    server = FakeServer(None)
    code, said, _ = run(server, config)
    assert (code, server.stopped) == (130, [])
    assert "first-1 goes on without you. The same command with submit.if_running=follow returns to it" in said


def test_ctrl_c_can_stop_the_job_and_waits_for_its_end(config: SubmitConfig) -> None:
    server = FakeServer(None, STOPPED)
    code, said, _ = run(server, replace(config, on_interrupt="stop"))
    assert (code, server.stopped) == (130, ["first-1"])
    assert "asking first-1 to save and end, within 600 s" in said
    assert "first-1 STOPPED" in said


def test_a_second_ctrl_c_does_not_wait(config: SubmitConfig) -> None:
    server = FakeServer(None, None)
    code, said, _ = run(server, replace(config, on_interrupt="stop"))
    assert (code, server.stopped) == (130, ["first-1"])
    assert "ray job logs first-1" in said


def test_ctrl_c_between_two_attempts_submits_nothing(config: SubmitConfig) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    server = FakeServer(SAVED)
    assert run_attempts(JOB, config, server, say=lambda _: None, wait=interrupt) == 130
    assert list(server.jobs()) == ["first-1"]


def test_of_a_driver_that_nobody_saw_end_the_reason_is_told(config: SubmitConfig) -> None:
    _, said, _ = run(FakeServer(LOST), replace(config, max_attempts=1))
    assert "first-1 FAILED (JOB_SUPERVISOR_ACTOR_DIED): The actor died because its node died." in said
    assert "..." not in said
