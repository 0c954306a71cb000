"""Which tensors of a model are trained and which travel, and counts of parameters by part."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import get_args

from learner.config import LoraConfig
from learner.layers import layer_of
from orchestration.models.shapes import HEAD, ModelShape, Part, Tensor
from orchestration.settings.errors import ConfigError

PARTS: tuple[Part, ...] = get_args(Part)
"""Names of parts in `learner.freeze`; other entries are shell patterns of parameter names."""


def count_elements(tensors: Iterable[Tensor]) -> int:
    """Return the number of elements of all tensors together."""
    return sum(tensor.numel for tensor in tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters by part."""

    vision_tower: int
    projector: int
    language_model: int
    """Embedding table, blocks and last norm; without the output head."""
    lm_head: int
    """0 if the output head is the embedding table."""

    @property
    def total(self) -> int:
        """All parts together."""
        return self.vision_tower + self.projector + self.language_model + self.lm_head


def active_elements(shape: ModelShape, tensors: Iterable[Tensor]) -> int:
    """Return the elements that one token is computed with: of a mixture, those of its own experts."""
    text = shape.text
    return sum(
        tensor.numel * text.experts_per_token // text.num_experts if tensor.is_expert else tensor.numel
        for tensor in tensors
    )


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Count the parameters of a model by part."""
    counts = {"vision_tower": 0, "projector": 0, "language_model": 0, "lm_head": 0}
    for tensor in shape.tensors:
        counts["lm_head" if tensor.name == HEAD else tensor.part] += tensor.numel
    return ParameterCounts(**counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTensors:
    """The learner's parameters."""

    trained: tuple[Tensor, ...]
    """With adapters only these, otherwise all parameters that are not frozen."""
    fixed: tuple[Tensor, ...]

    @property
    def all(self) -> tuple[Tensor, ...]:
        return (*self.trained, *self.fixed)

    def trains(self, part: str) -> bool:
        """Return whether anything of a part is trained."""
        return any(tensor.part == part for tensor in self.trained)


@lru_cache(maxsize=16)
def trained_tensors(shape: ModelShape, freeze: tuple[str, ...], lora: LoraConfig | None) -> TrainedTensors:
    """Split the tensors into trained and fixed ones, as the learner does.

    Raises:
        ConfigError: A pattern or an adapter target matches nothing, or nothing is left to train.
    """
    tensors = shape.tensors
    for pattern in freeze:
        if any(_is_frozen(tensor, (pattern,)) for tensor in tensors):
            continue
        if pattern in PARTS:
            raise ConfigError(f"learner.freeze names {pattern}, and a {shape.family} model has none; leave it out")
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
    """Return what engines are sent after a step: all tensors of each layer with a trained one, or adapters."""
    if lora is not None and lora.publish == "adapter":
        return list(trained_tensors(shape, freeze, lora).trained)
    layers = {layer_of(tensor.name) for tensor in trained_tensors(shape, freeze, lora).trained}
    return [tensor for tensor in shape.tensors if layer_of(tensor.name) in layers]


def sent_tensors(shape: ModelShape, freeze: tuple[str, ...], lora: LoraConfig | None) -> list[Tensor]:
    """Return the tensors that a new engine is sent: all, or adapters."""
    if lora is not None and lora.publish == "adapter":
        return changing_tensors(shape, freeze, lora)
    return list(shape.tensors)


def _is_frozen(tensor: Tensor, freeze: tuple[str, ...]) -> bool:
    return any(
        tensor.part == pattern if pattern in PARTS else fnmatch.fnmatchcase(tensor.name, pattern) for pattern in freeze
    )


def _adapters(tensors: tuple[Tensor, ...], lora: LoraConfig) -> tuple[Tensor, ...]:
    """Return the adapter factors of each target layer: A [rank, columns] and B [rows, rank]."""
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
            for kind, sizes in (("A", (lora.rank, columns)), ("B", (rows, lora.rank))):
                factor = replace(tensor, name=f"{name}.lora_{kind}.default.weight", shape=sizes, is_linear=False)
                found.append(factor)
    return tuple(found)
