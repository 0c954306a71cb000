"""Calls that end when a watched process does, and processes that end with their parent."""

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import select
import signal
from typing import Any

import pytest

from rollout import core_watch
from rollout.core_watch import CoreWatch, die_with_parent
from rollout.errors import EngineDiedError

CONTEXT = multiprocessing.get_context("spawn")
POLL_S = 0.05
"""Of the tests; five clock ticks."""


class DeadError(Exception):
    """What the engine raises of its own death."""


async def value(result: Any) -> Any:
    return result


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail() -> None:
    raise DeadError("no core")


def wait_for_ever() -> None:
    signal.pause()


def say_so_and_begin(parent: Any, target: Any) -> None:
    parent.send("begins")
    target()


def work_for_ever() -> None:
    while True:
        pass


def parent_of_a_stopped_child(pids: Any) -> None:
    child = CONTEXT.Process(target=stop_after_lifeline, args=(pids,))
    child.start()
    signal.pause()


def stop_after_lifeline(pids: Any) -> None:
    die_with_parent()
    pids.send(os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_call_without_an_answer_ends_with_the_process_it_waits_for() -> None:
    async def run() -> None:
        process = CONTEXT.Process(target=wait_for_ever)
        process.start()
        watch = CoreWatch([process], dead_error=DeadError)
        assert await watch.during(value(4)) == 4
        waiting = asyncio.ensure_future(watch.during(never()))
        await asyncio.sleep(0)
        process.kill()
        with pytest.raises(EngineDiedError, match=f"process {process.pid} was killed by signal 9"):
            await waiting
        with pytest.raises(EngineDiedError):
            await watch.during(never())

    asyncio.run(run())


class ReapedElsewhere:
    """A process that has ended, and whose exit code another thread has taken and not noted yet."""

    def __init__(self) -> None:
        self.sentinel, write_end = os.pipe()
        os.close(write_end)
        self.pid = 7
        self._answers = iter([None, None, None])

    @property
    def exitcode(self) -> int | None:
        return next(self._answers, -9)

    def join(self, timeout: float) -> None:
        """As multiprocessing does: nothing is left to wait for."""


def test_an_exit_code_that_another_thread_has_taken_is_waited_for() -> None:
    process: Any = ReapedElsewhere()
    with pytest.raises(EngineDiedError, match="process 7 was killed by signal 9"):
        asyncio.run(CoreWatch([process], dead_error=DeadError).during(never()))
    os.close(process.sentinel)


def test_the_engines_own_word_for_its_death_becomes_ours() -> None:
    with pytest.raises(EngineDiedError, match="no core") as caught:
        asyncio.run(CoreWatch([], dead_error=DeadError).during(fail()))
    assert isinstance(caught.value.__cause__, DeadError)


def test_a_stopped_process_dies_with_its_parent() -> None:
    received, sent = CONTEXT.Pipe(duplex=False)
    parent = CONTEXT.Process(target=parent_of_a_stopped_child, args=(sent,))
    parent.start()
    child = os.pidfd_open(received.recv())
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    is_gone = bool(select.select([child], [], [], 10.0)[0])
    if not is_gone:
        signal.pidfd_send_signal(child, signal.SIGKILL)
    os.close(child)
    assert is_gone, "the child outlived its parent"


def test_a_process_that_nobody_started_as_its_child_stays_without_a_lifeline() -> None:
    die_with_parent()
    number = ctypes.c_int(-1)
    get_pdeathsig = 2
    ctypes.CDLL(None).prctl(get_pdeathsig, ctypes.byref(number))
    assert number.value == 0


def beats_of(target: Any, *, stop: bool = False, limit_s: float | None = None) -> tuple[list[float], int]:
    """Three heartbeats of a core that never answers, as far as they come, and how often it was asked."""
    num_asked = 0

    async def ask() -> None:
        nonlocal num_asked
        num_asked += 1
        await never()

    async def run() -> list[float]:
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=say_so_and_begin, args=(there, target))
        process.start()
        assert here.recv() == "begins"
        try:
            if stop:
                os.kill(process.pid or 0, signal.SIGSTOP)
                os.waitpid(process.pid or 0, os.WUNTRACED)  # until it stands
            watch = CoreWatch([process], dead_error=DeadError)
            found: list[float] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while len(found) < 3:
                        found.append(await watch.busy_s(ask))
            return found
        finally:
            process.kill()

    return asyncio.run(run()), num_asked


def test_a_core_that_works_is_alive_for_as_long_as_its_caller_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_watch, "POLL_S", POLL_S)

    beats, num_asked = beats_of(work_for_ever)

    assert 0.0 < beats[0] < beats[1] < beats[2]
    assert num_asked == 1


@pytest.mark.parametrize(("target", "stop"), [(work_for_ever, True), (wait_for_ever, False)])
def test_a_core_that_is_stopped_or_waits_for_ever_gives_no_heartbeat(
    target: Any, stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_watch, "POLL_S", POLL_S)
    monkeypatch.setattr(core_watch, "BUSY_SHARE", 0.3)  # two clock ticks, as one may be that in which it stopped

    assert beats_of(target, stop=stop, limit_s=40 * POLL_S) == ([], 1)


def test_a_core_that_answers_has_been_at_no_step() -> None:
    async def run() -> list[float]:
        watch = CoreWatch([], dead_error=DeadError)
        return [await watch.busy_s(lambda: value(False)) for _ in range(2)]

    assert asyncio.run(run()) == [0.0, 0.0]
