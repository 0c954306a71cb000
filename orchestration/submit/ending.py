"""How a job ended, which exit code that is, and whether the same job is worth submitting again."""

from dataclasses import dataclass
from enum import StrEnum

EXIT_FAILED = 1
EXIT_STOPPED = 75
"""The run saved itself and left; see orchestration.cli."""
EXIT_INTERRUPTED = 130
SIGNAL_BASE = 128
"""A shell's exit code of a process that a signal ended is this and the signal's number."""
SIGKILL = 9
LOST_DRIVER = "JOB_SUPERVISOR_ACTOR_DIED"
"""Ray's word for a driver whose machine, or whose supervising process, is gone."""


class JobStatus(StrEnum):
    """Ray's words for where a job stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What Ray tells of a job."""

    status: JobStatus
    driver_exit_code: int | None = None
    """None while it runs, and where nobody saw the driver end; negative for the signal that ended it."""
    error_type: str | None = None
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.status in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


def exit_code(state: JobState) -> int:
    """Carry the end of a job into the exit code of a command.

    Example:
        >>> exit_code(JobState(status=JobStatus.FAILED, driver_exit_code=-9))
        137
    """
    if state.status is JobStatus.SUCCEEDED:
        return 0
    if state.status is JobStatus.STOPPED:
        return EXIT_INTERRUPTED
    code = state.driver_exit_code
    if code is None or code == 0:  # 0 and FAILED: its supervisor went before it could tell
        return EXIT_FAILED
    return code if code > 0 else SIGNAL_BASE - code


def is_worth_repeating(state: JobState) -> bool:
    """Tell whether the same job, submitted again, may go further than this one did.

    So it is with a run that saved itself, and with a driver that was killed or lost its machine. A wrong setting, an
    update that must not be applied, or a cluster that is too small would end the next attempt in the same way, and
    whoever stopped the job meant it.
    """
    if state.status is not JobStatus.FAILED:
        return False
    return state.error_type == LOST_DRIVER or exit_code(state) in (EXIT_STOPPED, SIGNAL_BASE + SIGKILL)
