"""The learner's half of the weight wire: streams every tensor to the engines through vLLM's transfer protocol.

Read beside rollout/weight_channel.py, the other half. This is the one file of the learner that imports vLLM: its
trainer-side classes drive the handshake; the gloo sender below is ours, NCCL and CUDA IPC are vLLM's.

With ipc every rank puts the same bucket into a buffer on its own GPU, and rank 0 ships the handles of all of them, by
the GPU's UUID: each engine worker opens the one on the GPU that it shares with a rank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

import torch
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from learner.errors import LearnerError
from learner.ipc_client import IpcClient
from learner.rendezvous import bound_socket

# Buckets in flight: while one is broadcast, the next is packed. vLLM tells the engines, so both ends agree.
NCCL_BUFFERS = 2

F = TypeVar("F")
NamedTensors = Callable[[], Iterator[tuple[str, torch.Tensor]]]


class PolicyWeights(WeightSource):
    """The policy's tensors in the type in which they travel, gathered one at a time."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], named_tensors: NamedTensors, dtype: torch.dtype) -> None:
        """Stream `named_tensors()`, a collective of all learner ranks, as `dtype`; `shapes` has its names and order.

        On a GPU the tensors are gathered on the stream that is current here, on which the learner trains.
        """
        self._stream = torch.cuda.current_stream() if torch.cuda.is_available() else None
        self._named_tensors = named_tensors
        self._dtype = dtype
        self._metadata = [ParamMeta(name, dtype, tuple(shape)) for name, shape in shapes.items()]

    def metadata(self) -> list[ParamMeta]:
        """Names, wire type and full shapes, in the order of a pass; nothing is gathered."""
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """One fresh pass over all tensors.

        vLLM packs on several streams in turn and asks for the next tensor on any of them. Whatever makes a tensor (the
        optimiser's last step, a gather of a whole block, the cut out of it) runs on one stream all the same; the stream
        that packs waits for it, and keeps the tensor's memory until it has packed it.
        """
        tensors = self._named_tensors()
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


@dataclass
class GlooTrainerInitInfo(TrainerInitInfo):
    """Where the sender waits for the engines."""

    backend: ClassVar[str] = "gloo"

    master_address: str
    master_port: int
    world_size: int
    bucket_bytes: int
    timeout_s: float


class GlooTrainerEngine(TrainerWeightTransferEngine[GlooTrainerInitInfo]):
    """Broadcasts buckets of tensors from rank 0 to every engine; other ranks only join the gathers."""

    init_info_cls = GlooTrainerInitInfo
    _group: torch.distributed.ProcessGroup | None = None
    _bucket_bytes: int = 0

    @classmethod
    def trainer_init(
        cls, init_info: GlooTrainerInitInfo, *, client: VLLMWeightSyncClient, source: WeightSource | None = None
    ) -> Self:
        """Meet the engines; returns when all of them have come."""
        if source is None:
            raise LearnerError("the gloo weight channel needs a source of weights")
        engine = cls(client=client, source=source, is_sender=init_info.is_sender)
        engine._bucket_bytes = init_info.bucket_bytes
        if not engine.is_sender:
            return engine
        invitation = {
            "master_address": init_info.master_address,
            "master_port": init_info.master_port,
            "rank_offset": 1,
            "world_size": init_info.world_size,
            "timeout_s": init_info.timeout_s,
        }
        with ThreadPoolExecutor(max_workers=1) as executor:
            arrived = executor.submit(client.init_weight_transfer_engine, invitation)
            engine._group = stateless_init_torch_distributed_process_group(
                init_info.master_address,
                init_info.master_port,
                0,
                init_info.world_size,
                backend="gloo",
                listen_socket=bound_socket(init_info.master_address, init_info.master_port),
                timeout=timedelta(seconds=init_info.timeout_s),
            )
            arrived.result()
        return engine

    def send_weights(self) -> None:
        """Run one whole update; every rank calls it."""
        assert self.source is not None
        metadata = self.source.metadata()
        if not self.is_sender:
            for _ in self.source:
                pass
            return
        buckets = bucket_counts([m.dtype.itemsize * torch.Size(m.shape).numel() for m in metadata], self._bucket_bytes)
        update_info: dict[str, Any] = {
            "names": [m.name for m in metadata],
            "dtype_names": [str(m.dtype).removeprefix("torch.") for m in metadata],
            "shapes": [list(m.shape) for m in metadata],
            "bucket_counts": buckets,
        }
        executor = ThreadPoolExecutor(max_workers=1)
        tensors = iter(self.source)
        try:
            self.client.start_weight_update()
            received = executor.submit(self.client.update_weights, update_info)
            self._broadcast(tensors, metadata, buckets)
            received.result()
        finally:
            # The other ranks stand in the gathers of the tensors that are left.
            for _ in tensors:
                pass
            executor.shutdown(wait=False)
        self.client.finish_weight_update()

    def _broadcast(
        self, tensors: Iterator[tuple[str, torch.Tensor]], metadata: list[ParamMeta], buckets: list[int]
    ) -> None:
        assert self._group is not None
        expected = iter(metadata)
        for count in buckets:
            pieces = []
            for _ in range(count):
                name, tensor = next(tensors)
                promised = next(expected)
                if (name, tensor.dtype, tuple(tensor.shape)) != (promised.name, promised.dtype, promised.shape):
                    raise LearnerError(f"weight {name} does not match its announcement {promised}")
                pieces.append(tensor.cpu().contiguous().view(-1).view(torch.uint8))
            self._group.broadcast(torch.cat(pieces), 0).wait()

    def shutdown(self) -> None:
        """Leave the group."""
        if self._group is not None:
            self._group.shutdown()
            self._group = None


