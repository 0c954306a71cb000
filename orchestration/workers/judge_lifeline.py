"""A process that runs a command and ends it, with all that it has started, as soon as its own parent is gone.

A judge's server has processes of its own, which on a GPU hold its memory. An actor is ended by SIGKILL and can tidy
nothing; but the pipe to this process closes with it. Started with a session of its own, this process leads the group in
which the command and its descendants are.
"""

import os
import signal
import subprocess
import sys
import threading


def end_group_with_parent() -> None:
    """Wait for the end of standard input, which the parent alone holds open; then kill the group, this process too."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    if os.getpgid(0) != os.getpid():
        raise SystemExit("judge_lifeline kills its process group and must lead it; start it in a session of its own")
    threading.Thread(target=end_group_with_parent, daemon=True).start()
    code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
    print(f"the judge's server ended with exit code {code}", flush=True)
    os.killpg(0, signal.SIGKILL)
