"""The learner's half of the weight transfer: streams every tensor to the engines through vLLM's transfer protocol.

Read beside rollout/weight_channel.py, the other half. Of the learner only this file and broadcast.py, which holds the
senders for gloo and NCCL, import vLLM.

With ipc, whose sender is vLLM's, every rank copies the same bucket into a buffer on its own GPU, and rank 0 sends the
handles of all buffers, by GPU UUID. Each engine worker opens the one on the GPU that it shares with a rank.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    VLLMWeightSyncClient,
    WeightSource,
)
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo, IPCTrainerWeightTransferEngine

from conf.daemon_call import begin
from learner.broadcast import GlooSender, NcclSender, within
from learner.errors import LearnerError


class IpcClient:
    """Sends the handles of shared buffers to the engines as plain values, and delays errors until all is packed.

    All ranks pack each bucket together, so rank 0 must go on packing when an engine is gone: the first error is stored,
    the engines get no further calls, and `check` raises it after the last bucket.
    """

    def __init__(self, client: VLLMWeightSyncClient, timeout_s: float) -> None:
        """Call engines through `client`; a call without an answer within `timeout_s` seconds fails."""
        self._client = client
        self._timeout_s = timeout_s
        self._failure: Exception | None = None

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Send the engines the packing of buckets."""
        self._ask("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        self._failure = None
        self._try("start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Have every engine read one bucket; returns when all have."""
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
    """Return a bucket's description without its empty fields, handles as plain values."""
    filled = {key: value for key, value in update_info.items() if value is not None}
    return {**filled, "ipc_handles": {uuid: plain_handle(handle) for uuid, handle in filled["ipc_handles"].items()}}


def plain_handle(handle: tuple[Any, ...]) -> list[Any]:
    """Return the arguments of torch's `rebuild_cuda_tensor` for a shared buffer of bytes, without its constant classes.

    Example:
        >>> plain_handle((torch.Tensor, torch.Size([8]), (1,), 0, torch.storage.TypedStorage, torch.uint8, 0, b"x"))
        [[8], [1], 0, 0, b'x']
    """
    tensor_class, size, stride, offset, storage_class, dtype, *rest = handle
    if (tensor_class, storage_class, dtype) != (torch.Tensor, torch.storage.TypedStorage, torch.uint8):
        raise LearnerError(f"the ipc weight channel shares buffers of bytes, and not {tensor_class} of {dtype}")
    return [list(size), list(stride), offset, *rest]


F = TypeVar("F")
NamedTensors = Callable[[Collection[str]], Iterator[tuple[str, torch.Tensor]]]


class PolicyWeights(WeightSource):
    """The policy's tensors in the type in which they are sent, gathered one at a time."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], named_tensors: NamedTensors, dtype: torch.dtype) -> None:
        """Stream `named_tensors(names)`, a collective of all learner ranks, as `dtype`.

        `shapes` has the names and order of all tensors; a pass yields all of them until `choose` restricts it. On a GPU
        tensors are gathered on the CUDA stream that is current here, on which the learner trains.
        """
        self._stream = torch.cuda.current_stream() if torch.cuda.is_available() else None
        self._named_tensors = named_tensors
        self._dtype = dtype
        self._metadata = {name: ParamMeta(name, dtype, tuple(shape)) for name, shape in shapes.items()}
        self._chosen: Collection[str] = shapes.keys()

    def choose(self, names: Collection[str]) -> None:
        """Restrict the next passes to these tensors."""
        self._chosen = names

    def names(self) -> list[str]:
        """Return the names of all tensors, chosen or not."""
        return list(self._metadata)

    def metadata(self) -> list[ParamMeta]:
        """Return names, type and full shapes in the order of a pass; nothing is gathered."""
        return [meta for name, meta in self._metadata.items() if name in self._chosen]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return self.tensors(self._chosen)

    def tensors(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors `names` in the order of `shapes`; every rank consumes the whole iterator.

        vLLM packs on several CUDA streams in turn and asks for the next tensor on any of them. All work that makes a
        tensor (the last optimiser step, the gather of a block, the cut out of it) runs on one stream; the packing
        stream waits for it, and keeps the tensor's memory until it has packed it.
        """
        tensors = self._named_tensors(names)
        while True:
            with torch.cuda.stream(self._stream):
                name, tensor = next(tensors, (None, None))
                if name is None or tensor is None:
                    return
                tensor = tensor.detach().to(self._dtype)
            if self._stream is not None and (packing := torch.cuda.current_stream()) != self._stream:
                packing.wait_stream(self._stream)
                tensor.record_stream(packing)
            yield name, tensor


class WeightSender:
    """Sends the policy's weights to the engines, whichever the backend."""

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        named_tensors: NamedTensors,
        *,
        client: VLLMWeightSyncClient,
        backend: str,
        dtype: str,
        rank: int,
        num_receivers: int,
        address: str,
        port: int,
        bucket_bytes: int,
        timeout_s: float,
        sends_differences: bool = False,
        missing: Collection[str] | None = None,
        changing: Collection[str] | None = None,
    ) -> None:
        """Connect to the engines. Called on every learner rank; only rank 0 talks to them.

        Args:
            shapes: of the full tensors by checkpoint name, in the order in which `named_tensors` yields them.
            named_tensors: yields (checkpoint name, full tensor) pairs of given names; a collective of all ranks.
            client: calls the engines.
            backend: nccl | ipc | gloo.
            dtype: type in which tensors are sent: the engines' own.
            rank: of this learner process.
            num_receivers: number of workers of all engines.
            address: at which rank 0 listens.
            port: a free port there.
            bucket_bytes: most bytes of one broadcast or packed buffer; a larger tensor is sent alone.
            timeout_s: how long to wait for an engine that does not answer.
            sends_differences: by gloo, of tensors in which few elements changed send these alone.
            missing: names of the tensors that engines have not yet, which are sent first; None for all.
            changing: names of the tensors that are sent again once engines have all; None for all. By ipc all are
                sent every time: its engines drop their weights while they sleep.

        Raises:
            TimeoutError: an engine did not come within `timeout_s`.
            Exception: what the call to an engine raised.
        """
        self._source = PolicyWeights(shapes, named_tensors, getattr(torch, dtype))
        if missing is not None:
            self._source.choose(missing)
        self._changing = self._source.names() if changing is None or backend == "ipc" else changing
        self._ipc: IpcClient | None = None
        self._engine: GlooSender | NcclSender | IPCTrainerWeightTransferEngine
        place: dict[str, Any] = {"rank": rank, "address": address, "port": port, "world_size": num_receivers + 1}
        limits: dict[str, Any] = {"bucket_bytes": bucket_bytes, "timeout_s": timeout_s}
        if backend == "gloo":
            self._engine = GlooSender(client, self._source, **place, **limits, sends_differences=sends_differences)
        elif backend == "nccl":
            self._engine = NcclSender(client, self._source, **place, **limits)
        elif backend == "ipc":
            self._ipc = IpcClient(client, timeout_s)
            # Nothing larger than the buffer can travel by ipc.
            largest = max(m.dtype.itemsize * torch.Size(m.shape).numel() for m in self._source.metadata())
            ipc = IPCTrainerInitInfo(rank=rank, packed=True, packed_buffer_size_bytes=max(bucket_bytes, largest))
            self._engine = IPCTrainerWeightTransferEngine.trainer_init(ipc, client=self._ipc, source=self._source)
        else:
            raise LearnerError(
                f"rollout.weight_channel.backend is {backend!r}; the learner can send by gloo, ipc or nccl"
            )

    def send(self) -> int:
        """Stream the weights and make them live in every engine; a collective, which no rank leaves early on an error.

        The first call sends the tensors that engines have not, later ones those that can have changed. After an error
        build a new sender, which starts again.

        Returns:
            The bytes that were sent to each engine worker; on rank 0.

        Raises:
            TimeoutError: on rank 0, an engine did not answer within `timeout_s`.
            Exception: on rank 0, what the call to an engine raised.
        """
        self._engine.send_weights()
        if self._ipc is not None:
            self._ipc.check()
        num_bytes = sum(m.dtype.itemsize * torch.Size(m.shape).numel() for m in self._source.metadata())
        self._source.choose(self._changing)
        return self._engine.num_bytes if isinstance(self._engine, GlooSender) else int(num_bytes)

    def names(self) -> list[str]:
        """Return the names of all tensors, also of those that are sent once or never."""
        return self._source.names()

    def fingerprints(self, names: list[str], fingerprint: Callable[[torch.Tensor], F]) -> dict[str, F]:
        """Return the fingerprints of the tensors `names` as they are sent; a collective of all ranks.

        Args:
            names: of those that are compared.
            fingerprint: the engines' own, so that both sides compute the same.
        """
        return {name: fingerprint(tensor) for name, tensor in self._source.tensors(frozenset(names))}

    def close(self) -> None:
        """Leave the channel."""
        self._engine.shutdown()
