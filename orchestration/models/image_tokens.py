"""Number of prompt tokens of an image, computed as the image processors do, without pixels and without torch.

Settings are those of the checkpoint's own processor, and transformers' defaults where it has none; the four kinds of
arithmetic are those of transformers 5.19:

    resized   sides become multiples of a token, within limits of the area (Qwen2-VL and later; arXiv:2502.13923, 2.1.1)
    tiles     square tiles of one size, and a thumbnail (InternVL; arXiv:2404.16821, 3.3)
    fitted    the largest picture of this aspect ratio within a number of tokens (Gemma 4)
    fixed     every picture has the tower's own size (SigLIP towers, such as Gemma 3's)
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from orchestration.models.files import read_object
from orchestration.models.shapes import ModelShape, shape_of
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from rollout.dataset import SampleTable

PROBE_SIZE = (224, 224)
"""(width, height) of an image that every processor accepts."""
MAX_ASPECT = 200
"""Qwen2-VL's processor refuses images whose longer side is more than this multiple of the shorter."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
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
        ConfigError: The processor refuses the image, its settings are of another family, or the model takes none.
    """
    if shape.image_kind == "resized":
        rows, columns = resized(shape, processor, width, height)
        return rows * columns // _unit(shape) ** 2
    if shape.image_kind == "tiles":
        return TILE_MARKS + num_tiles(shape, processor, width, height) * shape.tower.tokens_per_tile
    if shape.image_kind == "fitted":
        rows, columns = fitted(size_limits(processor, shape)[1], _unit(shape), width, height)
        return rows * columns
    if shape.image_kind == "none":
        raise ConfigError(f"a {shape.family} model takes no images; drop the row, or train a vision-language model")
    return shape.tower.tokens_per_tile


def images_fault(shape: ModelShape, path: Path) -> str:
    """Return why a model that takes no images cannot take the rows of a dataset; empty where it can."""
    if shape.image_kind != "none":
        return ""
    rows = SampleTable(path).arrow("sample_id", "images.list.element.width")
    with_images = pc.greater(pc.list_value_length(rows.column("images")), 0)
    found = rows.column("sample_id").filter(with_images)
    if not len(found):
        return ""
    return (
        f"{len(found):,} of the {rows.num_rows:,} rows of {path} have images, such as {found[0].as_py()}, and a "
        f"{shape.family} model takes none; build the rows for this model (mixed-r1 data build with this model.path "
        "leaves those with images out, and counts them), or train a vision-language model"
    )


def largest_image_tokens(shape: ModelShape, processor: Mapping[str, Any]) -> int:
    """Return the largest number of tokens of any image; 0 where the model takes none."""
    if shape.image_kind in ("fixed", "none"):
        return shape.tower.tokens_per_tile
    most = size_limits(processor, shape)[1]
    if shape.image_kind == "resized":
        return max(1, most // _unit(shape) ** 2)
    if shape.image_kind == "fitted":
        return most
    return TILE_MARKS + (most + 1 if most > 1 else 1) * shape.tower.tokens_per_tile


def vision_rows(shape: ModelShape, num_image_tokens: int) -> int:
    """Return the rows of a vision tower for a number of image tokens: patches, and class tokens of tiles."""
    tower = shape.tower
    if not tower.tile_side:
        return num_image_tokens * tower.patches_per_token if tower.width else 0
    return math.ceil(num_image_tokens / tower.tokens_per_tile) * (tower.patches_per_tile + tower.class_tokens)


def _unit(shape: ModelShape) -> int:
    """Return the side of an image token in pixels."""
    return shape.tower.patch_side * shape.tower.merge_side


def resized(shape: ModelShape, processor: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    """Return (height, width) to which Qwen2-VL's processor resizes an image.

    Raises:
        ConfigError: The image is too narrow, or the processor is of another model.
    """
    settings = {**dict(shape.image_defaults), **processor}
    for key, ours in (("patch_size", shape.tower.patch_side), ("merge_size", shape.tower.merge_side)):
        if settings.get(key, ours) != ours:
            raise ConfigError(
                f"model.hf_processor.{key} is {settings[key]}, but the vision tower takes {ours}; processor and model "
                "must be of one checkpoint"
            )
    lowest, highest = size_limits(processor, shape)
    if max(width, height) / min(width, height) > MAX_ASPECT:
        raise ConfigError(
            f"an image of {width} x {height} has a longer side of more than {MAX_ASPECT} times the shorter; drop it"
        )
    unit = _unit(shape)
    rows, columns = round(height / unit) * unit, round(width / unit) * unit
    if rows * columns > highest:
        shrink = math.sqrt((height * width) / highest)
        rows = max(unit, math.floor(height / shrink / unit) * unit)
        columns = max(unit, math.floor(width / shrink / unit) * unit)
    elif rows * columns < lowest:
        grow = math.sqrt(lowest / (height * width))
        rows, columns = math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
    return rows, columns


def fitted(most: int, unit: int, width: int, height: int) -> tuple[int, int]:
    """Return the (rows, columns) of the largest picture of an aspect ratio, in tokens of `unit` pixels, `most` in all.

    Raises:
        ConfigError: Not one token is left.
    """
    grow = math.sqrt(most * unit**2 / (height * width))
    rows, columns = math.floor(grow * height / unit), math.floor(grow * width / unit)
    if rows == 0 and columns == 0:
        raise ConfigError(f"an image of {width} x {height} has less than one token; drop it")
    if rows == 0:
        return 1, min(width // height, most)
    if columns == 0:
        return min(height // width, most), 1
    return rows, columns


def size_limits(processor: Mapping[str, Any], shape: ModelShape) -> tuple[int, int]:
    """Return the smallest and largest size of a processed image: area in pixels, number of tiles, or of tokens."""
    defaults = dict(shape.image_defaults)
    if shape.image_kind == "tiles":
        return tuple(processor.get(key, defaults[key]) for key in ("min_patches", "max_patches"))
    if shape.image_kind == "fitted":
        return 1, int(processor.get("max_soft_tokens") or defaults["max_soft_tokens"])
    if shape.image_kind != "resized":
        return shape.tower.tile_side**2, shape.tower.tile_side**2
    size = processor.get("size") or {}  # min_pixels and max_pixels take precedence
    limits = []
    for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        limits.append(int(processor.get(key) or size.get(edge) or defaults["size"][edge]))
    return limits[0], limits[1]


def with_pixel_limits(
    processor: Mapping[str, Any], shape: ModelShape, *, min_pixels: int | None, max_pixels: int | None
) -> dict[str, Any]:
    """Return the settings of an image processor with other limits of an image's area.

    Args:
        processor: Settings of the checkpoint.
        shape: The model. Tiles have one size, so their number is limited: at least one, without the thumbnail.
        min_pixels: Least area of a processed image; None keeps the checkpoint's.
        max_pixels: Largest area; None keeps the checkpoint's.

    Raises:
        ConfigError: No image is within the limits, or all images have one size.
    """
    if shape.image_kind not in ("resized", "tiles"):
        raise ConfigError(
            f"model.min_pixels={min_pixels} and model.max_pixels={max_pixels} cannot be applied: the image processor "
            f"of {shape.family}, {shape.image_processor or 'none'}, has no limits of an image's area; set both to null"
        )
    lowest, highest = size_limits(processor, shape)
    is_tiled = shape.image_kind == "tiles"
    unit, what = (shape.tower.tile_side**2, "tile") if is_tiled else (_unit(shape) ** 2, "image token")
    if is_tiled:
        lowest, highest = lowest * unit, highest * unit
    lowest = lowest if min_pixels is None else min_pixels
    highest = highest if max_pixels is None else max_pixels
    if highest < unit:
        raise ConfigError(f"model.max_pixels is {highest}, less than one {what}; use {unit} or more")
    if is_tiled:
        lowest, highest = math.ceil(lowest / unit) * unit, highest // unit * unit
    if lowest > highest:
        raise ConfigError(
            f"model.min_pixels={min_pixels} and model.max_pixels={max_pixels} allow no image: with the checkpoint's "
            f"value for null, in units of one {what} ({unit} pixels), at least {lowest} and at most {highest}; "
            "set both"
        )
    if is_tiled:
        return {**processor, "min_patches": lowest // unit, "max_patches": highest // unit}
    # Both spellings: transformers prefers the first, vLLM reads the result of transformers.
    size = {"shortest_edge": lowest, "longest_edge": highest}
    return {**processor, "min_pixels": lowest, "max_pixels": highest, "size": size}


def num_tiles(shape: ModelShape, processor: Mapping[str, Any], width: int, height: int) -> int:
    """Return the number of tiles of an image, including the thumbnail of a split one.

    `crop_to_patches` of the file is ignored: InternVL's processor, which the engine runs, always splits.

    Raises:
        ConfigError: The tile sizes of processor and vision tower differ.
    """
    side = shape.tower.tile_side
    size = processor.get("size") or {"height": side, "width": side}
    if (size.get("height"), size.get("width")) != (side, side):
        raise ConfigError(
            f"model.hf_processor.size is {dict(size)}, but the vision tower takes tiles of {side} x {side}; processor "
            "and model must be of one checkpoint"
        )
    fewest, most = size_limits(processor, shape)
    if most <= 1:
        return 1
    columns, rows = _canvas(width, height, side, int(fewest), int(most))
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
    shape = shape_of(config)
    return with_pixel_limits(found, shape, min_pixels=config.min_pixels, max_pixels=config.max_pixels)


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
    shape = shape_of(config)
    stated, held = (size_limits(settings, shape) for settings in (config.hf_processor, saved[1]))
    if stated != held:
        keys = [f"{end}_{'patches' if shape.image_kind == 'tiles' else 'pixels'}" for end in ("min", "max")]
        raise ConfigError(
            f"model.hf_processor states {keys[0]}={stated[0]} and {keys[1]}={stated[1]}, but {saved[0]} in model.path="
            f"{config.path} says {held[0]} and {held[1]}, which a run uses; limit images with model.max_pixels "
            "(and model.min_pixels), and set model.hf_processor=null"
        )
