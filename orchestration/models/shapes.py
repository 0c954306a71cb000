"""Sizes of a model, read from its config.json without torch or weights."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from conf.ranges import nearest
from learner.config import SUPPORTED_FAMILIES
from orchestration.models.files import INDEX_FILE, SINGLE_FILE, has_own_output_head, read_object, stored_tensors
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig

WITHOUT_SIZE = frozenset(
    {
        "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "initializer_range", "use_cache",
        "_name_or_path", "_attn_implementation_autoset", "attn_implementation", "return_dict", "hidden_act",
        "attention_dropout", "max_position_embeddings", "max_window_layers", "sliding_window", "layer_types",
        "rms_norm_eps", "layer_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "bos_token_id",
        "eos_token_id", "pad_token_id", "image_token_id", "video_token_id", "vision_token_id", "vision_start_token_id",
        "vision_end_token_id", "image_seq_length", "tokens_per_second", "spatial_patch_size", "projector_hidden_act",
        "vision_feature_layer", "vision_feature_select_strategy", "hidden_dropout_prob", "projection_dropout",
        "layer_scale_init_value", "in_chans",
    }
)  # fmt: skip
"""Keys of published files that do not affect the shape of a tensor."""


class ConfigKeys:
    """Reads the keys of one part of a config.json; `close` refuses unknown ones."""

    def __init__(self, values: object, where: str, *, is_strict: bool) -> None:
        """Read `values`, found at the dotted key `where`; `is_strict` refuses unknown keys.

        Raises:
            ConfigError: `values` is not a mapping.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is {values!r}; it must hold the keys of that part of the published config.json")
        self._values = values
        self._where = where
        self._is_strict = is_strict
        self._read: set[str] = set()

    def part(self, name: str) -> "ConfigKeys":
        """Return the keys of a nested part."""
        return ConfigKeys(self._get(name), f"{self._where}.{name}", is_strict=self._is_strict)

    def has(self, name: str) -> bool:
        """Return whether the key is there."""
        return name in self._values

    def count(self, name: str, default: int | None = None) -> int:
        """Return a whole number of at least 1, also if it is written as a pair of equal numbers.

        Raises:
            ConfigError: It is missing and has no default, or is something else; as in all methods.
        """
        value = self._get(name, default)
        if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        is_right = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        return int(self._checked(name, value, is_right, "it must be a whole number of at least 1"))

    def fraction(self, name: str, default: float) -> float:
        """Return a number above 0 and at most 1."""
        value = self._get(name, default)
        is_right = isinstance(value, int | float) and 0.0 < value <= 1.0
        return float(self._checked(name, value, is_right, "it must be above 0 and at most 1"))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._get(name, default)
        return bool(self._checked(name, value, isinstance(value, bool), "it must be true or false"))

    def choice(self, name: str, allowed: Collection[str], default: str | None = None) -> str:
        """Return one of `allowed`."""
        value = self._get(name, default)
        return str(self._checked(name, value, value in allowed, f"supported are {', '.join(sorted(allowed))}"))

    def counts(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return whole numbers."""
        value = self._get(name, default)
        is_right = isinstance(value, list | tuple) and all(isinstance(number, int) for number in value)
        return tuple(self._checked(name, value, is_right, "it must be a list of whole numbers"))

    def close(self) -> None:
        """Refuse keys that were neither read nor are in WITHOUT_SIZE.

        Raises:
            ConfigError: Names the first such key, and the nearest known one.
        """
        known = self._read | WITHOUT_SIZE
        unknown = next((name for name in self._values if name not in known), None)
        if unknown is not None and self._is_strict:
            near = nearest(str(unknown), sorted(known), cutoff=0.6)
            meant = f"did you mean {near}? " if near else ""
            raise ConfigError(
                f"{self._where}.{unknown} is not known to `mixed-r1 plan`; {meant}Remove the key if it affects no "
                "tensor's shape; otherwise this architecture needs an entry in orchestration/models/shapes.py"
            )

    def _get(self, name: str, default: object = None) -> Any:
        self._read.add(name)
        value = self._values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ConfigError(
                f"{self._where}.{name} is missing; copy it from the model's published config.json, or set model.path "
                "to the model's folder"
            )
        return value

    def _checked(self, name: str, value: Any, is_right: bool, rule: str) -> Any:
        if not is_right:
            raise ConfigError(f"{self._where}.{name} is {value!r}; {rule}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """A Qwen2 language model: grouped-query attention with biases on queries, keys and values; a gated MLP."""

    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    is_tied: bool
    """Whether the output head is the embedding table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTower:
    """Qwen2.5-VL's vision tower: patches of any resolution, most blocks attend within windows; gated MLP, RMS norms."""

    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_channels: int
    patch_side: int
    temporal_patch: int
    merge_side: int
    """merge_side x merge_side patches become one token."""
    window_side: int
    """Side of an attention window in pixels."""
    full_blocks: tuple[int, ...]
    """Blocks that attend over the whole image."""

    @property
    def patches_per_token(self) -> int:
        """Patches of one image token."""
        return self.merge_side**2


@dataclass(frozen=True, slots=True, kw_only=True)
class TileTower:
    """InternViT: square tiles of one size, a class token before each, plain MLP, a learned scale on each branch."""

    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_channels: int
    patch_side: int
    tile_side: int
    merge_side: int
    """merge_side x merge_side patches become one token (pixel shuffle)."""
    has_qkv_bias: bool
    has_qk_norm: bool
    norm: Literal["layer_norm", "rms_norm"]
    has_mask_token: bool
    has_positions: bool
    has_last_norm: bool

    @property
    def patches_per_tile(self) -> int:
        """Patches of a tile, without the class token."""
        return (self.tile_side // self.patch_side) ** 2

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens of a tile."""
        return (self.tile_side // self.patch_side // self.merge_side) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A vision-language model."""

    family: str
    text: TextShape
    tower: PatchTower | TileTower


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


def read_shape(hf_config: Mapping[str, Any], where: str = "model.hf_config", *, is_strict: bool = True) -> ModelShape:
    """Read sizes from the keys of a published config.json.

    Args:
        hf_config: Of Qwen2.5-VL, with the language model's keys at the top (as published) or in `text_config` (as
            transformers 5 writes them); or of InternVL in transformers' own layout.
        where: Its dotted key, for messages.
        is_strict: Refuse unknown keys.

    Raises:
        ConfigError: A key is missing, unknown, or of an unsupported value.
    """
    keys = ConfigKeys(hf_config, where, is_strict=is_strict)
    family = keys.choice("model_type", ("qwen2_5_vl", "internvl"))
    return _read_qwen(keys) if family == "qwen2_5_vl" else _read_internvl(keys)


def read_saved_shape(
    saved: Mapping[str, Any], *, where: str = "config.json", has_own_head: bool | None = None
) -> ModelShape:
    """Read the config.json of a model folder.

    Unknown keys are accepted, and missing ones have transformers' defaults.

    Args:
        saved: Content of the file.
        where: Its path, for messages.
        has_own_head: Whether the weights have an output head of their own, which the file may not state, or state
            wrongly; None if there are no weights.

    Raises:
        ConfigError: See `read_shape`.
    """
    values = dict(saved)
    # transformers ties InternVL's head unless the top of the file says otherwise, and Qwen2.5-VL's only if some part
    # of it says so.
    text = values.get("text_config")
    inner = isinstance(text, Mapping) and bool(text.get("tie_word_embeddings", False))
    values.setdefault("tie_word_embeddings", values.get("model_type") == "internvl" or inner)
    if has_own_head:
        values["tie_word_embeddings"] = False
    return read_shape(values, where, is_strict=False)


def _read_text(keys: ConfigKeys, *, is_tied: bool) -> TextShape:
    if keys.has("use_sliding_window") and keys.flag("use_sliding_window"):
        raise ConfigError("model.hf_config: use_sliding_window is true, which the learner's attention does not compute")
    if keys.has("tie_word_embeddings"):
        keys.flag("tie_word_embeddings")
    width, num_heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    num_kv_heads = keys.count("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise ConfigError(
            f"model.hf_config: num_attention_heads={num_heads} does not divide by num_key_value_heads={num_kv_heads}; "
            "one of the two is not as published"
        )
    if not keys.has("head_dim") and width % num_heads:
        raise ConfigError(
            f"model.hf_config: hidden_size={width} does not divide by num_attention_heads={num_heads}; one of the two "
            "is not as published"
        )
    return TextShape(
        vocab_size=keys.count("vocab_size"),
        width=width,
        mlp_width=keys.count("intermediate_size"),
        num_layers=keys.count("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=keys.count("head_dim", width // num_heads),
        is_tied=is_tied,
    )


def _read_qwen(keys: ConfigKeys) -> ModelShape:
    is_tied = keys.flag("tie_word_embeddings")
    if keys.has("text_config"):
        inner = keys.part("text_config")
        text = _read_text(inner, is_tied=is_tied)
        inner.close()
    else:
        text = _read_text(keys, is_tied=is_tied)
    vision = keys.part("vision_config")
    tower = PatchTower(
        width=vision.count("hidden_size"),
        mlp_width=vision.count("intermediate_size"),
        num_layers=vision.count("depth"),
        num_heads=vision.count("num_heads"),
        num_channels=vision.count("in_channels", 3),  # transformers does not read the published in_chans
        patch_side=vision.count("patch_size", 14),
        temporal_patch=vision.count("temporal_patch_size", 2),
        merge_side=vision.count("spatial_merge_size", 2),
        window_side=vision.count("window_size", 112),
        full_blocks=vision.counts("fullatt_block_indexes", (7, 15, 23, 31)),
    )
    if (out := vision.count("out_hidden_size", text.width)) != text.width:
        raise ConfigError(
            f"model.hf_config.vision_config.out_hidden_size is {out}, but hidden_size of the language model is "
            f"{text.width}; they must be equal"
        )
    vision.close()
    keys.close()
    return ModelShape(family="qwen2_5_vl", text=text, tower=tower)


def _read_internvl(keys: ConfigKeys) -> ModelShape:
    inner = keys.part("text_config")
    inner.choice("model_type", ("qwen2",), "qwen2")
    text = _read_text(inner, is_tied=keys.flag("tie_word_embeddings"))
    inner.close()
    vision = keys.part("vision_config")
    tower = TileTower(
        width=vision.count("hidden_size"),
        mlp_width=vision.count("intermediate_size"),
        num_layers=vision.count("num_hidden_layers"),
        num_heads=vision.count("num_attention_heads"),
        num_channels=vision.count("num_channels", 3),
        patch_side=vision.count("patch_size", 14),
        tile_side=vision.count("image_size", 448),
        merge_side=round(1 / keys.fraction("downsample_ratio", 0.5)),
        has_qkv_bias=vision.flag("attention_bias", False),
        has_qk_norm=vision.flag("use_qk_norm", False),
        norm="rms_norm" if vision.choice("norm_type", ("layer_norm", "rms_norm"), "layer_norm") == "rms_norm"
        else "layer_norm",
        has_mask_token=vision.flag("use_mask_token", False),
        has_positions=vision.flag("use_absolute_position_embeddings", True),
        has_last_norm=not vision.flag("use_mean_pooling", True),
    )  # fmt: skip
    vision.close()
    keys.close()
    return ModelShape(family="internvl", text=text, tower=tower)
