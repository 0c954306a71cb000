"""What a run's image processor is told, without loading it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.models.image_tokens import pixel_limits, with_pixel_limits
from orchestration.models.shapes import PatchTower, shape_of
from orchestration.models.tiny import tiny_processor
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig


def processor_of(config: ModelConfig) -> Mapping[str, Any]:
    """Give what `image_tokens` reads: of the folder at model.path, else model.hf_processor, else the demo's own.

    The limits model.min_pixels and model.max_pixels are applied. Where nobody says anything, an empty mapping:
    transformers' own defaults, which published files override.

    Raises:
        ConfigError: no picture lies within the limits.
    """
    found = _of_checkpoint(config)
    if config.min_pixels is None and config.max_pixels is None:
        return found
    tower = shape_of(config).tower
    return with_pixel_limits(found, tower, min_pixels=config.min_pixels, max_pixels=config.max_pixels)


def _of_checkpoint(config: ModelConfig) -> Mapping[str, Any]:
    if config.path is not None and (saved := saved_processor(Path(config.path))) is not None:
        return saved[1]
    if config.hf_processor is not None:
        return config.hf_processor
    return {} if config.family is None or config.path is not None else tiny_processor(config.family)


def saved_processor(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return the file of a model folder that says how pictures are processed, and what it says; None without one.

    The newer processor_config.json holds all processors of a model, one a key, and goes before the older file, as in
    transformers.
    """
    newer, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    if newer.is_file() and isinstance(inner := json.loads(newer.read_text()).get("image_processor"), dict):
        return newer.name, inner
    return (older.name, json.loads(older.read_text())) if older.is_file() else None


def check_stated_processor(config: ModelConfig) -> None:
    """Compare the folder's own limits of a picture's size with those that model.hf_processor states.

    Raises:
        ConfigError: they differ; a run would follow the folder alone.
    """
    saved = None if config.path is None else saved_processor(Path(config.path))
    if saved is None or config.hf_processor is None:
        return
    is_patched = isinstance(shape_of(config).tower, PatchTower)
    stated, held = (
        pixel_limits(settings) if is_patched else (settings.get("min_patches", 1), settings.get("max_patches", 12))
        for settings in (config.hf_processor, saved[1])
    )
    if stated != held:
        keys = ("min_pixels", "max_pixels") if is_patched else ("min_patches", "max_patches")
        raise ConfigError(
            f"model.hf_processor states {keys[0]}={stated[0]} and {keys[1]}={stated[1]}, but {saved[0]} in model.path="
            f"{config.path} says {held[0]} and {held[1]}, which a run follows; limit pictures with model.max_pixels "
            "(and model.min_pixels), and set model.hf_processor=null"
        )
