"""Runs the real command in a process of its own and keeps count of every process that it starts."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

MARK = "MIXED_R1_TEST_MARK"
STARTED: "list[Driver]" = []
"""By the test that runs; whatever of them it leaves running, after a failure, ends with it."""


class Driver:
    """`mixed-r1` as a user starts it, in its own process group, with everything it spawns marked by environment."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self.output_path = folder / f"output_{self.mark}.txt"
        with self.output_path.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestration.cli", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, MARK: self.mark},
                start_new_session=True,
            )
        STARTED.append(self)

    def end(self) -> None:
        """End the command if it still runs; its children end with it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def finish(self, timeout_s: float = 400.0) -> int:
        return self.process.wait(timeout=timeout_s)

    def wait_for(self, path: Path, num_lines: int, timeout_s: float = 300.0) -> None:
        """Until the file has that many whole lines."""
        self.poll(lambda: path.is_file() and path.read_text().count("\n") >= num_lines, timeout_s)

    def wait_for_any(self, folder: Path, pattern: str, timeout_s: float = 300.0) -> None:
        """Until a file of the pattern is in the folder."""
        self.poll(lambda: any(folder.glob(pattern)), timeout_s)

    def send(self, number: signal.Signals) -> None:
        """To the whole foreground group for Ctrl-C, as a terminal does; to the driver alone otherwise."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def leftovers(self, timeout_s: float = 30.0) -> list[str]:
        """Names of marked processes that are still there when the time is over; empty as soon as none is left."""
        deadline = time.monotonic() + timeout_s
        while (found := self._marked()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _marked(self) -> list[str]:
        needle = f"{MARK}={self.mark}".encode()
        names = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                # A process that sets its title wipes its environment; its session stays the one the driver began.
                is_marked = needle in (entry / "environ").read_bytes().split(b"\0")
                if is_marked or os.getsid(int(entry.name)) == self.process.pid:
                    names.append(f"{(entry / 'comm').read_text().strip()} ({entry.name})")
            except OSError:
                continue
        return names

    def poll(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Until the condition holds; the process must still run."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended early with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"waited {timeout_s} s:\n{self.output}"
            time.sleep(0.1)
