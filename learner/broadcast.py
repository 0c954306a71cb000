"""Senders that broadcast from rank 0 to every engine: one over gloo, one over NCCL.

When a call to an engine fails or an engine does not answer, rank 0 raises within `timeout_s`, and no other rank is left
waiting in a gather. Read beside rollout/weight_channel.py, the engines' half.
"""

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.base import ParamMeta, VLLMWeightSyncClient, WeightSource
from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo, worker_init_payload
from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

from conf.daemon_call import begin
from learner.errors import LearnerError
from learner.ranks import bound_socket

T = TypeVar("T")

LIMIT = "rollout.weight_channel.timeout_s"
GIVEN_UP = "given_up"
"""Key of the group's store under which the sender writes why it aborted a transfer; engines read it."""
NCCL_BUFFERS = 2
"""Buckets in flight: while one is broadcast, the next is packed. vLLM sends this to the engines, so both ends agree."""
WHOLE = -1
"""In the header of a bucket over gloo, instead of how many elements of a tensor changed: all of them follow."""
BITS = {2: torch.int16, 4: torch.int32}
"""Integers of a size in bytes: bits are compared, as 0.0 equals -0.0 and NaN nothing."""
INDEX_BYTES = 4
MAX_INDEX = 2**31 - 1


def within(timeout_s: float, what: str, answer: "Future[T]") -> T:
    """Wait for a result and return it.

    Raises:
        TimeoutError: there is none within `timeout_s` seconds.
        Exception: what the call raised.
    """
    if not wait([answer], timeout_s).done:
        raise TimeoutError(f"{what}: no answer from every engine within {LIMIT}={timeout_s}")
    return answer.result()


