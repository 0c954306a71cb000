"""A math grader in a process of its own: it can be killed, which no thread and no signal handler can promise.

The child is a plain script (math_worker.py) that reads and writes JSON lines; it starts neither from a fork of a
process with threads nor by re-importing the caller's main module, so it works inside of any actor framework.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict, cast

START_LIMIT_S = 120.0
"""Importing SymPy takes a second, on a loaded machine many; it does not count as grading."""
WALL_LIMIT_S = 120.0
"""Beside its CPU time: a worker that was given so little of a processor has failed, and its answer has not."""

_WORKER = Path(__file__).with_name("math_worker.py")


class Verdict(TypedDict):
    """The worker's answer."""

    readable: bool
    """Whether the reply parsed."""
    equal: bool


class GraderTimeoutError(TimeoutError):
    """The grader used up the CPU time of its question and was killed."""


class GraderCrashError(RuntimeError):
    """The grader raised, died, or never started."""


class GraderProcess:
    """Owns at most one worker; starts it when first asked, and anew after a kill. Not for concurrent callers."""

    def __init__(self, *, timeout_s: float) -> None:
        """Keep the limit of one question in seconds of CPU time; nothing is started yet."""
        self._timeout_s = timeout_s
        self._worker: subprocess.Popen[bytes] | None = None

    def ask(self, gold: str, reply: str) -> Verdict:
        """Compare two LaTeX expressions.

        Raises:
            GraderTimeoutError: If the worker used up its CPU time; it is gone then.
            GraderCrashError: If the worker raised, died, or got hardly any CPU time in WALL_LIMIT_S.
        """
        worker = self._running()
        question = json.dumps({"gold": gold, "reply": reply, "cpu_limit_s": self._timeout_s})
        assert worker.stdin is not None
        try:
            worker.stdin.write(question.encode() + b"\n")
            worker.stdin.flush()
        except BrokenPipeError as error:
            self.close()
            raise GraderCrashError("the math grader died before it was asked") from error
        answer = self._read(worker, WALL_LIMIT_S + 4 * self._timeout_s)
        if "error" in answer:
            raise GraderCrashError(str(answer["error"]))
        return cast(Verdict, answer)

    def close(self) -> None:
        """Kill the worker, if there is one, and wait until it is gone."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._worker is not None and self._worker.poll() is not None:
            self.close()
        if self._worker is None:
            # -P keeps this folder off the child's module path, where our units.py and others could shadow names.
            self._worker = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            self._read(self._worker, START_LIMIT_S)
        return self._worker

    def _read(self, worker: "subprocess.Popen[bytes]", limit_s: float) -> dict[str, object]:
        """Read one JSON line within the limit, else kill the worker."""
        assert worker.stdout is not None
        deadline = time.monotonic() + limit_s
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                remaining = deadline - time.monotonic()
                if remaining <= 0.0 or not selector.select(remaining):
                    self.close()
                    raise GraderCrashError(f"the math grader gave no answer within {limit_s:g} s of a busy machine")
                chunk = os.read(worker.stdout.fileno(), 65536)
                if not chunk:
                    exit_code = worker.wait()
                    self.close()
                    if exit_code == -signal.SIGPROF:
                        raise GraderTimeoutError(f"the math grader used up its {self._timeout_s:g} s of CPU time")
                    raise GraderCrashError("the math grader died while it was working")
                received += chunk
        return cast("dict[str, object]", json.loads(received))
