"""Sizes of a model, from its config.json and transformers' own modules; without torch or weights in this process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal

from conf.ranges import nearest
from learner.config import SUPPORTED_FAMILIES
from orchestration.models.facts import Facts, FactsError, facts_of
from orchestration.models.files import (
    INDEX_FILE,
    SINGLE_FILE,
    config_parts,
    has_own_output_head,
    read_object,
    stored_tensors,
)
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig

Part = Literal["vision_tower", "projector", "language_model"]
LayerKind = Literal["full_attention", "sliding_attention", "linear_attention"]
ImageKind = Literal["resized", "tiles", "fitted", "fixed", "none"]
UNREAD = frozenset(
    {
        "architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "attn_implementation",
        "_attn_implementation_autoset", "in_chans", "spatial_patch_size", "tokens_per_second", "vision_token_id",
        "vision_start_token_id", "vision_end_token_id", "model_type", "rope_theta", "rope_scaling",
        "max_window_layers", "use_sliding_window", "sliding_window", "norm_topk_prob",
        "global_head_dim", "head_dim",
    }
)  # fmt: skip
"""Keys of published files that affect no tensor's shape and that not every class of transformers has; or that
one reads beside its fields (Gemma 4's global_head_dim, Qwen3-MoE's head_dim)."""
COUNTS = (
    *("num_hidden_layers", "depth", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"),
    *("num_key_value_heads", "num_heads", "head_dim"),
)
"""Keys of counts, checked here because not every class of transformers names the key that it refuses."""
SIDES = ("patch_size", "image_size")
IMAGE_KINDS: Mapping[str, ImageKind] = {
    "Qwen2VLImageProcessor": "resized",
    "GotOcr2ImageProcessor": "tiles",
    "Gemma4ImageProcessor": "fitted",
}
"""What each image processor of transformers makes of a picture; others make a picture of one size."""


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
    is_expert: bool = False
    """Whether it holds all experts of a mixture, the first axis; a token uses some of them."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """One transformer block: what autograd keeps of a row, as `orchestration.models.meta_blocks` counts it."""

    kind: LayerKind
    float32: int
    """Elements kept in float32."""
    narrow: int
    """Elements kept in the type of forward and backward."""
    chunked: int
    """Elements kept in float32 of each row of a chunk of linear attention; 0 without."""
    queries: int
    """Elements of a row's queries; 0 for linear attention."""
    keys: int
    """Elements of a row's keys, and of its values."""
    inner: int
    """Widest gradient inside of the MLP: its gate beside it, of a mixture all experts of a token."""
    mlp: int
    """Columns of the MLP's last layer, of a mixture those of one expert."""

    def kept(self, size: int) -> int:
        """Return the bytes of a row outside of chunks, with `size` bytes per element in forward and backward."""
        return 4 * self.float32 + size * self.narrow


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """A language model."""

    vocab_size: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    """Of a mixture of experts; 0 for none."""
    experts_per_token: int
    window: int
    """Tokens that layers of sliding attention look back; 0 for none."""
    state: tuple[int, int]
    """Elements that a sequence keeps in a layer of linear attention: recurrent state, convolution state."""
    blocks: tuple[BlockShape, ...]
    is_tied: bool
    """Whether the output head is the embedding table."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return len(self.blocks)

    @property
    def mlp_width(self) -> int:
        """Columns of the widest MLP, of a mixture those of one expert."""
        return max(block.mlp for block in self.blocks)

    @property
    def num_cached(self) -> int:
        """Blocks whose key-value cache grows with every token."""
        return sum(block.kind != "linear_attention" for block in self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """A vision tower; of a model without one, all is 0."""

    width: int
    num_heads: int
    patch_side: int
    patch_values: int
    """Numbers of a patch as the tower takes it: channels x frames x side x side."""
    merge_side: int
    """merge_side x merge_side patches become one token."""
    tile_side: int
    """Side of the only picture that the tower takes; 0 if it takes any."""
    class_tokens: int
    """Rows beside the patches of a tile."""
    has_rotary: bool
    is_fused: bool
    """Whether queries, keys and values are one linear layer."""
    blocks: tuple[BlockShape, ...]
    projector: tuple[int, int]
    """Elements that the projector keeps of an image token: in float32, in the type of forward and backward."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return len(self.blocks)

    @property
    def mlp_width(self) -> int:
        """Columns of the MLP."""
        return max((block.mlp for block in self.blocks), default=0)

    @property
    def patches_per_token(self) -> int:
        """Patches of one image token."""
        return self.merge_side**2

    @property
    def patches_per_tile(self) -> int:
        """Patches of a tile, without the class token."""
        return (self.tile_side // self.patch_side) ** 2 if self.tile_side else 0

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens of a tile."""
        return self.patches_per_tile // self.patches_per_token


NO_TOWER = TowerShape(
    width=0, num_heads=0, patch_side=0, patch_values=0, merge_side=1, tile_side=0, class_tokens=0, has_rotary=False,
    is_fused=False, blocks=(), projector=(0, 0),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A language model, with or without a vision tower."""

    family: str
    """model_type of config.json."""
    text: TextShape
    tower: TowerShape
    image_kind: ImageKind
    """How its image processor makes tokens of a picture."""
    image_processor: str
    """Name of that processor in transformers; empty for none."""
    image_defaults: tuple[tuple[str, Any], ...] = field(hash=False)
    """Settings of the processor where a folder states none."""
    image_token_id: int | None
    """Placeholder of an image token where config.json has none."""
    tensors: tuple[Tensor, ...] = field(hash=False, repr=False)
    """All parameters; a tied output head once, as the embedding table."""
    table: str
    """Name of the embedding table."""

    @property
    def head(self) -> str:
        """Name of the tensor that is the output head."""
        return self.table if self.text.is_tied else HEAD


HEAD = "lm_head.weight"
COPY = "copy it from the model's published config.json, or set model.path to the model's folder"


def shape_of(config: ModelConfig) -> ModelShape:
    """Return the shape of a run's model: of model.path, else of model.hf_config, else of the demo's model.

    Of an architecture that only the user's own class knows, the shape is that of model.hf_config.

    Raises:
        ConfigError: A path without config.json and no hf_config, or a key is missing or unknown.
    """
    if config.path is not None:
        folder = Path(config.path)
        file = folder / "config.json"
        if file.is_file() and (config.own_family is None or read_object(file).get("model_type") in SUPPORTED_FAMILIES):
            has_weights = (folder / INDEX_FILE).is_file() or (folder / SINGLE_FILE).is_file()
            head = has_own_output_head(stored_tensors(folder)) if has_weights else None
            return read_saved_shape(read_object(file), where=str(file), has_own_head=head)
        if config.hf_config is None and file.is_file():
            raise ConfigError(
                f"model.path={config.path} is a model that only model.family={config.family} knows, and "
                "model.hf_config is null; state there the sizes of the nearest model of a known family, by which a run "
                "is planned: choose one, such as model=qwen2_5_vl_7b, and override what differs"
            )
        if config.hf_config is None:
            raise ConfigError(
                f"model.path={config.path} holds no config.json and model.hf_config is null; point model.path at a "
                "Hugging Face folder, or choose a model that states its sizes, such as model=qwen2_5_vl_7b"
            )
    if config.hf_config is not None:
        return read_shape(config.hf_config)
    assert config.tiny is not None, "ModelConfig has checked that there is a path, a tiny model or hf_config"
    return read_shape(config.tiny.hf_config, "model.tiny.hf_config")


def read_shape(hf_config: Mapping[str, Any], where: str = "model.hf_config") -> ModelShape:
    """Return the shape of stated sizes: every size of the architecture must be there, and every key known.

    Args:
        hf_config: Content of a published config.json, or what of it affects sizes.
        where: Its dotted key, for messages.

    Raises:
        ConfigError: A key is missing, unknown, or of a value that transformers refuses.
    """
    _checked_facts(hf_config, where, COPY, is_stated=True)
    if all(part.get("tie_word_embeddings") is None for _, part in config_parts(hf_config, "")):
        raise ConfigError(f"{where}.tie_word_embeddings is missing; {COPY}")
    return _shape(json.dumps(hf_config, sort_keys=True, default=dict), None)


def read_saved_shape(
    saved: Mapping[str, Any], *, where: str = "config.json", has_own_head: bool | None = None
) -> ModelShape:
    """Return the shape of a model folder's config.json; keys that are missing have transformers' defaults.

    Args:
        saved: Content of the file.
        where: Its path, for messages.
        has_own_head: Whether the weights have an output head of their own, which the file may not state, or state
            wrongly; None if there are no weights.

    Raises:
        ConfigError: Transformers refuses a value.
    """
    _checked_facts(saved, where, "copy the file of the original checkpoint", is_stated=False)
    return _shape(json.dumps(saved, sort_keys=True), has_own_head)


def unstated_size(saved: Mapping[str, Any], where: str) -> ConfigError | None:
    """Return the error that names the first size for which config.json relies on a default; None if there is none."""
    facts = facts_of(saved)
    return _missing(facts, where) if facts["keys"]["missing"] else None


def _checked_facts(values: Mapping[str, Any], where: str, remedy: str, *, is_stated: bool) -> None:
    """Refuse a configuration of which transformers makes no model; of a stated one, missing and unknown keys too."""
    for prefix, part in config_parts(values, f"{where}."):
        for name, size in part.items():
            if name in COUNTS and size is not None and (type(size) is not int or size < 1):
                raise ConfigError(f"{prefix}{name} is {size!r}; it must be a whole number of at least 1")
            if name in SIDES and isinstance(size, list | tuple) and len(set(size)) > 1:
                raise ConfigError(f"{prefix}{name} is {list(size)!r}; patches and pictures of a tower must be square")
    try:
        facts = facts_of(values)
    except FactsError as error:
        raise ConfigError(f"{where}: {error}") from error
    if "error" in facts:
        if facts.get("keys", {}).get("missing"):
            raise _missing(facts, where)
        raise ConfigError(f"{where}: transformers makes no model of it ({facts['error']}); {remedy}")
    if is_stated:
        _refuse_unknown(facts, values, where)
        if facts["keys"]["missing"]:
            raise _missing(facts, where)
    out = (values.get("vision_config") or {}).get("out_hidden_size")
    if out not in (None, facts["text"]["width"]):
        raise ConfigError(
            f"{where}.vision_config.out_hidden_size is {out}, but hidden_size of the language model is "
            f"{facts['text']['width']}; they must be equal"
        )
    if facts["text"]["uses_window"]:
        raise ConfigError(f"{where}: use_sliding_window is true, which the learner's attention does not compute")


def _missing(facts: Facts, where: str) -> ConfigError:
    return ConfigError(f"{where}.{facts['keys']['missing'][0]} is missing; {COPY}")


def _refuse_unknown(facts: Facts, values: Mapping[str, Any], where: str) -> None:
    """Refuse keys that no class of the architecture reads, and name the nearest known one."""
    for part, names in facts["keys"]["known"].items():
        inner = values.get(part) if part else values
        known = {*names, *UNREAD}
        unknown = next((name for name in inner if name not in known), None) if isinstance(inner, Mapping) else None
        if unknown is not None:
            near = nearest(str(unknown), sorted(known), cutoff=0.6)
            meant = f"did you mean {near}? " if near else ""
            raise ConfigError(
                f"{where}{f'.{part}' if part else ''}.{unknown} is not known to transformers' {values['model_type']}; "
                f"{meant}Remove the key if it affects no tensor's shape"
            )


@lru_cache(maxsize=64)
def _shape(text: str, has_own_head: bool | None) -> ModelShape:
    """Return the shape of a configuration, given as JSON."""
    values = json.loads(text)
    facts = facts_of(values)
    numbers, tower, images = dict(facts["text"]), facts["tower"], facts["images"] or {}
    del numbers["uses_window"]
    blocks, state = _blocks(numbers.pop("blocks")), tuple(numbers.pop("state"))
    is_tied = facts["is_tied"] and not has_own_head
    tensors = [
        Tensor(name=name, shape=tuple(shape), part=part, block=block, is_linear=is_linear, is_expert=is_expert)
        for name, shape, part, block, is_linear, is_expert in facts["tensors"]
        if name != HEAD
    ]
    if not is_tied:
        shape = (numbers["vocab_size"], numbers["width"])
        tensors.append(Tensor(name=HEAD, shape=shape, part="language_model", block=None, is_linear=True))
    processor = images.get("processor", "")
    return ModelShape(
        family=values["model_type"],
        text=TextShape(**numbers, blocks=blocks, state=state, is_tied=is_tied),
        tower=NO_TOWER if tower is None else TowerShape(
            **{**tower, "blocks": _blocks(tower["blocks"]), "projector": tuple(tower["projector"])}
        ),
        image_kind=IMAGE_KINDS.get(processor, "fixed") if tower else "none",
        image_processor=processor,
        image_defaults=tuple(images.get("defaults", {}).items()),
        image_token_id=facts["image_token_id"],
        tensors=tuple(tensors),
        table=facts["table"],
    )  # fmt: skip


def _blocks(found: list[list[Any]]) -> tuple[BlockShape, ...]:
    names = ("kind", "float32", "narrow", "chunked", "queries", "keys", "inner", "mlp")
    return tuple(BlockShape(**dict(zip(names, values, strict=True))) for values in found)
