"""The guard ends exactly the processes that carry its token, also when the driver is killed."""

import os
import signal
import subprocess
import sys

from orchestration.guard import TOKEN_VARIABLE, bearers, end_bearers

CHILD = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def spawn(token: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(CHILD, env={**os.environ, TOKEN_VARIABLE: token}, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def test_only_bearers_of_the_token_are_ended() -> None:
    ours, other = spawn("ours-1"), spawn("ours-12")
    assert bearers("ours-1") == [ours.pid]
    ours_killed = subprocess.Popen(
        [sys.executable, "-c", "from orchestration.guard import end_bearers; end_bearers('ours-1', leave_s=0.0)"]
    )
    assert ours.wait(timeout=20) == -signal.SIGKILL
    assert ours_killed.wait(timeout=20) == 0
    assert other.poll() is None
    other.kill()
    other.wait()


def test_nothing_to_end_returns_at_once() -> None:
    end_bearers("nobody", leave_s=1000.0)


def test_killed_driver_takes_its_children_with_it() -> None:
    driver_code = f"""
import os, subprocess, sys, time
from orchestration.guard import guarded
with guarded():
    child = subprocess.Popen({CHILD!r}, start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
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
