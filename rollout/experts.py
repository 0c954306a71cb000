"""Experts of a model in one worker of vLLM: where their tensors lie, and what vLLM makes of them on a CPU.

A checkpoint has two tensors a layer, gate_up_proj [E, D, 2F] and down_proj [E, F, D]; in some families the last two
axes are the other way round. A worker holds w13_weight [E, 2f, D] and w2_weight [E, D, f], with its share f of F. On a
CPU each expert's matrix is then packed for vLLM's kernel: rounded up with zeros and put into another order.

Axes: E experts, D hidden size, F width of an expert.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from vllm._custom_ops import cpu_prepack_moe_weight
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

from rollout.adapter import name_mapper
from rollout.fingerprint import shard_fingerprint

OWN_NAMES = {"gate_up_proj": "w13_weight", "down_proj": "w2_weight"}
"""Last part of a tensor's name in a checkpoint -> that of the parameter."""
CHILD = "routed_experts"
"""What vLLM inserts into the names of the parameters."""
PLAIN = (UnquantizedMoeBackend.TRITON, UnquantizedMoeBackend.BATCHED_TRITON)
"""Kernels that take weights in the order in which they are loaded."""
HALF = 2**16
INT32_BYTES = 4


def own_name(model: Any, name: str) -> str | None:
    """Return the parameter of a model of vLLM that holds a tensor of experts, or None.

    Args:
        model: of vLLM.
        name: of any tensor, in the checkpoint.
    """
    [mapped] = name_mapper(model).apply_list([name]) or [name]
    place, _, last = mapped.rpartition(".")
    found = f"{place}.{CHILD}.{OWN_NAMES.get(last)}"
    return found if found in dict(model.named_parameters()) else None


def expert_share(model: torch.nn.Module, name: str, shape: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Return what a parameter of experts adds to the fingerprint of the checkpoint's tensor, see `join_shards`.

    Nothing where vLLM has put the weights into the order of a kernel that is not known here: those of FlashInfer.

    Args:
        model: of vLLM.
        name: of the parameter.
        shape: of the whole tensor, as it was sent.
    """
    place, _, last = name.rpartition(".")
    experts: Any = model.get_submodule(place)
    held = _in_order(experts.quant_method, getattr(experts, last).data)
    if held is None:
        return []
    num_experts, *sizes = shape
    if experts.is_fused_checkpoint_transposed:
        sizes.reverse()
    rows, columns = _places(experts, last, held, *sizes)
    if experts.is_fused_checkpoint_transposed:
        held, rows, columns = held.mT, columns, rows
    return [shard_fingerprint(held, [torch.arange(num_experts), rows, columns], shape)]


def forget_kernels(model: torch.nn.Module, names: Iterable[str]) -> None:
    """Have an update of weights pack those experts again whose tensors it brings.

    vLLM 0.32 packs them for a CPU when it builds their kernel. In an update it keeps the kernel, which would go on with
    weights that are not packed, or stop at their size.

    Args:
        model: of vLLM, before the update is applied.
        names: of the tensors, in the checkpoint.
    """
    for name in names:
        if (own := own_name(model, name)) is not None:
            experts: Any = model.get_submodule(own.rpartition(".")[0])
            experts.quant_method.moe_kernel = None


def _places(
    experts: RoutedExperts, last: str, held: torch.Tensor, num_rows: int, num_columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row and the column, in a whole matrix [2F, D] or [D, F], of each one that is held; -1 for padding.

    vLLM's loader is run on indices, counted from 1 because padding is zero.
    """
    if last == "w2_weight":
        target = torch.zeros(1, 1, held.shape[2], dtype=torch.int64)
        _load(experts, target, torch.arange(1, num_columns + 1)[None], last, "w2")
        return torch.arange(num_rows), target.flatten() - 1
    target = torch.zeros(1, held.shape[1], 1, dtype=torch.int64)
    for shard, part in zip(("w1", "w3"), torch.arange(1, num_rows + 1).chunk(2), strict=True):
        _load(experts, target, part[:, None], last, shard)
    return target.flatten() - 1, torch.arange(num_columns)


def _load(experts: RoutedExperts, target: torch.Tensor, part: torch.Tensor, last: str, shard: str) -> None:
    parameter = torch.nn.Parameter(target, requires_grad=False)
    experts.weight_loader(parameter, part, last, shard, expert_id=0, return_success=True)


def _in_order(method: UnquantizedFusedMoEMethod, held: torch.Tensor) -> torch.Tensor | None:
    """Return a parameter in the order in which it was loaded; None if the order is not known."""
    if method.unquantized_backend in PLAIN:
        return held
    if method.unquantized_backend != UnquantizedMoeBackend.CPU:
        return None
    kernel: Any = method.moe_kernel
    experts = kernel.impl.fused_experts
    return held if experts._use_zentorch else _unpacked(held, experts.isa)


def _unpacked(packed: torch.Tensor, isa: str) -> torch.Tensor:
    """Undo the packing of a CPU's kernel, whose order is read off indices that are packed in place of weights."""
    one = packed[:1]
    places = torch.arange(one.numel()).view(one.shape)
    as_integers = torch.int32 if packed.element_size() == INT32_BYTES else torch.int16
    order = torch.zeros(one.numel(), dtype=torch.int64)
    # An index in two halves: weights of bfloat16 have no more bits.
    for factor, half in ((1, places % HALF), (HALF, places // HALF)):
        bits = cpu_prepack_moe_weight(half.to(as_integers).view(packed.dtype), isa).view(as_integers)
        order += factor * (bits.flatten().long() % HALF)
    unpacked = torch.empty_like(packed).flatten(1)
    unpacked[:, order] = packed.flatten(1)
    return unpacked.view_as(packed)
