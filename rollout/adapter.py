"""The policy's adapter in an engine that keeps the weights of its model: vLLM's LoRA, sent over the weight channel.

vLLM reads an adapter from files when a request names one that it has not. Here its factors come from the learner, and
the worker puts them in vLLM's manager under the number that every request names, so no file is ever looked for. B comes
multiplied by alpha / rank: what is sent is what layers hold, and fingerprints of both sides are equal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.models.utils import WeightsMapper

from rollout.errors import WeightSyncError
from rollout.fingerprint import shard_fingerprint
from rollout.translation import ADAPTER

FACTORS = (".lora_A.weight", ".lora_B.weight")
"""Ends of the names of the factors of a layer, A [rank, columns] and B [rows, rank]."""
BASE_LAYER = ".base_layer."
"""What vLLM inserts into the names of an adapted layer's own weights."""


class Factors(dict[str, torch.Tensor]):
    """The factors of one transfer by name, for a receiver that would load them into a model."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy tensors: those that arrive may lie in a buffer that the next transfer writes to."""
        self.update((name, tensor.clone()) for name, tensor in weights)


def install(manager: Any, factors: Mapping[str, torch.Tensor]) -> None:
    """Have the layers of a model compute with new factors from the next step on.

    Args:
        manager: vLLM's LoRA manager of the model.
        factors: by name, of all adapted layers.

    Raises:
        WeightSyncError: the engine adapts no layer of a name, or the factors are of several ranks.
    """
    ranks = {tensor.shape[0] for name, tensor in factors.items() if name.endswith(FACTORS[0])}
    if len(ranks) != 1:
        raise WeightSyncError(
            f"an adapter with factors of ranks {sorted(ranks)} was sent; engines take one of one rank"
        )
    [rank] = ranks
    lora = LoRAModel.from_lora_tensors(
        ADAPTER.lora_int_id,
        dict(factors),
        PEFTHelper(r=rank, lora_alpha=rank, target_modules=[]),
        device=str(manager.device),
        dtype=manager.lora_config.lora_dtype,
        weights_mapper=_mapper(manager),
    )
    known = {*manager.modules, *(part for parts in manager.packed_modules.values() for part in parts)}
    strangers = sorted(set(lora.loras) - known)
    if strangers:
        raise WeightSyncError(
            f"the engine cannot adapt {len(strangers)} of {len(lora.loras)} layers, one is {strangers[0]}; set "
            "learner.lora.publish=merged"
        )
    manager.remove_adapter(lora.id)
    manager.add_adapter(lora)
    manager.activate_adapter(lora.id)


def factor_places(manager: Any, names: Iterable[str]) -> dict[str, str]:
    """Map names of factors to the engine's own names of the buffers that hold them."""
    slices = _slices(manager)
    found = {}
    for name in names:
        for end in FACTORS:
            if name.endswith(end) and (own := slices.get(_engine_name(manager, name.removesuffix(end)))) is not None:
                module, index = own
                found[name] = f"{module}{end.removesuffix('.weight')}.{index}"
    return found


def factor_fingerprint(manager: Any, place: str, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return what this worker's share of a factor adds to the fingerprint of the whole.

    Args:
        manager: vLLM's LoRA manager of the model.
        place: as `factor_places` names it.
        shape: of the whole factor.
    """
    module_name, factor, index = place.rsplit(".", 2)
    layer, number = manager.modules[module_name], int(index)
    slot = manager.lora_index_to_id.index(ADAPTER.lora_int_id)
    stacked = (layer.lora_a_stacked if factor == "lora_A" else layer.lora_b_stacked)[number][slot, 0]
    positions = _shard_of(layer, factor, number, torch.arange(shape[0] * shape[1]).view(shape))
    rows, columns = positions.shape
    indices = [positions[:, 0] // shape[1], positions[0] % shape[1]]
    return shard_fingerprint(stacked[:rows, :columns], indices, shape)


def own_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters of a model under the names that they have without adapters."""
    for name, parameter in model.named_parameters():
        yield name.replace(BASE_LAYER, "."), parameter


def name_mapper(model: torch.nn.Module) -> WeightsMapper:
    """Return vLLM's renaming of checkpoint names for a model; classes that rename nothing have none, or None."""
    return getattr(model, "hf_to_vllm_mapper", None) or WeightsMapper()


def _shard_of(layer: Any, factor: str, number: int, whole: torch.Tensor) -> torch.Tensor:
    """Return the part of a whole factor that a layer keeps, by the layer's own rule."""
    if layer.tp_size == 1:
        return whole
    cut = layer.slice_lora_a if factor == "lora_A" else layer.slice_lora_b
    if layer.n_slices == 1:
        alone: torch.Tensor = cut(whole)
        return alone
    slices: list[torch.Tensor | None] = [None] * layer.n_slices
    slices[number] = whole
    part: torch.Tensor = cut(slices)[number]
    return part


def _slices(manager: Any) -> dict[str, tuple[str, int]]:
    """Map the name of each layer whose factors lie in one buffer to the engine's layer, and the slice of it."""
    found = {name: (name, 0) for name in manager.modules}
    for whole, parts in manager.packed_modules.items():
        if manager.modules[whole].n_slices == len(parts):
            found.update({part: (whole, number) for number, part in enumerate(parts)})
    return found


def _engine_name(manager: Any, layer: str) -> str:
    mapped: str | None = _mapper(manager).map_name(f"{layer}.weight")
    return (mapped or f"{layer}.weight").removesuffix(".weight")


def _mapper(manager: Any) -> Any:
    """Return the model's renaming of checkpoint names; it stacks nothing, as factors of q, k and v stay apart."""
    return name_mapper(manager.model).get_rename_mapper()
