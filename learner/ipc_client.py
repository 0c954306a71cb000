"""The learner's line to engines on its own GPUs: handles of shared buffers as plain values, ranks kept in step."""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from learner.engine_calls import begin, within
from learner.errors import LearnerError


class Engines(Protocol):
    """A line to all engines: vLLM's weight-sync client."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Meet them."""
        ...

    def start_weight_update(self) -> None:
        """Open an update."""
        ...

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Let them receive; returns when all have."""
        ...

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Make the weights live."""
        ...


class IpcClient:
    """Ships the handles of shared buffers to the engines as plain values, and keeps ranks together when one breaks.

    All ranks pack buckets in step, so rank 0 must not leave the others alone in it because an engine is gone: the first
    error is kept, nothing more is asked of the engines, and `check` raises it when the last bucket is packed.
    """

    def __init__(self, client: Engines, timeout_s: float | None = None) -> None:
        """Speak through `client`; a call that is not answered within `timeout_s` has failed."""
        self._client = client
        self._timeout_s = timeout_s
        self._failure: Exception | None = None

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Tell the engines how buckets are packed."""
        self._ask("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        self._failure = None
        self._try("start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Let every engine read one bucket; returns when all have."""
        self._try("update_weights", lambda: _plain(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Make the weights live everywhere."""
        self._try("finish_weight_update", lambda: weight_version)

    def check(self) -> None:
        """Raise what went wrong since the update was opened."""
        if self._failure is not None:
            raise self._failure

    def _try(self, method: str, *arguments: Callable[[], Any]) -> None:
        if self._failure is None:
            try:
                self._ask(method, *(argument() for argument in arguments))
            except Exception as error:
                self._failure = error

    def _ask(self, method: str, *arguments: Any) -> None:
        within(self._timeout_s, method, begin(getattr(self._client, method), *arguments))


def _plain(update_info: dict[str, Any]) -> dict[str, Any]:
    """Return a bucket's description without what it leaves open, its handles as plain values."""
    filled = {key: value for key, value in update_info.items() if value is not None}
    return {**filled, "ipc_handles": {uuid: plain_handle(handle) for uuid, handle in filled["ipc_handles"].items()}}


def plain_handle(handle: tuple[Any, ...]) -> list[Any]:
    """Give what torch's `rebuild_cuda_tensor` needs of a shared buffer of bytes, without its three constant classes.

    Example:
        >>> plain_handle((torch.Tensor, torch.Size([8]), (1,), 0, torch.storage.TypedStorage, torch.uint8, 0, b"x"))
        [[8], [1], 0, 0, b'x']
    """
    tensor_class, size, stride, offset, storage_class, dtype, *rest = handle
    if (tensor_class, storage_class, dtype) != (torch.Tensor, torch.storage.TypedStorage, torch.uint8):
        raise LearnerError(f"the ipc weight channel shares buffers of bytes, and not {tensor_class} of {dtype}")
    return [list(size), list(stride), offset, *rest]
