"""Lifetime of engine processes: calls that fail when the core process dies, and a core that dies with its parent.

By itself vLLM never answers a utility call (pause, weight update, heartbeat) during which the core dies; only
generation requests fail.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from rollout.errors import EngineDiedError

T = TypeVar("T")

POLL_S = 1.0
"""Time between two measurements of the CPU time of a core that does not answer."""
BUSY_SHARE = 0.05
"""Share of one CPU over that time above which a process works, even where many share few CPUs; waiting uses none."""

LEAVE_S = 1.0
"""A core that fails reports it before it ends; wait this long for its exit code."""
REAP_S = 0.2
"""Time between the end of a process and its exit code; blocks the event loop, once the engine is lost anyway."""


class CoreWatch:
    """Waits for calls to an engine and for the death of its processes at once.

    Consumes: calls. Produces: their results. Woken by: the result, or the end of a process, whichever is first.
    """

    def __init__(self, processes: Sequence[BaseProcess], *, dead_error: type[Exception]) -> None:
        """Watch processes that multiprocessing started; `dead_error` is what the engine raises when one died."""
        self._processes = list(processes)
        self._dead_error = dead_error
        self._died: asyncio.Future[None] | None = None
        self._asked: asyncio.Task[Any] | None = None
        self._asked_at = 0.0

    async def busy_s(self, ask: Callable[[], Coroutine[Any, Any, Any]]) -> float:
        """Return for how many seconds the core has been in its current step; 0 if it answers.

        A core answers between steps. During a step, it or a child process uses CPU time. A core that is stopped or
        hangs uses none, and then this does not return: the caller sets a timeout. As long as one call of `ask` has no
        answer, no other is made.

        Args:
            ask: a call that the core answers between steps.

        Raises:
            EngineDiedError: a process of the engine ended.
        """
        if self._asked is None or self._asked.done():
            self._asked, self._asked_at = asyncio.ensure_future(self.during(ask())), time.monotonic()
        asked, used = self._asked, self.cpu_seconds()
        while True:
            await asyncio.wait({asked}, timeout=POLL_S)
            if asked.done():
                asked.result()
                return 0.0
            before, used = used, self.cpu_seconds()
            if used - before >= BUSY_SHARE * POLL_S:
                return time.monotonic() - self._asked_at

    def cpu_seconds(self) -> float:
        """Return the CPU time of the watched processes and of those under them, so far."""
        return sum(_cpu_seconds(process.pid) for process in self._processes if process.pid is not None)

    async def during(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the result of a call.

        Raises:
            EngineDiedError: a process of the engine ended before the call was answered.
        """
        died = self._death()
        task = asyncio.ensure_future(call)
        first: set[asyncio.Future[Any]] = {task, died}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        except self._dead_error as error:
            await asyncio.wait({died}, timeout=LEAVE_S)
            raise EngineDiedError(f"{self._exit_report()} ({error})") from error
        finally:
            task.cancel()
        raise EngineDiedError(self._exit_report())

    def _exit_report(self) -> str:
        """Return which process ended how, for an error's text."""
        if self._died is not None and self._died.done():
            self._wait_for_an_exit_code()
        ended = [f"process {p.pid} {_how(p.exitcode)}" for p in self._processes if p.exitcode is not None]
        return f"the engine's core is gone ({', '.join(ended) or 'still ending'}); its log says why"

    def _wait_for_an_exit_code(self) -> None:
        """Wait, though not long: vLLM's own thread may have reaped the process, and knows the code once it runs on."""
        until = time.monotonic() + REAP_S
        while all(process.exitcode is None for process in self._processes) and time.monotonic() < until:
            time.sleep(REAP_S / 100)

    def _death(self) -> asyncio.Future[None]:
        """A future that is done once a process has ended; made by the first call, which knows the event loop."""
        if self._died is None:
            loop = asyncio.get_running_loop()
            self._died = loop.create_future()
            for process in self._processes:
                loop.add_reader(process.sentinel, self._note_death, process.sentinel)
        return self._died

    def _note_death(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        if self._died is not None and not self._died.done():
            self._died.set_result(None)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and of all under it; 0 of one that has ended."""
    folder = Path("/proc") / str(pid)
    try:
        # Behind the name, which may hold anything but ends in the last parenthesis: see proc(5).
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        children = [child for task in folder.glob("task/*/children") for child in task.read_text().split()]
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_seconds(int(child)) for child in children)


def _how(exit_code: int | None) -> str:
    return (
        f"was killed by signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exited with {exit_code}"
    )


PR_SET_PDEATHSIG = 1
"""Of Linux's prctl."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even if it is stopped or hangs.

    vLLM's own children notice a dead parent on a pipe, which needs a process that still runs. Does nothing in a process
    that multiprocessing did not start. The signal comes when the thread that started this process ends: start engines
    from a thread that lives as long as they do.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if not parent.is_alive():
        os.kill(os.getpid(), signal.SIGKILL)  # it died before the call of prctl
