"""The kinds of failure, and the log in which a run counts what it survives.

- data: a sample, an image, a reference or a grader that cannot be used. The group is dropped and counted; the run ends
  above `training.max_drop_frac`.
- infrastructure: a process, a node, an object or a transfer that went away. It is replaced and its work repeated,
  within the limits of `cluster.faults`.
- bug: everything else. The run ends at once, with its traceback.

Whatever ends a run, a healthy learner is saved first (`Run.rescue`).
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.errors import TooManyFaultsError
from orchestration.storage.files import append_json_line, read_json_lines


class Role(StrEnum):
    """What failed."""

    ENGINE = "engine"
    ELASTIC = "elastic_engine"
    """An engine beyond `rollout.engines`; it may go with its machine at any time, so no number of these is too many."""
    REWARD = "reward"
    JUDGE = "judge"
    """The server of a judge."""
    LEARNER = "learner"
    TRANSFER = "transfer"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One infrastructure fault that the run survived."""

    role: Role
    index: int
    """Which engine, reward actor or rank."""
    cause: str
    at: float
    """Seconds of the clock since the epoch."""


class FaultLog:
    """Counts faults by role, appends each to the file `path`, and ends the run when a role has too many of them."""

    def __init__(
        self, limits: FaultsConfig, path: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._limits = {
            Role.ENGINE: limits.max_engine_faults,
            Role.ELASTIC: math.inf,
            Role.REWARD: limits.max_reward_faults,
            Role.JUDGE: limits.max_judge_faults,
            Role.LEARNER: limits.max_learner_faults,
            Role.TRANSFER: limits.max_transfer_faults,
            Role.CHECKPOINT: limits.max_checkpoint_faults,
        }
        self._window_s = limits.window_s
        self._path = path
        self._clock = clock
        self._recent: dict[Role, deque[float]] = {role: deque() for role in Role}
        self._counts: Counter[Role] = Counter()

    def record(self, role: Role, index: int, cause: str) -> Fault:
        """Count one fault.

        Raises:
            TooManyFaultsError: this role had more faults within the window than `cluster.faults` allows.
            InfrastructureError: the file cannot be written.
        """
        fault = Fault(role=role, index=index, cause=cause, at=self._clock())
        self._counts[role] += 1
        if self._path is not None:
            append_json_line(self._path, asdict(fault))
        recent = self._recent[role]
        recent.append(fault.at)
        while recent[0] < fault.at - self._window_s:
            recent.popleft()
        if len(recent) > self._limits[role]:
            raise TooManyFaultsError(
                f"{len(recent)} {role} faults within {self._window_s:g} s, more than "
                f"cluster.faults.max_{role}_faults={self._limits[role]}; the last, of {role} {index}: {cause}. The run "
                "continues from its latest checkpoint with the same command"
            )
        return fault

    def counts(self) -> dict[str, float]:
        """Return the faults so far by role, as metrics."""
        return {f"faults/{role}": float(self._counts[role]) for role in Role}


def read_faults(path: Path) -> list[Fault]:
    """Return all faults of a file that `FaultLog` wrote, oldest first; a line that a kill cut short is left out."""
    return [Fault(**record) for record in read_json_lines(path, *(field.name for field in fields(Fault)))]
