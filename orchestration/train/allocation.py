"""When the machines of a run are taken away."""

import os
import time
from collections.abc import Callable

SLURM_END = "SLURM_JOB_END_TIME"
"""Set by Slurm inside a job: seconds since the epoch."""


class Allocation:
    """The time that a job has."""

    def __init__(
        self, time_limit_s: float | None, leave_before_s: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Count from now.

        Args:
            time_limit_s: Length of the allocation; None asks Slurm's environment, and without it there is no end.
            leave_before_s: So long before the end it is time to leave.
            clock: Seconds since the epoch.
        """
        self._clock = clock
        end = clock() + time_limit_s if time_limit_s is not None else float(os.environ.get(SLURM_END, "inf"))
        self._leave_at = end - leave_before_s

    def is_ending(self, next_s: float) -> bool:
        """Whether something that takes `next_s` seconds would end too late."""
        return self._clock() + next_s > self._leave_at
