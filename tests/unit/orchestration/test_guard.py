"""The guard ends exactly the processes of its run, also when the driver is killed."""

import os
import signal
import subprocess
import sys

from orchestration.host.guard import TOKEN_VARIABLE, Family, bearers, end

CHILD = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def spawn(token: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(CHILD, env={**os.environ, TOKEN_VARIABLE: token}, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def test_only_bearers_of_the_token_are_ended() -> None:
    ours, other = spawn("ours-1"), spawn("ours-12")
    assert bearers("ours-1") == [ours.pid]
    code = "from orchestration.host.guard import Family, end; end(Family('ours-1', 1 << 30), leave_s=0.0)"
    guard = subprocess.Popen([sys.executable, "-c", code])
    assert ours.wait(timeout=20) == -signal.SIGKILL
    assert guard.wait(timeout=20) == 0
    assert other.poll() is None
    other.kill()
    other.wait()


def test_nothing_to_end_returns_at_once() -> None:
    end(Family("nobody", 1 << 30), leave_s=1000.0)


def test_descendants_are_known_without_the_token_and_older_children_are_not_ours() -> None:
    older = spawn("none")
    code = """
import os, subprocess, sys
from orchestration.host.guard import Family
family = Family("nobody", os.getppid())
sys.stdin.readline()
print(family.alive(), flush=True)
"""
    watcher = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    wiped = subprocess.Popen(CHILD, env={}, stdout=subprocess.PIPE)
    assert wiped.stdout is not None
    wiped.stdout.readline()
    watcher.stdin.write("look\n")
    watcher.stdin.flush()
    assert watcher.stdout.readline() == f"[{wiped.pid}]\n"
    watcher.wait(timeout=20)
    for child in (older, wiped):
        child.kill()
        child.wait()


def test_killed_driver_takes_its_children_with_it() -> None:
    driver_code = """
import os, subprocess, sys, time
from orchestration.host.guard import guarded
with guarded():
    # What is to be ended has an empty environment; who started it lives until the driver is killed.
    between = subprocess.Popen(["/bin/sh", "-c", "env -i sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    print(between.stdout.readline(), flush=True)
    time.sleep(600)
"""
    driver = subprocess.Popen([sys.executable, "-c", driver_code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child_pid = int(driver.stdout.readline())
    descriptor = os.pidfd_open(child_pid)
    driver.kill()
    driver.wait()
    import select

    ended, _, _ = select.select([descriptor], [], [], 30)
    os.close(descriptor)
    assert ended, f"child {child_pid} outlived its driver by 30 s"
