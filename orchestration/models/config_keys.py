"""Reading sizes out of a model's config.json: a key that is missing, unknown or of the wrong kind says so."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from orchestration.settings.errors import ConfigError

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
"""Keys of published files that change no tensor's shape."""


class ConfigKeys:
    """The keys of one part of a config.json, read one by one; `close` says which were not."""

    def __init__(self, values: object, where: str) -> None:
        """Read `values`, which stand at the dotted place `where`.

        Raises:
            ConfigError: they are no mapping.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is {values!r}; it must hold the keys of that part of the published config.json")
        self._values = values
        self._where = where
        self._read: set[str] = set()

    def part(self, name: str) -> "ConfigKeys":
        """Give the keys of a part."""
        return ConfigKeys(self._get(name), f"{self._where}.{name}")

    def has(self, name: str) -> bool:
        """Whether the key is there."""
        return name in self._values

    def count(self, name: str, default: int | None = None) -> int:
        """Give a whole number of at least 1; of a pair of equal numbers, one of them.

        Raises:
            ConfigError: it is missing without a default, or something else.
        """
        value = self._get(name, default)
        if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{self._where}.{name} is {value!r}; it must be a whole number of at least 1")
        return value

    def fraction(self, name: str, default: float) -> float:
        """Give a number above 0 and at most 1."""
        value = self._get(name, default)
        if not isinstance(value, int | float) or not 0.0 < value <= 1.0:
            raise ConfigError(f"{self._where}.{name} is {value!r}; it must lie above 0 and be at most 1")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Give true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self._where}.{name} is {value!r}; it must be true or false")
        return value

    def choice(self, name: str, allowed: Collection[str], default: str | None = None) -> str:
        """Give one of `allowed`."""
        value = self._get(name, default)
        if value not in allowed:
            raise ConfigError(f"{self._where}.{name} is {value!r}; planned for are {', '.join(sorted(allowed))}")
        return str(value)

    def counts(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Give whole numbers."""
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(number, int) for number in value):
            raise ConfigError(f"{self._where}.{name} is {value!r}; it must be a list of whole numbers")
        return tuple(value)

    def close(self) -> None:
        """Refuse keys that nobody has read and that are not known to leave sizes alone.

        Raises:
            ConfigError: naming the first, and the key that was perhaps meant.
        """
        known = self._read | WITHOUT_SIZE
        for name in self._values:
            if name not in known:
                close = difflib.get_close_matches(str(name), sorted(known), n=1)
                meant = f"did you mean {close[0]}? " if close else ""
                raise ConfigError(
                    f"{self._where}.{name} is not known to `mixed-r1 plan`; {meant}Take the key away if it changes no "
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
