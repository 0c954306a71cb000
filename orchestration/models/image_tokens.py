"""Number of prompt tokens of an image, computed as the image processors do, without pixels.

Source: Qwen2.5-VL, arXiv:2502.13923, section 2.1.1, and InternVL's tiles, arXiv:2404.16821, section 3.3; both as the
processors of transformers 5.19 compute them, which engine and learner run.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestration.models.files import read_object
from orchestration.models.shapes import ModelShape, PatchTower, TileTower, shape_of
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig

PROBE_SIZE = (224, 224)
"""(width, height) of an image that every processor accepts."""
MAX_ASPECT = 200
"""Qwen2.5-VL's processor refuses images whose longer side is more than this multiple of the shorter."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
DEFAULT_MIN_PIXELS = 56 * 56
DEFAULT_MAX_PIXELS = 28 * 28 * 1280
"""Limits of Qwen2.5-VL's processor if its file states none; published files state at most 12,845,056."""
DEFAULT_MAX_TILES = 12
TILE_MARKS = 2
"""InternVL's processor adds one token before an image's tokens and one after."""


def image_tokens(shape: ModelShape, processor: Mapping[str, Any], width: int, height: int) -> int:
    """Return the tokens that the processor inserts for an image, including InternVL's two marks.

    Args:
        shape: Sizes of the model.
        processor: Content of preprocessor_config.json; missing keys have the processor's defaults.
        width: Of the image in pixels.
        height: Likewise.

    Raises:
        ConfigError: The processor refuses the image, or its settings are of another family.
    """
    if isinstance(shape.tower, PatchTower):
        rows, columns = resized(shape.tower, processor, width, height)
        return (rows // shape.tower.patch_side) * (columns // shape.tower.patch_side) // shape.tower.patches_per_token
    return TILE_MARKS + num_tiles(shape.tower, processor, width, height) * shape.tower.tokens_per_tile


def largest_image_tokens(shape: ModelShape, processor: Mapping[str, Any]) -> int:
    """Return the largest number of tokens of any image."""
    most = int(size_limits(processor, shape.tower)[1])
    if isinstance(shape.tower, PatchTower):
        return max(1, most // (shape.tower.patch_side * shape.tower.merge_side) ** 2)
    return TILE_MARKS + (most + 1 if most > 1 else 1) * shape.tower.tokens_per_tile


def vision_rows(shape: ModelShape, num_image_tokens: int) -> int:
    """Return the rows of a vision tower for a number of image tokens: patches, and InternVL's class tokens."""
    if isinstance(shape.tower, PatchTower):
        return num_image_tokens * shape.tower.patches_per_token
    tiles = math.ceil(num_image_tokens / shape.tower.tokens_per_tile)
    return tiles * (shape.tower.patches_per_tile + 1)


def resized(tower: PatchTower, processor: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    """Return (height, width) to which Qwen2.5-VL's processor resizes an image.

    Raises:
        ConfigError: The image is too narrow, or the processor is of another model.
    """
    for key in ("patch_size", "merge_size"):
        ours = tower.patch_side if key == "patch_size" else tower.merge_side
        if processor.get(key, ours) != ours:
            raise ConfigError(
                f"model.hf_processor.{key} is {processor[key]}, but the vision tower takes {ours}; processor and model "
                "must be of one checkpoint"
            )
    lowest, highest = size_limits(processor, tower)
    if max(width, height) / min(width, height) > MAX_ASPECT:
        raise ConfigError(
            f"an image of {width} x {height} has a longer side of more than {MAX_ASPECT} times the shorter; drop it"
        )
    unit = tower.patch_side * tower.merge_side
    rows, columns = round(height / unit) * unit, round(width / unit) * unit
    if rows * columns > highest:
        shrink = math.sqrt((height * width) / highest)
        rows = max(unit, math.floor(height / shrink / unit) * unit)
        columns = max(unit, math.floor(width / shrink / unit) * unit)
    elif rows * columns < lowest:
        grow = math.sqrt(lowest / (height * width))
        rows, columns = math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
    return rows, columns


def size_limits(processor: Mapping[str, Any], tower: PatchTower | TileTower) -> tuple[int, int]:
    """Return the smallest and largest size of a processed image: its area in pixels, or its number of tiles."""
    if not isinstance(tower, PatchTower):
        return processor.get("min_patches", 1), processor.get("max_patches", DEFAULT_MAX_TILES)
    size = processor.get("size") or {}  # min_pixels and max_pixels take precedence
    lowest = processor.get("min_pixels") or size.get("shortest_edge") or DEFAULT_MIN_PIXELS
    highest = processor.get("max_pixels") or size.get("longest_edge") or DEFAULT_MAX_PIXELS
    return int(lowest), int(highest)


def with_pixel_limits(
    processor: Mapping[str, Any], tower: PatchTower | TileTower, *, min_pixels: int | None, max_pixels: int | None
) -> dict[str, Any]:
    """Return the settings of an image processor with other limits of an image's area.

    Args:
        processor: Settings of the checkpoint.
        tower: Vision tower of the model. Tiles have one size, so their number is limited: at least one, without the
            thumbnail.
        min_pixels: Least area of a processed image; None keeps the checkpoint's.
        max_pixels: Largest area; None keeps the checkpoint's.

    Raises:
        ConfigError: No image is within the limits.
    """
    lowest, highest = size_limits(processor, tower)
    if isinstance(tower, PatchTower):
        unit, what = (tower.patch_side * tower.merge_side) ** 2, "image token"
    else:
        unit, what = tower.tile_side**2, "tile"
        lowest, highest = lowest * unit, highest * unit
    lowest = lowest if min_pixels is None else min_pixels
    highest = highest if max_pixels is None else max_pixels
    if highest < unit:
        raise ConfigError(f"model.max_pixels is {highest}, less than one {what}; use {unit} or more")
    if not isinstance(tower, PatchTower):
        lowest, highest = math.ceil(lowest / unit) * unit, highest // unit * unit
    if lowest > highest:
        raise ConfigError(
            f"model.min_pixels={min_pixels} and model.max_pixels={max_pixels} allow no image: with the checkpoint's "
            f"value for null, in units of one {what} ({unit} pixels), at least {lowest} and at most {highest}; "
            "set both"
        )
    if isinstance(tower, PatchTower):
        # Both spellings: transformers prefers the first, vLLM reads the result of transformers.
        size = {"shortest_edge": lowest, "longest_edge": highest}
        return {**processor, "min_pixels": lowest, "max_pixels": highest, "size": size}
    return {**processor, "min_patches": lowest // unit, "max_patches": highest // unit}


def num_tiles(tower: TileTower, processor: Mapping[str, Any], width: int, height: int) -> int:
    """Return the number of tiles of an image, including the thumbnail of a split one.

    `crop_to_patches` of the file is ignored: InternVL's processor, which the engine runs, always splits.

    Raises:
        ConfigError: The tile sizes of processor and vision tower differ.
    """
    size = processor.get("size") or {"height": tower.tile_side, "width": tower.tile_side}
    if (size.get("height"), size.get("width")) != (tower.tile_side, tower.tile_side):
        raise ConfigError(
            f"model.hf_processor.size is {dict(size)}, but the vision tower takes tiles of {tower.tile_side} x "
            f"{tower.tile_side}; processor and model must be of one checkpoint"
        )
    fewest, most = size_limits(processor, tower)
    if most <= 1:
        return 1
    columns, rows = _canvas(width, height, tower.tile_side, int(fewest), int(most))
    return columns * rows + 1 if columns * rows > 1 else 1


@lru_cache(maxsize=64)
def _canvases(fewest: int, most: int) -> list[tuple[int, int]]:
    sides = range(1, most + 1)
    found = [(columns, rows) for columns in sides for rows in sides if fewest <= columns * rows <= most]
    return sorted(found, key=lambda canvas: canvas[0] * canvas[1])


def _canvas(width: int, height: int, side: int, fewest: int, most: int) -> tuple[int, int]:
    """Choose (columns, rows) nearest to the aspect ratio; of equals the larger one if the image fills half of it."""
    best, least = (1, 1), math.inf
    for columns, rows in _canvases(fewest, most):
        difference = abs(width / height - columns / rows)
        is_filled = width * height > 0.5 * side * side * columns * rows
        if difference < least or (difference == least and is_filled):
            best, least = (columns, rows), difference
    return best


def processor_of(config: ModelConfig) -> Mapping[str, Any]:
    """Return the settings that `image_tokens` reads: of model.path, else model.hf_processor, else the demo's.

    The limits model.min_pixels and model.max_pixels are applied. Without any settings the mapping is empty, which means
    transformers' defaults.

    Raises:
        ConfigError: No image is within the limits.
    """
    saved = saved_processor(Path(config.path)) if config.path is not None else None
    found: Mapping[str, Any] = {}
    if saved is not None:
        found = saved[1]
    elif config.hf_processor is not None:
        found = config.hf_processor
    elif config.tiny is not None and config.path is None:
        found = config.tiny.image_processor
    if config.min_pixels is None and config.max_pixels is None:
        return found
    tower = shape_of(config).tower
    return with_pixel_limits(found, tower, min_pixels=config.min_pixels, max_pixels=config.max_pixels)


def saved_processor(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return the name and content of a model folder's file of image processor settings; None without one.

    The newer processor_config.json has all processors of a model by name, and takes precedence over the older file, as
    in transformers.

    Raises:
        ConfigError: A file is not a JSON object, or its image_processor is not.
    """
    newer, older = (folder / name for name in PROCESSOR_FILES)
    if newer.is_file() and (inner := read_object(newer).get("image_processor")) is not None:
        if not isinstance(inner, dict):
            raise ConfigError(f"model.path: {newer}: image_processor is {inner!r}, no JSON object; download it again")
        return newer.name, inner
    return (older.name, read_object(older)) if older.is_file() else None


def check_stated_processor(config: ModelConfig) -> None:
    """Compare the folder's own limits of an image's size with those that model.hf_processor states.

    Raises:
        ConfigError: They differ; a run would use those of the folder.
    """
    saved = None if config.path is None else saved_processor(Path(config.path))
    if saved is None or config.hf_processor is None:
        return
    tower = shape_of(config).tower
    stated, held = (size_limits(settings, tower) for settings in (config.hf_processor, saved[1]))
    if stated != held:
        keys = [f"{end}_{'pixels' if isinstance(tower, PatchTower) else 'patches'}" for end in ("min", "max")]
        raise ConfigError(
            f"model.hf_processor states {keys[0]}={stated[0]} and {keys[1]}={stated[1]}, but {saved[0]} in model.path="
            f"{config.path} says {held[0]} and {held[1]}, which a run uses; limit images with model.max_pixels "
            "(and model.min_pixels), and set model.hf_processor=null"
        )
