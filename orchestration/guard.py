"""The guard: a small process that outlives the driver and ends what it leaves behind.

Ray ends most of its processes when a driver is killed, but its agents, and whatever hangs, stay. Every process of a
run inherits one token in its environment. The guard waits on a pipe that only the driver holds open; when the pipe
closes, however the driver ended, processes that still carry the token get time to leave and are then killed, by pid.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOKEN_VARIABLE = "MIXED_R1_RUN_TOKEN"
LEAVE_S = 4.0
POLL_S = 0.2


@contextmanager
def guarded() -> Iterator[None]:
    """Within the block, processes started from here are ended when this process is gone, killed or not."""
    os.environ.pop(TOKEN_VARIABLE, None)
    token = uuid.uuid4().hex
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-m", "orchestration.guard", token],
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


def end_bearers(token: str, *, leave_s: float = LEAVE_S) -> None:
    """Wait until the token's processes have left; kill those that stay longer."""
    deadline = time.monotonic() + leave_s
    while (left := bearers(token)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_S)
        left = bearers(token)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_bearers(sys.argv[1])
