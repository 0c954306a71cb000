"""The guard ends exactly the processes of its run, also when the driver is killed."""

import os
import signal
import subprocess
import sys

from orchestration.cluster.guard import TOKEN_VARIABLE, RunProcesses, end, guarded, marked_processes

CHILD = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def spawn(token: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(CHILD, env={**os.environ, TOKEN_VARIABLE: token}, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def test_only_bearers_of_the_token_are_ended() -> None:
    ours, other = spawn("ours-1"), spawn("ours-12")
    assert marked_processes("ours-1") == [ours.pid]
    code = "from orchestration.cluster.guard import RunProcesses, end; end(RunProcesses('ours-1'), leave_s=0.0)"
    guard = subprocess.Popen([sys.executable, "-c", code])
    assert ours.wait(timeout=20) == -signal.SIGKILL
    assert guard.wait(timeout=20) == 0
    assert other.poll() is None
    other.kill()
    other.wait()


def test_nothing_to_end_returns_at_once() -> None:
    end(RunProcesses("nobody"), leave_s=1000.0)


def test_children_of_a_bearer_are_known_without_the_token_and_other_children_of_the_driver_are_not_ours() -> None:
    others = spawn("none")
    wiped = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], env={})"
    grandchild = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    bearer = subprocess.Popen(
        [sys.executable, "-c", wiped, grandchild], env={**os.environ, TOKEN_VARIABLE: "ours-2"}, stdout=subprocess.PIPE
    )
    assert bearer.stdout is not None
    wiped_pid = int(bearer.stdout.readline())
    running = RunProcesses("ours-2")
    running.update()
    bearer.kill()
    bearer.wait()
    assert running.alive() == [wiped_pid]  # an orphan by now
    os.kill(wiped_pid, signal.SIGKILL)
    others.kill()
    others.wait()


def test_the_marks_keep_the_working_directory_off_the_module_path_of_children(tmp_path) -> None:
    (tmp_path / "rewards.py").write_text("raise SystemExit('imported from the working directory')")
    with guarded() as marks:
        child = [sys.executable, "-m", "orchestration.cli", "--help"]
        subprocess.run(child, cwd=tmp_path, env={**os.environ, **marks}, check=True, stdout=subprocess.DEVNULL)
        assert TOKEN_VARIABLE not in os.environ


def test_killed_driver_takes_its_children_with_it() -> None:
    driver_code = """
import os, subprocess, sys, time
from orchestration.cluster.guard import guarded
with guarded() as marks:
    # What is to be ended has an empty environment; who started it lives until the driver is killed.
    shell = ["/bin/sh", "-c", "env -i sleep 600 & echo $!; wait"]
    between = subprocess.Popen(shell, stdout=subprocess.PIPE, text=True, env={**os.environ, **marks})
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
