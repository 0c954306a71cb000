"""Kills single processes of a running job, by pid, and says which role each one had."""

import os
import signal
from pathlib import Path

from tests.integration.driver import Driver

TITLES = {
    "engine core": "VLLM::EngineCore",
    "engine actor": "ray::EngineActor",
    "reward actor": "ray::RewardActor",
    "learner rank": "ray::LearnerActor",
}
"""How the processes of each role call themselves."""


def processes_of(driver: Driver, role: str) -> list[int]:
    """Living processes of a role that descend from the driver."""
    title = TITLES[role].encode()
    return [pid for pid in descendants(driver.process.pid) if _read(pid, "cmdline").startswith(title)]


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Whether the process was still there to be killed."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def descendants(root: int) -> list[int]:
    """Everything below a process, by the parent that the kernel knows."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _read(int(entry.name), "stat").rpartition(b")")[2].split()):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return sorted(found)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
