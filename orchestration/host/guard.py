"""The guard: a small process that outlives the driver and ends what it leaves behind.

Ray ends most of its processes when a driver is killed, but its agents, and whatever hangs, stay. The guard waits on a
pipe that only the driver holds open; when the pipe closes, however the driver ended, the run's processes get time to
leave and are then killed, by pid. It knows them in two ways: every process of a run inherits one token in its
environment, and the guard looks now and then who descends from the driver. Either alone has holes: a process that sets
its title wipes its environment (Ray's agents do), and an orphan no longer tells whose child it was.
"""

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN_VARIABLE = "MIXED_R1_RUN_TOKEN"
LEAVE_S = 4.0
POLL_S = 0.2
LOOK_S = 2.0
"""Between two looks at the driver's descendants."""


@contextmanager
def guarded() -> Iterator[None]:
    """Within the block, processes started from here are ended when this process is gone, killed or not."""
    os.environ.pop(TOKEN_VARIABLE, None)
    token = uuid.uuid4().hex
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-m", "orchestration.host.guard", token, str(os.getpid())],
        stdin=read_end,
        start_new_session=True,  # Ctrl-C in the terminal must not reach it
        cwd=Path(__file__).parents[1],
    )
    os.close(read_end)
    os.environ[TOKEN_VARIABLE] = token
    try:
        yield
    finally:
        os.environ.pop(TOKEN_VARIABLE)
        os.close(write_end)
        guard.wait()


@dataclass(frozen=True, slots=True)
class Process:
    """What tells one process from a later one with the same pid, and whose child it is."""

    parent: int
    started: int
    """Clock ticks since boot."""


class Family:
    """The processes of one run, as far as they were seen."""

    def __init__(self, token: str, driver: int) -> None:
        """Begin with the driver; only what starts from now on is its family."""
        table = processes()
        self._token = token
        self._driver = driver
        self._since = table[os.getpid()].started
        self._seen = {driver: table[driver]} if driver in table else {}

    def look(self) -> None:
        """Add the bearers of the token and the living descendants of everyone seen so far."""
        table = processes()
        for pid in bearers(self._token):
            if pid in table:
                self._seen[pid] = table[pid]
        known = set(self._among(table))
        for pid, process in sorted(table.items(), key=lambda item: item[1].started):
            if process.parent in known and process.started >= self._since and pid not in known | {os.getpid()}:
                known.add(pid)
                self._seen[pid] = process

    def alive(self) -> list[int]:
        """Process ids of the family that still run, the driver left out."""
        self.look()
        return [pid for pid in self._among(processes()) if pid != self._driver]

    def _among(self, table: dict[int, Process]) -> list[int]:
        """Pids of those seen that are in the table, the very ones."""
        return [pid for pid, seen in self._seen.items() if pid in table and table[pid].started == seen.started]


def processes() -> dict[int, Process]:
    """All processes of this machine by pid, without those that are dead and only wait to be noticed."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The command stands in parentheses and may hold anything; state, parent, ... follow it.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # gone meanwhile
            if fields[0] != "Z":
                table[int(entry.name)] = Process(parent=int(fields[1]), started=int(fields[19]))
    return table


def bearers(token: str) -> list[int]:
    """Process ids whose environment carries the token."""
    needle = f"{TOKEN_VARIABLE}={token}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def watch(family: Family) -> None:
    """Look at the family until the driver is gone."""
    while not select.select([sys.stdin], [], [], LOOK_S)[0]:
        family.look()


def end(family: Family, *, leave_s: float = LEAVE_S) -> None:
    """Wait until the family has left; kill those that stay longer."""
    deadline = time.monotonic() + leave_s
    while (left := family.alive()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_S)
        left = family.alive()


if __name__ == "__main__":
    # Whoever stops a Ray job asks the driver and all its children to leave at once; the guard leaves last.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched = Family(sys.argv[1], int(sys.argv[2]))
    watch(watched)
    end(watched)