def join_with_engines(
    invite: Callable[[], None], join: Callable[[], T], leave: Callable[[T], None], timeout_s: float
) -> T:
    """Return a process group that this process has joined together with the engines.

    Args:
        invite: calls the engines; returns when all have joined.
        join: joins the group; returns when all have, or never.
        leave: leaves a group that is joined after the timeout.
        timeout_s: for all of them to join.

    Raises:
        TimeoutError: someone did not join.
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


class BroadcastSender(ABC):
    """Sends the weights to all engines in one update; ranks other than 0 only take part in the gathers."""

    client: VLLMWeightSyncClient
    source: WeightSource | None
    is_sender: bool
    _timeout_s: float

    def send_weights(self) -> None:
        """Run one whole update; every rank calls it.

        Raises:
            TimeoutError: on rank 0, an engine does not answer.
            Exception: on rank 0, what a call to the engines raised.
        """
        assert self.source is not None
        tensors = iter(self.source)
        try:
            if self.is_sender:
                self._update(tensors, self.source.metadata())
        finally:
            # The other ranks are in the gathers of the remaining tensors, which need this one.
            for _ in tensors:
                pass

    def _update(self, tensors: Iterator[tuple[str, torch.Tensor]], metadata: list[ParamMeta]) -> None:
        within(self._timeout_s, "start_weight_update", begin(self.client.start_weight_update))
        received = begin(self.client.update_weights, self._describe(metadata))
        try:
            self._broadcast(tensors, metadata, received)
        except BaseException:
            # Engines wait for the rest; once the group is gone they fail at once.
            self.shutdown()
            raise
        within(self._timeout_s, "finish_weight_update", begin(self.client.finish_weight_update))

    def _describe(self, metadata: list[ParamMeta]) -> dict[str, Any]:
        """Return the description of the coming tensors that engines receive."""
        return {
            "names": [m.name for m in metadata],
            "dtype_names": [str(m.dtype).removeprefix("torch.") for m in metadata],
            "shapes": [list(m.shape) for m in metadata],
        }

    @abstractmethod
    def _broadcast(
        self, tensors: Iterator[tuple[str, torch.Tensor]], metadata: list[ParamMeta], received: "Future[None]"
    ) -> None:
        """Broadcast all tensors, and wait until engines have `received` them."""

    @abstractmethod
    def shutdown(self) -> None:
        """Leave the group."""


class GlooSender(BroadcastSender):
    """Broadcasts buckets of tensors over gloo, each of them in two parts.

    header    int64 [tensors of a bucket]: how many elements changed, or WHOLE
    payload   of each tensor: flat indices int32 and values of the elements that changed, or all of its elements
    """

    num_bytes: int = 0
    """Broadcast in the last update."""

    def __init__(
        self, client: VLLMWeightSyncClient, source: WeightSource, *, rank: int, address: str, port: int,
        world_size: int, bucket_bytes: int, timeout_s: float, sends_differences: bool,
    ) -> None:  # fmt: skip
        """Connect to the engines, on rank 0; returns when all of them have joined.

        With `sends_differences` both sides keep the tensors of the last publication, and of one in which few elements
        changed these alone are sent.
        """
        self.client, self.source, self.is_sender = client, source, rank == 0
        self._last = LastPublication() if sends_differences else None
        self._bucket_bytes, self._timeout_s = bucket_bytes, timeout_s
        self._group: torch.distributed.ProcessGroup | None = None
        if not self.is_sender:
            return
        invitation = {
            "master_address": address,
            "master_port": port,
            "rank_offset": 1,
            "world_size": world_size,
            "timeout_s": timeout_s,
            "sends_differences": sends_differences,
        }

        def join() -> torch.distributed.ProcessGroup:
            group: torch.distributed.ProcessGroup = stateless_init_torch_distributed_process_group(
                address,
                port,
                0,
                world_size,
                backend="gloo",
                listen_socket=bound_socket(address, port),
                timeout=timedelta(seconds=timeout_s),
            )
            return group

        self._group = join_with_engines(
            lambda: client.init_weight_transfer_engine(invitation), join, lambda group: group.shutdown(), timeout_s
        )

    def _describe(self, metadata: list[ParamMeta]) -> dict[str, Any]:
        return {**super()._describe(metadata), "bucket_counts": self._buckets(metadata)}

    def _broadcast(
        self, tensors: Iterator[tuple[str, torch.Tensor]], metadata: list[ParamMeta], received: "Future[None]"
    ) -> None:
        assert self._group is not None
        expected, self.num_bytes = iter(metadata), 0
        for count in self._buckets(metadata):
            pieces, changes = [], []
            for _ in range(count):
                name, tensor = next(tensors)
                promised = next(expected)
                if (name, tensor.dtype, tuple(tensor.shape)) != (promised.name, promised.dtype, promised.shape):
                    raise LearnerError(f"weight {name} does not match its announcement {promised}")
                num_changed, piece = whole(tensor) if self._last is None else self._last.difference(name, tensor)
                changes.append(num_changed)
                pieces.append(piece)
            for part in (torch.tensor(changes), torch.cat(pieces)):
                if len(part):
                    self._group.broadcast(part, 0).wait()
                    self.num_bytes += part.nbytes
        within(self._timeout_s, "update_weights", received)

    def _buckets(self, metadata: list[ParamMeta]) -> list[int]:
        return bucket_counts([m.dtype.itemsize * torch.Size(m.shape).numel() for m in metadata], self._bucket_bytes)

    def shutdown(self) -> None:
        if self._group is not None:
            self._group.shutdown()
            self._group = None


def whole(tensor: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return WHOLE and the bytes of a tensor on the host."""
    return WHOLE, tensor.cpu().contiguous().view(-1).view(torch.uint8)


class LastPublication:
    """The tensors as they were published last, in host memory.

    A publication that broke must not be followed by another one with the same object: receivers may have missed it.
    """

    def __init__(self) -> None:
        self._bits: dict[str, torch.Tensor] = {}

    def difference(self, name: str, tensor: torch.Tensor) -> tuple[int, torch.Tensor]:
        """Return how many elements changed and the bytes that say how, or `whole` where that is not shorter."""
        _, raw = whole(tensor)
        bits = raw.view(BITS[tensor.itemsize])
        if len(bits) > MAX_INDEX:
            return WHOLE, raw
        last = self._bits.get(name)
        if last is None:
            self._bits[name] = bits.clone()
            return WHOLE, raw
        changed = (bits != last).nonzero().flatten()
        if len(changed) * (INDEX_BYTES + tensor.itemsize) >= len(raw):
            last.copy_(bits)
            return WHOLE, raw
        values = bits[changed]
        last[changed] = values
        return len(changed), torch.cat([changed.int().view(torch.uint8), values.view(torch.uint8)])


