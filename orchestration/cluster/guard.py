"""The guard: a small process that outlives the driver and ends what it leaves behind.

Ray ends most of its processes when a driver is killed, but its agents, and whatever hangs, stay. The guard waits on a
pipe that only the driver holds open; when the pipe closes, however the driver ended, the run's processes get time to
leave and are then killed, by pid. It finds them in two ways: what a run starts gets a token in its environment, and the
guard searches for descendants of such processes at intervals. Either alone has holes: a process that sets its title
wipes its environment (Ray's agents do), and an orphan no longer shows whose child it was. Other children of the driver
are left alone: a program that uses this package may have some of its own.
"""

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN_VARIABLE = "MIXED_R1_RUN_TOKEN"
LEAVE_S = 4.0
POLL_S = 0.2
UPDATE_S = 2.0
"""Between two searches for descendants."""


@contextmanager
def guarded() -> Iterator[Mapping[str, str]]:
    """End processes that are started in the block, with the variables that it yields, when this process ends.

    Yields:
        Environment variables that mark a process and its descendants, and let them import what this process imports:
        nothing of the working directory.
    """
    token = uuid.uuid4().hex
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-P", __file__, token],
        stdin=read_end,
        start_new_session=True,  # Ctrl-C in the terminal must not reach it
    )
    os.close(read_end)
    try:
        yield {TOKEN_VARIABLE: token, **_module_path()}
    finally:
        os.close(write_end)
        guard.wait()


def _module_path() -> dict[str, str]:
    """Return the variables that keep the working directory off a child's module path, and our packages on it."""
    # Python adds the working directory for `python -c` and `python -m`.
    variables = {"PYTHONSAFEPATH": "1"}
    if (root := checkout()) is not None:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return variables


def checkout() -> Path | None:
    """Return the folder that holds our packages; None where they are installed, so that every Python finds them."""
    source = Path(__file__).parents[2]
    return None if source.name in ("site-packages", "dist-packages") else source


@dataclass(frozen=True, slots=True)
class Process:
    """Identity of a process, which a later one with the same pid does not share, and its parent."""

    parent: int
    started: int
    """Clock ticks since boot."""


class RunProcesses:
    """The processes of one run, as far as they were seen."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._seen: dict[int, Process] = {}

    def update(self) -> None:
        """Add the processes with the token and the living descendants of all seen so far."""
        table = processes()
        for pid in marked_processes(self._token):
            if pid in table:
                self._seen[pid] = table[pid]
        known = set(self._among(table))
        for pid, process in sorted(table.items(), key=lambda item: item[1].started):
            if process.parent in known and pid not in known:
                known.add(pid)
                self._seen[pid] = process

    def alive(self) -> list[int]:
        """Return the process ids of those that still run."""
        self.update()
        return self._among(processes())

    def _among(self, table: dict[int, Process]) -> list[int]:
        """Return the pids of those seen that are in the table and are still the same processes."""
        return [pid for pid, seen in self._seen.items() if pid in table and table[pid].started == seen.started]


def processes() -> dict[int, Process]:
    """Return all processes of this machine by pid, without zombies."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The command is in parentheses and may hold anything; state, parent, ... follow it.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # gone meanwhile
            if fields[0] != "Z":
                table[int(entry.name)] = Process(parent=int(fields[1]), started=int(fields[19]))
    return table


def marked_processes(token: str) -> list[int]:
    """Return the process ids whose environment has the token."""
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


def watch(running: RunProcesses) -> None:
    """Watch the processes until the driver has left the block or has died."""
    while not select.select([sys.stdin], [], [], UPDATE_S)[0]:
        running.update()


def end(running: RunProcesses, *, leave_s: float = LEAVE_S) -> None:
    """Wait until all have left; kill those that stay longer."""
    deadline = time.monotonic() + leave_s
    while (left := running.alive()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_S)
        left = running.alive()


if __name__ == "__main__":
    # Whoever stops a Ray job asks the driver and all its children to leave at once; the guard leaves last.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched = RunProcesses(sys.argv[1])
    watch(watched)
    end(watched)