def bucket_counts(sizes: list[int], limit: int) -> list[int]:
    """Split tensors, in order, into runs of at most `limit` bytes; a larger tensor travels alone.

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
    ) -> None:
        """Meet the engines. Called on every learner rank; only rank 0 speaks to them.

        Args:
            shapes: of the full tensors by checkpoint name, in the order in which `named_tensors` gives them.
            named_tensors: gives (checkpoint name, full tensor) pairs; a collective of all ranks.
            client: line to the engines.
            backend: nccl | ipc | gloo.
            dtype: type in which tensors travel: the engines' own.
            rank: of this learner process.
            num_receivers: engine workers in all.
            address: where rank 0 waits.
            port: a free port there.
            bucket_bytes: most bytes of one broadcast or packed buffer; a larger tensor travels alone.
            timeout_s: patience with a silent peer (gloo).
        """
        self._source = PolicyWeights(shapes, named_tensors, getattr(torch, dtype))
        largest = max(m.dtype.itemsize * torch.Size(m.shape).numel() for m in self._source.metadata())
        info = _init_info(
            backend, rank=rank, address=address, port=port, world_size=num_receivers + 1, bucket_bytes=bucket_bytes,
            largest_bytes=largest, timeout_s=timeout_s,
        )  # fmt: skip
        self._ipc = IpcClient(client) if backend == "ipc" else None
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=self._ipc or client, source=self._source)

    def send(self) -> None:
        """Stream all weights and make them live in every engine."""
        self._engine.send_weights()
        if self._ipc is not None:
            self._ipc.check()

    def names(self) -> list[str]:
        """Names of all tensors that travel."""
        return [meta.name for meta in self._source.metadata()]

    def fingerprints(self, names: list[str], fingerprint: Callable[[torch.Tensor], F]) -> dict[str, F]:
        """Return the fingerprints of the tensors `names` as they travel; a collective of all ranks.

        Args:
            names: of those that are compared.
            fingerprint: the engines' own, so that both sides compute the same.
        """
        wanted = set(names)
        return {name: fingerprint(tensor) for name, tensor in self._source if name in wanted}

    def close(self) -> None:
        """Leave the channel."""
        self._engine.shutdown()


def _init_info(
    backend: str,
    *,
    rank: int,
    address: str,
    port: int,
    world_size: int,
    bucket_bytes: int,
    largest_bytes: int,
    timeout_s: float,
) -> TrainerInitInfo:
    if backend == "gloo":
        if "gloo" not in WeightTransferTrainerFactory._registry:
            WeightTransferTrainerFactory.register_engine("gloo", GlooTrainerEngine)
        return GlooTrainerInitInfo(
            rank=rank,
            master_address=address,
            master_port=port,
            world_size=world_size,
            bucket_bytes=bucket_bytes,
            timeout_s=timeout_s,
        )
    if backend == "nccl":
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        return NCCLTrainerInitInfo(
            rank=rank,
            master_address=address,
            master_port=port,
            world_size=world_size,
            packed=True,
            packed_buffer_size_bytes=bucket_bytes,
            packed_num_buffers=NCCL_BUFFERS,
        )
    if backend == "ipc":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        # Nothing larger than the buffer can travel by ipc.
        return IPCTrainerInitInfo(rank=rank, packed=True, packed_buffer_size_bytes=max(bucket_bytes, largest_bytes))
    raise LearnerError(f"rollout.weight_channel.backend is {backend!r}; the learner can send by gloo, ipc or nccl")