def bucket_counts(sizes: list[int], limit: int) -> list[int]:
    """Split tensors, in order, into buckets of at most `limit` bytes; a larger tensor is a bucket of its own.

    Example:
        >>> bucket_counts([3, 3, 9, 1], 6)
        [2, 1, 1]
    """
    counts: list[int] = []
    filled = 0
    for size in sizes:
        if counts and filled + size <= limit:
            counts[-1] += 1
            filled += size
        else:
            counts.append(1)
            filled = size
    return counts


class NcclSender(BroadcastSender, nccl_engine.NCCLTrainerWeightTransferEngine):
    """Broadcasts packed buffers over NCCL with vLLM's producer, and aborts a transfer that stalls.

    An NCCL kernel waits for a lost engine forever, and so does all that synchronises with it; `_Watch` ends that.
    """

    def __init__(
        self, client: VLLMWeightSyncClient, source: WeightSource, *, rank: int, address: str, port: int,
        world_size: int, bucket_bytes: int, timeout_s: float,
    ) -> None:  # fmt: skip
        """Connect to the engines, on rank 0; returns when all of them have joined."""
        packing = {"packed": True, "packed_buffer_size_bytes": bucket_bytes, "packed_num_buffers": NCCL_BUFFERS}
        nccl_engine.NCCLTrainerWeightTransferEngine.__init__(
            self, client=client, source=source, is_sender=rank == 0, **packing
        )
        self._timeout_s = timeout_s
        if not self.is_sender:
            return
        own = nccl_engine.NCCLTrainerInitInfo(
            master_address=address, master_port=port, world_size=world_size, rank=rank, **packing
        )
        invitation = NCCLWeightTransferInitInfo(
            master_address=address, master_port=port, world_size=world_size, rank_offset=1, **packing
        )
        self.model_update_group = join_with_engines(
            lambda: client.init_weight_transfer_engine(worker_init_payload(invitation)),
            lambda: nccl_engine.open_trainer_endpoint(own),
            lambda group: group.destroy(),
            timeout_s,
        )

    def shutdown(self) -> None:
        nccl_engine.NCCLTrainerWeightTransferEngine.shutdown(self)

    def _broadcast(
        self, tensors: Iterator[tuple[str, torch.Tensor]], metadata: list[ParamMeta], received: "Future[None]"
    ) -> None:
        with _Watch(self.model_update_group, received, self._timeout_s) as group:
            packed_nccl_broadcast_producer(
                iterator=self._checked_iter(tensors, metadata),
                group=group,
                src=0,
                post_iter_func=lambda item: item[1],
                buffer_size_bytes=self.packed_buffer_size_bytes,
                num_buffers=self.packed_num_buffers,
            )
            within(self._timeout_s, "update_weights", received)


class _Watch:
    """An NCCL group during a transfer. A thread destroys it and notifies the engines if the transfer breaks.

    Consumes: broadcasts, and the engines' answer. Woken by: either, the end of the block, or `timeout_s` without any.
    """

    def __init__(self, group: Any, received: "Future[None]", timeout_s: float) -> None:
        self._group = group
        self._received = received
        self._timeout_s = timeout_s
        self._news: queue.SimpleQueue[BaseException | str] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._received.add_done_callback(self._note_answer)
        return self

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        """Enqueue a broadcast."""
        if self._error is not None:
            raise self._error
        self._news.put("moved")
        self._group.broadcast(tensor, src=src)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._news.put(error or "over")
        self._thread.join()
        if self._error is not None and self._error is not error:
            # The first error is the cause: NCCL's own errors follow from the destroyed group.
            raise self._error from error

    def _note_answer(self, answer: "Future[None]") -> None:
        self._news.put(answer.exception() or "moved")

    def _watch(self) -> None:
        while self._error is None:
            try:
                news = self._news.get(timeout=self._timeout_s)
            except queue.Empty:
                news = TimeoutError(f"send_weights: no engine has taken anything for {LIMIT}={self._timeout_s:g} s")
            if news == "over":
                return
            if isinstance(news, BaseException):
                self._error = news
        try:
            self._group.group.store.set(GIVEN_UP, str(self._error))
        finally:
            self._group.destroy()
