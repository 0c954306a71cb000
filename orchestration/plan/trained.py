"""Which tensors of a model are trained, which stay fixed, and which adapters are added."""

import fnmatch
from dataclasses import dataclass
from functools import lru_cache

from learner.config import LoraConfig
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import Tensor, model_tensors
from orchestration.settings.errors import ConfigError

PARTS = ("vision_tower", "projector", "language_model")
"""Words of `learner.freeze`; other entries are shell patterns of names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTensors:
    """The learner's parameters."""

    trained: tuple[Tensor, ...]
    """Without adapters, what is not frozen; with adapters, these alone."""
    fixed: tuple[Tensor, ...]

    @property
    def all(self) -> tuple[Tensor, ...]:
        """Both."""
        return (*self.trained, *self.fixed)

    def trains(self, part: str) -> bool:
        """Whether anything of a part is trained."""
        return any(tensor.part == part for tensor in self.trained)


@lru_cache(maxsize=16)
def trained_tensors(shape: ModelShape, freeze: tuple[str, ...], lora: LoraConfig | None) -> TrainedTensors:
    """Sort the tensors as the learner does.

    Raises:
        ConfigError: a pattern or an adapter's target matches nothing, or nothing is left to train.
    """
    tensors = model_tensors(shape)
    for pattern in freeze:
        if pattern not in PARTS and not fnmatch.filter([tensor.name for tensor in tensors], pattern):
            raise ConfigError(
                f"learner.freeze pattern {pattern!r} matches no parameter of this model; use {', '.join(PARTS)}, or a "
                f"shell pattern of names like {tensors[0].name}"
            )
    frozen = [_is_frozen(tensor, freeze) for tensor in tensors]
    trained = tuple(tensor for tensor, is_frozen in zip(tensors, frozen, strict=True) if not is_frozen)
    if lora is not None:
        return TrainedTensors(trained=_adapters(trained, lora), fixed=tensors)
    if not trained:
        raise ConfigError(f"learner.freeze={list(freeze)} freezes every parameter; leave something to train")
    fixed = tuple(tensor for tensor, is_frozen in zip(tensors, frozen, strict=True) if is_frozen)
    return TrainedTensors(trained=trained, fixed=fixed)


def changing_tensors(shape: ModelShape, freeze: tuple[str, ...], lora: LoraConfig | None) -> list[Tensor]:
    """Return all tensors of the layers in which something is trained: what travels to engines after a step."""
    layers = {_layer_of(tensor) for tensor in trained_tensors(shape, freeze, lora).trained}
    return [tensor for tensor in model_tensors(shape) if _layer_of(tensor) in layers]


def _layer_of(tensor: Tensor) -> str:
    """Return the block that holds a tensor, or else its module; see learner.policy.trainable."""
    module, is_adapter, _ = tensor.name.partition(".lora_")
    return tensor.block or (module if is_adapter else module.rpartition(".")[0])


def _is_frozen(tensor: Tensor, freeze: tuple[str, ...]) -> bool:
    return any(
        tensor.part == pattern if pattern in PARTS else fnmatch.fnmatchcase(tensor.name, pattern) for pattern in freeze
    )


def _adapters(tensors: tuple[Tensor, ...], lora: LoraConfig) -> tuple[Tensor, ...]:
    """Two factors for the weight of each target layer: A [rank, columns] and B [rows, rank]."""
    found: list[Tensor] = []
    layers = {tensor.name.removesuffix(".weight"): tensor for tensor in tensors if tensor.is_linear}
    layers.pop("lm_head", None)
    for target in lora.target_modules:
        if not any(name.rpartition(".")[2] == target for name in layers):
            raise ConfigError(
                f"learner.lora.target_modules names {target!r}, which is no trainable linear layer of this model; "
                f"there are {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}"
            )
    for name, tensor in layers.items():
        if name.rpartition(".")[2] in lora.target_modules:
            rows, columns = tensor.shape
            for factor, shape in (("A", (lora.rank, columns)), ("B", (rows, lora.rank))):
                found.append(
                    Tensor(
                        name=f"{name}.lora_{factor}.default.weight",
                        shape=shape,
                        part=tensor.part,
                        block=tensor.block,
                        is_linear=False,
                    )
                )
    return tuple(found)
