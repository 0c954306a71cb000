"""The engine's half of the gloo weight channel; read beside learner/broadcast.py, the other half."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import torch
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from rollout.adapter import Factors
from rollout.experts import forget_kernels

INDEX_BYTES = 4


class ShapesKnown:
    """A receiver that remembers the shapes of the tensors that it was sent."""

    shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
    """By checkpoint name."""

    def parse_update_info(self, update_dict: dict[str, Any]) -> Any:
        """Read the description of the tensors that follow."""
        info = super().parse_update_info(update_dict)  # type: ignore[misc]
        self.shapes = {**self.shapes, **dict(zip(info.names, info.shapes, strict=True))}
        return info


@dataclass(kw_only=True)
class GlooInitInfo(WeightTransferInitInfo):
    """Address of the learner, and the rank of this engine in its group."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    timeout_s: float
    sends_differences: bool
    """Whether tensors may come as differences from those that came last, which are then kept."""


@dataclass(kw_only=True)
class GlooUpdateInfo(WeightTransferUpdateInfo):
    """Contents of one transfer: tensors in order, and how many of them share each broadcast."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    bucket_counts: list[int]


class GlooWeightTransferEngine(ShapesKnown, WeightTransferEngine[GlooInitInfo, GlooUpdateInfo]):
    """Receives weights over gloo in two phases: stage everything, then load.

    A transfer that breaks half-way leaves the engine on its old weights, because the model is touched only in
    `finish_weight_update`. The sender begins again with whole tensors, over a new group.
    """

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo
    factors: Factors
    """Those that arrived last, where the engine adapts its model; it is then sent nothing else."""
    _group: torch.distributed.ProcessGroup | None = None
    _staged: list[tuple[str, torch.Tensor]]
    _kept: dict[str, torch.Tensor] | None = None
    """Tensors as they came last, by name; None where none comes as a difference."""

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        """Join the learner's group; a second call replaces the first, after a restart of either side."""
        self.shutdown()
        self._kept = {} if init_info.sends_differences else None
        parallel = self.parallel_config
        rank = init_info.rank_offset + parallel.data_parallel_index * parallel.world_size + parallel.rank
        self._group = stateless_init_torch_distributed_process_group(
            init_info.master_address,
            init_info.master_port,
            rank,
            init_info.world_size,
            backend="gloo",
            timeout=timedelta(seconds=init_info.timeout_s),
        )

    def start_weight_update(self) -> None:
        self._staged = []  # of an earlier transfer that broke

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Stage the tensors of one transfer; vLLM's own version would synchronise an accelerator that is not there."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: GlooUpdateInfo) -> None:
        if self._group is None:
            raise RuntimeError("gloo weight channel: update_weights before init_weight_transfer_engine")
        self._staged.extend(_received(self._group, update_info, self._kept))

    def finish_weight_update(self) -> None:
        if self.vllm_config.lora_config is not None:
            self.factors = Factors()
            self.factors.load_weights(self._staged)
            self._staged = []
            return
        if current_platform.is_cpu():
            forget_kernels(self.model, [name for name, _ in self._staged])
        initialize_layerwise_reload(self.model)
        self.model.load_weights(iter(self._staged))
        finalize_layerwise_reload(self.model, self.model_config)
        self._staged = []
        if current_platform.is_cpu():
            _repack_output_heads(self.model)
            # Packing weights again at each update leaves gaps: give the allocator's free memory back to the system.
            ctypes.CDLL(None).malloc_trim(0)

    def shutdown(self) -> None:
        if self._group is not None:
            self._group.shutdown()
            self._group = None


def _received(
    group: torch.distributed.ProcessGroup, info: GlooUpdateInfo, kept: dict[str, torch.Tensor] | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors of one transfer; `GlooSender` describes the bytes of a bucket."""
    dtypes = [getattr(torch, name) for name in info.dtype_names]
    first = 0
    for count in info.bucket_counts:
        members = range(first, first + count)
        first += count
        header = torch.empty(count, dtype=torch.int64)
        group.broadcast(header, 0).wait()
        nums_changed = header.tolist()
        sizes = [
            torch.Size(info.shapes[i]).numel() * dtypes[i].itemsize
            if num < 0
            else num * (INDEX_BYTES + dtypes[i].itemsize)
            for i, num in zip(members, nums_changed, strict=True)
        ]
        bucket = torch.empty(sum(sizes), dtype=torch.uint8)
        if len(bucket):
            group.broadcast(bucket, 0).wait()
        for i, num_changed, piece in zip(members, nums_changed, bucket.split(sizes), strict=True):
            # The clone frees the bucket and gives the view the alignment of its type.
            own, name = piece.clone(), info.names[i]
            if num_changed < 0:
                tensor = own.view(dtypes[i]).view(info.shapes[i])
            else:
                assert kept is not None, "a difference came from a sender that did not announce any"
                tensor = kept[name]
                _patch(tensor, own, num_changed)
            if kept is not None:
                kept[name] = tensor
            yield name, tensor


def _patch(tensor: torch.Tensor, piece: torch.Tensor, num_changed: int) -> None:
    """Set the elements of a tensor that a piece names to its values."""
    indices, values = piece.split([num_changed * INDEX_BYTES, num_changed * tensor.itemsize])
    tensor.view(-1)[indices.view(torch.int32).long()] = values.view(tensor.dtype)


def _repack_output_heads(model: torch.nn.Module) -> None:
    """Refresh the packed copy that vLLM 0.32 on CPU keeps of a tied output head.

    `load_weights` skips a tied `lm_head`, so its packed copy would silently stay on the old weights while parameters
    and checksums agree.
    """
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            module.quant_method.process_weights_after_loading(module)
