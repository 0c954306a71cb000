"""A grader in a process of its own: it can be killed, which no thread and no signal handler can promise.

The child is a plain script (math_worker.py, own_worker.py) that reads and writes JSON lines; it starts neither from a
fork of a process with threads nor by re-importing the caller's main module, so it works inside of any actor framework.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

START_LIMIT_S = 120.0
"""Importing SymPy takes a second, on a loaded machine many; it does not count as grading."""
MAX_LAST_WORDS = 64 * 1024


class GraderTimeoutError(TimeoutError):
    """The grader gave no answer in its time and was killed."""


class GraderCrashError(RuntimeError):
    """The grader raised, died, or never started."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        """Keep the message, and how the process ended where it did: negative is a signal."""
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class GraderProcess:
    """Owns at most one child; starts it when first asked, and anew after a kill. Not for concurrent callers.

    The child is the leader of a process group, which is killed whole. A child that loses its parent reads the end of
    its input; ending then, even in the middle of a question, is its own duty.
    """

    def __init__(
        self,
        script: Path,
        *,
        name: str,
        greeting: Mapping[str, Any] | None = None,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        """Keep what a child needs; nothing is started yet.

        Args:
            script: Python file that answers each line of JSON on its input; its first line says that it is ready.
            name: What it is called in messages.
            greeting: The first line that it reads; None sends none.
            start_limit_s: Time until it is ready.
        """
        self._script = script
        self._name = name
        self._greeting = greeting
        self._start_limit_s = start_limit_s
        self._worker: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._notes: IO[bytes] | None = None
        self.last_words = ""
        """What the last child that ended had written of its end into the file whose descriptor is its argument."""

    def start(self) -> dict[str, Any] | None:
        """Start a child unless one lives, and return its first line; None where it lives already.

        Raises:
            GraderCrashError: It ended before it was ready.
            GraderTimeoutError: It was not ready in time.
        """
        if self._worker is not None and self._worker.poll() is not None:
            self.close()
        if self._worker is not None:
            return None
        self._notes = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child lives
        notes = self._notes.fileno()
        # -P keeps this folder off the child's module path, where our units.py and others could shadow names.
        self._worker = subprocess.Popen(
            [sys.executable, "-P", str(self._script), str(notes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(notes,),
            process_group=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._worker.stdin is not None
        os.set_blocking(self._worker.stdin.fileno(), False)
        if self._greeting is not None:
            self.send(self._greeting, self._start_limit_s)
        return self.receive(self._start_limit_s)

    def ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Return the one line that answers a question; starts a child where none lives.

        Raises:
            GraderTimeoutError: There was no answer within `limit_s`; the child is gone then.
            GraderCrashError: The child died.
        """
        self.start()
        self.send(question, limit_s)
        return self.receive(limit_s)

    def send(self, question: Mapping[str, Any], limit_s: float) -> None:
        """Write a question to the child, which must have been started; raises as `ask`."""
        worker = self._worker
        assert worker is not None
        assert worker.stdin is not None
        line = memoryview(json.dumps(question).encode() + b"\n")
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdin, selectors.EVENT_WRITE)
            while line:
                remaining = deadline - time.monotonic()
                if remaining <= 0.0 or not selector.select(remaining):
                    raise self._silent(limit_s)
                try:
                    line = line[os.write(worker.stdin.fileno(), line) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError as error:
                    raise self._died() from error

    def receive(self, limit_s: float) -> dict[str, Any]:
        """Return the next line of the child; raises as `ask`."""
        worker = self._worker
        assert worker is not None
        assert worker.stdout is not None
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                remaining = deadline - time.monotonic()
                if remaining <= 0.0 or not selector.select(remaining):
                    raise self._silent(limit_s)
                chunk = os.read(worker.stdout.fileno(), 65536)
                if not chunk:
                    raise self._died()
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Kill the child with all that it started, and wait until it is gone."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        # The group may outlive its leader, and may be gone.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._received = b""
        if self._notes is not None:
            self._notes.seek(0)
            self.last_words = self._notes.read(MAX_LAST_WORDS).decode(errors="replace")
            self._notes.close()
            self._notes = None

    def _silent(self, limit_s: float) -> GraderTimeoutError:
        self.close()
        return GraderTimeoutError(f"{self._name} gave no answer within {limit_s:g} s and was killed")

    def _died(self) -> GraderCrashError:
        """End what is left of a child that closed its pipes, and say how it ended."""
        worker = self._worker
        assert worker is not None
        try:
            exit_code: int | None = worker.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            exit_code = None  # it closed its output and lives
        self.close()
        return GraderCrashError(f"{self._name} ended while it was asked", exit_code)
