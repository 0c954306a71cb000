"""Calls to engines, and other waits for them, that end after a while: in a thread of their own, with a limit."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")

LIMIT = "rollout.weight_channel.timeout_s"


def begin(call: Callable[..., T], *arguments: Any) -> "Future[T]":
    """Return the answer to come of a call that is made in a thread of its own, on the GPU that is current here.

    The thread does not keep the process from ending, unlike an executor's: its call may never return.
    """
    answer: Future[T] = Future()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)
            answer.set_result(call(*arguments))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def within(timeout_s: float | None, what: str, answer: "Future[T]") -> T:
    """Return an answer to come.

    Raises:
        TimeoutError: it has not come within `timeout_s` seconds.
        Exception: what the call raised.
    """
    if not wait([answer], timeout_s).done:
        raise TimeoutError(f"{what}: no answer from every engine within {LIMIT}={timeout_s}")
    return answer.result()


def meet(invite: Callable[[], None], join: Callable[[], T], leave: Callable[[T], None], timeout_s: float) -> T:
    """Return a group that this process has joined together with the engines.

    Args:
        invite: calls the engines; returns when all have joined.
        join: joins the group; returns when all have, or never.
        leave: of a group that comes when nobody waits for it any more.
        timeout_s: for all of them to come.

    Raises:
        TimeoutError: someone did not come.
        Exception: what an engine, or the group, raised; at once.
    """
    invited, joined = begin(invite), begin(join)
    both: list[Future[Any]] = [invited, joined]
    done, missing = wait(both, timeout_s, return_when=FIRST_EXCEPTION)
    failed = [call for call in both if call in done and call.exception() is not None]
    if not failed and not missing:
        return joined.result()
    joined.add_done_callback(lambda late: None if late.exception() else leave(late.result()))
    if failed:
        failed[0].result()
    raise TimeoutError(f"connect: not every engine has joined the weight channel within {LIMIT}={timeout_s:g}")
