"""Every tensor of a model by the name that transformers gives it: what all counts of memory add up."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

from orchestration.models.shapes import ModelShape, PatchTower, TextShape, TileTower

Part = Literal["vision_tower", "projector", "language_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One parameter.

    Example:
        >>> Tensor(name="lm_head.weight", shape=(576, 96), part="language_model", block=None, is_linear=True).numel
        55296
    """

    name: str
    """As transformers' model names it."""
    shape: tuple[int, ...]
    part: Part
    """The word under which `learner.freeze` knows it; the output head belongs to the language model."""
    block: str | None
    """Beginning of the name of the transformer block that holds it; None outside of blocks."""
    is_linear: bool
    """Whether it is the weight of a linear layer, to which adapters may be added."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@lru_cache(maxsize=16)
def model_tensors(shape: ModelShape) -> tuple[Tensor, ...]:
    """Give all parameters of a model; a tied output head once, as the embedding table."""
    text = tuple(_text_tensors(shape.text))
    if isinstance(shape.tower, PatchTower):
        return (*_patch_tower(shape.tower, shape.text.width), *text)
    return (*_tile_tower(shape.tower, shape.text.width), *text)


def _text_tensors(text: TextShape) -> Iterator[Tensor]:
    root = "model.language_model."
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    yield _plain(f"{root}embed_tokens.weight", (text.vocab_size, text.width), "language_model")
    for index in range(text.num_layers):
        block = f"{root}layers.{index}."
        yield from _linear(f"{block}self_attn.q_proj", queries, text.width, "language_model", block, bias=True)
        yield from _linear(f"{block}self_attn.k_proj", keys, text.width, "language_model", block, bias=True)
        yield from _linear(f"{block}self_attn.v_proj", keys, text.width, "language_model", block, bias=True)
        yield from _linear(f"{block}self_attn.o_proj", text.width, queries, "language_model", block)
        yield from _linear(f"{block}mlp.gate_proj", text.mlp_width, text.width, "language_model", block)
        yield from _linear(f"{block}mlp.up_proj", text.mlp_width, text.width, "language_model", block)
        yield from _linear(f"{block}mlp.down_proj", text.width, text.mlp_width, "language_model", block)
        yield _plain(f"{block}input_layernorm.weight", (text.width,), "language_model", block)
        yield _plain(f"{block}post_attention_layernorm.weight", (text.width,), "language_model", block)
    yield _plain(f"{root}norm.weight", (text.width,), "language_model")
    if not text.is_tied:
        yield from _linear("lm_head", text.vocab_size, text.width, "language_model", None)


def _patch_tower(tower: PatchTower, text_width: int) -> Iterator[Tensor]:
    width = tower.width
    part: Part = "vision_tower"
    kernel = (width, tower.num_channels, tower.temporal_patch, tower.patch_side, tower.patch_side)
    yield _plain("model.visual.patch_embed.proj.weight", kernel, "vision_tower")
    for index in range(tower.num_layers):
        block = f"model.visual.blocks.{index}."
        yield _plain(f"{block}norm1.weight", (width,), part, block)
        yield _plain(f"{block}norm2.weight", (width,), part, block)
        yield from _linear(f"{block}attn.qkv", 3 * width, width, part, block, bias=True)
        yield from _linear(f"{block}attn.proj", width, width, part, block, bias=True)
        yield from _linear(f"{block}mlp.gate_proj", tower.mlp_width, width, part, block, bias=True)
        yield from _linear(f"{block}mlp.up_proj", tower.mlp_width, width, part, block, bias=True)
        yield from _linear(f"{block}mlp.down_proj", width, tower.mlp_width, part, block, bias=True)
    merged = width * tower.patches_per_token
    yield _plain("model.visual.merger.ln_q.weight", (width,), "projector")
    yield from _linear("model.visual.merger.mlp.0", merged, merged, "projector", None, bias=True)
    yield from _linear("model.visual.merger.mlp.2", text_width, merged, "projector", None, bias=True)


def _tile_tower(tower: TileTower, text_width: int) -> Iterator[Tensor]:
    width, root = tower.width, "model.vision_tower."
    part: Part = "vision_tower"
    yield _plain(f"{root}embeddings.cls_token", (1, 1, width), "vision_tower")
    if tower.has_mask_token:
        yield _plain(f"{root}embeddings.mask_token", (1, 1, width), "vision_tower")
    if tower.has_positions:
        positions = (1, tower.patches_per_tile + 1, width)
        yield _plain(f"{root}embeddings.position_embeddings", positions, "vision_tower")
    kernel = (width, tower.num_channels, tower.patch_side, tower.patch_side)
    yield _plain(f"{root}embeddings.patch_embeddings.projection.weight", kernel, "vision_tower")
    yield _plain(f"{root}embeddings.patch_embeddings.projection.bias", (width,), "vision_tower")
    for index in range(tower.num_layers):
        block = f"{root}encoder.layer.{index}."
        yield _plain(f"{block}lambda_1", (width,), part, block)
        yield _plain(f"{block}lambda_2", (width,), part, block)
        for name in "qkv":
            yield from _linear(f"{block}attention.{name}_proj", width, width, part, block, bias=tower.has_qkv_bias)
        yield from _linear(f"{block}attention.projection_layer", width, width, part, block, bias=True)
        if tower.has_qk_norm:
            yield _plain(f"{block}attention.q_norm.weight", (width,), part, block)
            yield _plain(f"{block}attention.k_norm.weight", (width,), part, block)
        yield from _linear(f"{block}mlp.fc1", tower.mlp_width, width, part, block, bias=True)
        yield from _linear(f"{block}mlp.fc2", width, tower.mlp_width, part, block, bias=True)
        for name in ("layernorm_before", "layernorm_after"):
            yield _plain(f"{block}{name}.weight", (width,), part, block)
            if tower.norm == "layer_norm":
                yield _plain(f"{block}{name}.bias", (width,), part, block)
    if tower.has_last_norm:
        yield _plain(f"{root}layernorm.weight", (width,), "vision_tower")
        yield _plain(f"{root}layernorm.bias", (width,), "vision_tower")
    merged, projector = width * tower.merge_side**2, "model.multi_modal_projector."
    yield _plain(f"{projector}layer_norm.weight", (merged,), "projector")
    yield _plain(f"{projector}layer_norm.bias", (merged,), "projector")
    yield from _linear(f"{projector}linear_1", text_width, merged, "projector", None, bias=True)
    yield from _linear(f"{projector}linear_2", text_width, text_width, "projector", None, bias=True)


def _plain(name: str, shape: tuple[int, ...], part: Part, block: str | None = None) -> Tensor:
    return Tensor(name=name, shape=shape, part=part, block=block, is_linear=False)


def _linear(name: str, rows: int, columns: int, part: Part, block: str | None, *, bias: bool = False
) -> Iterator[Tensor]:  # fmt: skip
    yield Tensor(name=f"{name}.weight", shape=(rows, columns), part=part, block=block, is_linear=True)
    if bias:
        yield _plain(f"{name}.bias", (rows,), part, block)
