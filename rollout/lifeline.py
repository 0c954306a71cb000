"""A child process that the kernel ends together with its parent."""

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl."""


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, even if it is stopped or hangs.

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
        os.kill(os.getpid(), signal.SIGKILL)  # it died before the kernel knew whom to tell
