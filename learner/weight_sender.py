"""The learner's half of the weight wire: streams every tensor to the engines through vLLM's transfer protocol.

Read beside rollout/weight_channel.py, the other half. Of the learner only this file and broadcast.py, which holds the
senders for gloo and NCCL, import vLLM.

With ipc, whose sender is vLLM's, every rank puts the same bucket into a buffer on its own GPU, and rank 0 ships the
handles of all of them, by the GPU's UUID: each engine worker opens the one on the GPU that it shares with a rank.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
)
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo, IPCTrainerWeightTransferEngine

from learner.broadcast import GlooSender, GlooTrainerInitInfo, NcclSender, NcclTrainerInitInfo
from learner.errors import LearnerError
from learner.ipc_client import IpcClient

# Buckets in flight: while one is broadcast, the next is packed. vLLM tells the engines, so both ends agree.
NCCL_BUFFERS = 2

F = TypeVar("F")
NamedTensors = Callable[[Collection[str]], Iterator[tuple[str, torch.Tensor]]]


class PolicyWeights(WeightSource):
    """The policy's tensors in the type in which they travel, gathered one at a time."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], named_tensors: NamedTensors, dtype: torch.dtype) -> None:
        """Stream `named_tensors(names)`, a collective of all learner ranks, as `dtype`.

        `shapes` has the names and order of all tensors; a pass is of all of them until others are chosen. On a GPU
        tensors are gathered on the stream that is current here, on which the learner trains.
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
        """Names, wire type and full shapes, in the order of a pass; nothing is gathered."""
        return [meta for name, meta in self._metadata.items() if name in self._chosen]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Return a fresh pass over the chosen tensors."""
        return self.tensors(self._chosen)

    def tensors(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors `names` in the order of `shapes`; every rank consumes the whole iterator.

        vLLM packs on several streams in turn and asks for the next tensor on any of them. Whatever makes a tensor (the
        optimiser's last step, a gather of a whole block, the cut out of it) runs on one stream all the same; the stream
        that packs waits for it, and keeps the tensor's memory until it has packed it.
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
        changing: Collection[str] | None = None,
    ) -> None:
        """Meet the engines. Called on every learner rank; only rank 0 speaks to them.

        Args:
            shapes: of the full tensors by checkpoint name, in the order in which `named_tensors` gives them.
            named_tensors: gives (checkpoint name, full tensor) pairs of given names; a collective of all ranks.
            client: line to the engines.
            backend: nccl | ipc | gloo.
            dtype: type in which tensors travel: the engines' own.
            rank: of this learner process.
            num_receivers: engine workers in all.
            address: where rank 0 waits.
            port: a free port there.
            bucket_bytes: most bytes of one broadcast or packed buffer; a larger tensor travels alone.
            timeout_s: patience with an engine that is silent.
            changing: names of the tensors that travel once engines have them all; None for all. By ipc all travel
                every time: its engines drop their weights while they sleep.

        Raises:
            TimeoutError: an engine did not come within `timeout_s`.
            Exception: what the call to an engine raised.
        """
        self._source = PolicyWeights(shapes, named_tensors, getattr(torch, dtype))
        self._changing = self._source.names() if changing is None or backend == "ipc" else changing
        self._ipc: IpcClient | None = None
        self._engine: TrainerWeightTransferEngine[Any]
        group: dict[str, Any] = {"master_address": address, "master_port": port, "world_size": num_receivers + 1}
        if backend == "gloo":
            gloo = GlooTrainerInitInfo(rank=rank, bucket_bytes=bucket_bytes, timeout_s=timeout_s, **group)
            self._engine = GlooSender.trainer_init(gloo, client=client, source=self._source)
        elif backend == "nccl":
            nccl = NcclTrainerInitInfo(
                rank=rank, packed=True, packed_buffer_size_bytes=bucket_bytes, packed_num_buffers=NCCL_BUFFERS,
                timeout_s=timeout_s, **group,
            )  # fmt: skip
            self._engine = NcclSender.trainer_init(nccl, client=client, source=self._source)
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

    def send(self) -> None:
        """Stream the weights and make them live in every engine; every rank calls it, and none is left in a gather.

        The first time all of them, after that those that can have changed. After an error a new sender is needed, which
        begins with all of them again.

        Raises:
            TimeoutError: on rank 0, an engine was silent for `timeout_s`.
            Exception: on rank 0, what the call to an engine raised.
        """
        self._engine.send_weights()
        if self._ipc is not None:
            self._ipc.check()
        self._source.choose(self._changing)

    def names(self) -> list[str]:
        """Names of all tensors, whether they travel each time or the first time only."""
        return self._source.names()

    def fingerprints(self, names: list[str], fingerprint: Callable[[torch.Tensor], F]) -> dict[str, F]:
        """Return the fingerprints of the tensors `names` as they travel; a collective of all ranks.

        Args:
            names: of those that are compared.
            fingerprint: the engines' own, so that both sides compute the same.
        """
        return {name: fingerprint(tensor) for name, tensor in self._source.tensors(frozenset(names))}

    def close(self) -> None:
        """Leave the channel."""
        self._engine.shutdown()
