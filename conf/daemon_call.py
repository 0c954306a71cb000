"""A call in a daemon thread: for calls that may never return, on both sides of a weight transfer."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def begin(call: Callable[..., T], *arguments: Any) -> "Future[T]":
    """Return the future result of a call that runs in a thread of its own, on the GPU that is current here.

    The thread does not keep the process from ending, unlike an executor's.
    """
    result: Future[T] = Future()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)
            result.set_result(call(*arguments))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result
