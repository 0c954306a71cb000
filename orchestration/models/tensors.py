"""All tensors of a model by their names in transformers, which of them are trained, and counts by part."""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal, get_args

from learner.config import LoraConfig
from learner.layers import layer_of
from orchestration.models.shapes import ModelShape, PatchTower, TextShape, TileTower
from orchestration.settings.errors import ConfigError

Part = Literal["vision_tower", "projector", "language_model"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Names of parts in `learner.freeze`; other entries are shell patterns of parameter names."""
PROJECTORS = ("model.visual.merger.", "model.multi_modal_projector.")
TOWERS = ("model.visual.", "model.vision_tower.")
BLOCK = re.compile(r"model\.(language_model\.layers|visual\.blocks|vision_tower\.encoder\.layer)\.\d+\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One parameter."""

    name: str
    """Name in the transformers model."""
    shape: tuple[int, ...]
    part: Part
    """Its name in `learner.freeze`; the output head belongs to the language model."""
    block: str | None
    """Name prefix of its transformer block; None outside of blocks."""
    is_linear: bool
    """Whether it is the weight of a linear layer, to which adapters may be added."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def make_tensor(name: str, *shape: int, is_linear: bool = False) -> Tensor:
    """Return a tensor with the part and block of its name."""
    part: Part = "language_model"
    if name.startswith(TOWERS):
        part = "vision_tower"
    if name.startswith(PROJECTORS):
        part = "projector"
    block = BLOCK.match(name)
    return Tensor(name=name, shape=shape, part=part, block=block.group() if block else None, is_linear=is_linear)


def _linear(name: str, rows: int, columns: int, *, bias: bool = False) -> Iterator[Tensor]:
    yield make_tensor(f"{name}.weight", rows, columns, is_linear=True)
    if bias:
        yield make_tensor(f"{name}.bias", rows)


@lru_cache(maxsize=16)
def model_tensors(shape: ModelShape) -> tuple[Tensor, ...]:
    """Return all parameters of a model; a tied output head once, as the embedding table."""
    text = tuple(_text_tensors(shape.text))
    if isinstance(shape.tower, PatchTower):
        return (*_patch_tower(shape.tower, shape.text.width), *text)
    return (*_tile_tower(shape.tower, shape.text.width), *text)


def _text_tensors(text: TextShape) -> Iterator[Tensor]:
    root = "model.language_model."
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    yield make_tensor(f"{root}embed_tokens.weight", text.vocab_size, text.width)
    for index in range(text.num_layers):
        block = f"{root}layers.{index}."
        yield from _linear(f"{block}self_attn.q_proj", queries, text.width, bias=True)
        yield from _linear(f"{block}self_attn.k_proj", keys, text.width, bias=True)
        yield from _linear(f"{block}self_attn.v_proj", keys, text.width, bias=True)
        yield from _linear(f"{block}self_attn.o_proj", text.width, queries)
        yield from _linear(f"{block}mlp.gate_proj", text.mlp_width, text.width)
        yield from _linear(f"{block}mlp.up_proj", text.mlp_width, text.width)
        yield from _linear(f"{block}mlp.down_proj", text.width, text.mlp_width)
        yield make_tensor(f"{block}input_layernorm.weight", text.width)
        yield make_tensor(f"{block}post_attention_layernorm.weight", text.width)
    yield make_tensor(f"{root}norm.weight", text.width)
    if not text.is_tied:
        yield from _linear("lm_head", text.vocab_size, text.width)


def _patch_tower(tower: PatchTower, text_width: int) -> Iterator[Tensor]:
    width, root = tower.width, "model.visual."
    kernel = (tower.num_channels, tower.temporal_patch, tower.patch_side, tower.patch_side)
    yield make_tensor(f"{root}patch_embed.proj.weight", width, *kernel)
    for index in range(tower.num_layers):
        block = f"{root}blocks.{index}."
        yield make_tensor(f"{block}norm1.weight", width)
        yield make_tensor(f"{block}norm2.weight", width)
        yield from _linear(f"{block}attn.qkv", 3 * width, width, bias=True)
        yield from _linear(f"{block}attn.proj", width, width, bias=True)
        yield from _linear(f"{block}mlp.gate_proj", tower.mlp_width, width, bias=True)
        yield from _linear(f"{block}mlp.up_proj", tower.mlp_width, width, bias=True)
        yield from _linear(f"{block}mlp.down_proj", width, tower.mlp_width, bias=True)
    merged = width * tower.patches_per_token
    yield make_tensor(f"{root}merger.ln_q.weight", width)
    yield from _linear(f"{root}merger.mlp.0", merged, merged, bias=True)
    yield from _linear(f"{root}merger.mlp.2", text_width, merged, bias=True)


def _tile_tower(tower: TileTower, text_width: int) -> Iterator[Tensor]:
    width, root = tower.width, "model.vision_tower."
    yield make_tensor(f"{root}embeddings.cls_token", 1, 1, width)
    if tower.has_mask_token:
        yield make_tensor(f"{root}embeddings.mask_token", 1, 1, width)
    if tower.has_positions:
        yield make_tensor(f"{root}embeddings.position_embeddings", 1, tower.patches_per_tile + 1, width)
    kernel = (tower.num_channels, tower.patch_side, tower.patch_side)
    yield make_tensor(f"{root}embeddings.patch_embeddings.projection.weight", width, *kernel)
    yield make_tensor(f"{root}embeddings.patch_embeddings.projection.bias", width)
    for index in range(tower.num_layers):
        block = f"{root}encoder.layer.{index}."
        yield make_tensor(f"{block}lambda_1", width)
        yield make_tensor(f"{block}lambda_2", width)
        for name in "qkv":
            yield from _linear(f"{block}attention.{name}_proj", width, width, bias=tower.has_qkv_bias)
        yield from _linear(f"{block}attention.projection_layer", width, width, bias=True)
        if tower.has_qk_norm:
            yield make_tensor(f"{block}attention.q_norm.weight", width)
            yield make_tensor(f"{block}attention.k_norm.weight", width)
        yield from _linear(f"{block}mlp.fc1", tower.mlp_width, width, bias=True)
        yield from _linear(f"{block}mlp.fc2", width, tower.mlp_width, bias=True)
        for name in ("layernorm_before", "layernorm_after"):
            yield make_tensor(f"{block}{name}.weight", width)
            if tower.norm == "layer_norm":
                yield make_tensor(f"{block}{name}.bias", width)
    if tower.has_last_norm:
        yield make_tensor(f"{root}layernorm.weight", width)
        yield make_tensor(f"{root}layernorm.bias", width)
    merged, projector = width * tower.merge_side**2, "model.multi_modal_projector."
    yield make_tensor(f"{projector}layer_norm.weight", merged)
    yield make_tensor(f"{projector}layer_norm.bias", merged)
    yield from _linear(f"{projector}linear_1", text_width, merged, bias=True)
    yield from _linear(f"{projector}linear_2", text_width, text_width, bias=True)


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


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Count the parameters of a model by part."""
    counts = {"vision_tower": 0, "projector": 0, "language_model": 0, "lm_head": 0}
    for tensor in model_tensors(shape):
        counts["lm_head" if tensor.name == "lm_head.weight" else tensor.part] += tensor.numel
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
    """Return what engines are sent after a step: all tensors of each layer with a trained one, or adapters."""
    if lora is not None and lora.publish == "adapter":
        return list(trained_tensors(shape, freeze, lora).trained)
    layers = {layer_of(tensor.name) for tensor in trained_tensors(shape, freeze, lora).trained}
    return [tensor for tensor in model_tensors(shape) if layer_of(tensor.name) in layers]


def sent_tensors(shape: ModelShape, freeze: tuple[str, ...], lora: LoraConfig | None) -> list[Tensor]:
    """Return the tensors that a new engine is sent: all, or adapters."""
    if lora is not None and lora.publish == "adapter":
        return changing_tensors(shape, freeze, lora)
    return list(model_tensors(shape))


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
            found.append(make_tensor(f"{name}.lora_A.default.weight", lora.rank, columns))
            found.append(make_tensor(f"{name}.lora_B.default.weight", rows, lora.rank))
    return tuple(found)
