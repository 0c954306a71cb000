"""A time limit for a function of the user's that runs in this process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0
"""A function may catch what is raised in it; it is raised again after so long."""


class OutOfTimeError(BaseException):
    """Raised where the code is when its time is over; no Exception, so that code which goes on after those ends."""


@contextmanager
def time_limit(limit_s: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block once it has taken `limit_s` seconds.

    Interrupts Python, and calls that wait (sleep, locks, sockets). A call of native code that answers no signal is
    interrupted when it returns. For the main thread alone, in which tasks run: no other receives signals.
    """
    is_over = False

    def ring(number: int, frame: FrameType | None) -> None:
        if not is_over:
            raise OutOfTimeError(f"no answer within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, AGAIN_S)
    try:
        try:
            yield
        finally:
            is_over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
