"""ModelFamily: what differs between families of vision-language models; everything else is the same for all.

Axes: P prompt tokens, A position axes, L tokens of a stream, D hidden size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from conf.own_code import OwnCodeError, load_own
from learner.errors import LearnerError

PARTS = ("vision_tower", "projector", "language_model")
"""Names under which a part of any family can be frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInputs:
    """One or more images as a vision tower takes them."""

    pixel_values: torch.Tensor
    """float32, rows of whatever the family's tower takes: patches or tiles."""
    grids: torch.Tensor
    """int64 [images, 3] shape of each image in those rows; the family says what the three numbers are."""


def join_images(inputs: Sequence[ImageInputs]) -> ImageInputs:
    """Concatenate images."""
    return ImageInputs(
        pixel_values=torch.cat([image.pixel_values for image in inputs]),
        grids=torch.cat([image.grids for image in inputs]),
    )


class ModelFamily(ABC):
    """One family, built from a model's configuration."""

    parts: Mapping[str, tuple[str, ...]]
    """Part of PARTS -> beginnings of the names of its parameters."""

    def __init__(self, config: Any) -> None:
        self.image_token_id: int = config.image_token_id
        """Placeholder of an image's features in a prompt."""

    @abstractmethod
    def encode(self, image_processor: Any, images: Sequence[Image.Image]) -> list[ImageInputs]:
        """Process RGB images as the engine's processor does; one entry an image."""

    @abstractmethod
    def dummy_image(self) -> ImageInputs:
        """Return the smallest black image that the tower takes."""

    @abstractmethod
    def num_tokens(self, grid: Sequence[int]) -> int:
        """Count the prompt tokens of an image."""

    @abstractmethod
    def prompt_positions(
        self, is_image: NDArray[np.bool_], grids: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], int]:
        """Return rotary positions [A, P] of a prompt, and the position of the token after it.

        Args:
            is_image: [P] True at image tokens.
            grids: of its images, in order.

        Raises:
            ValueError: an image's tokens are not contiguous.
        """

    @abstractmethod
    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """Shape positions [A, L] of a stream as the language model takes them."""

    @abstractmethod
    def image_features(self, model: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Run vision tower and projector; [image tokens, D], image after image."""

    @abstractmethod
    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        """Transformer blocks of the tower."""

    def language_blocks(self, model: Any) -> list[torch.nn.Module]:
        """Transformer blocks of the language model."""
        return list(model.model.language_model.layers)


class Qwen25VL(ModelFamily):
    """Qwen2.5-VL, 3B to 72B: patches of any resolution, M-RoPE positions, boxes in pixels of the resized image.

    Source: arXiv:2502.13923; M-RoPE, arXiv:2409.12191, section 2.1.

    A grid is (frames, patch rows, patch columns); merge_size x merge_size patches become one token.
    """

    parts: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "vision_tower": ("model.visual.patch_embed.", "model.visual.blocks."),
            "projector": ("model.visual.merger.",),
            "language_model": ("model.language_model.", "lm_head."),
        }
    )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision = config.vision_config
        self._merge_size: int = vision.spatial_merge_size
        self._patch_values: int = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2

    def encode(self, image_processor: Any, images: Sequence[Image.Image]) -> list[ImageInputs]:
        features = image_processor(images=list(images), return_tensors="pt")
        grids: torch.Tensor = features["image_grid_thw"]
        pixels = features["pixel_values"].float().split([math.prod(grid) for grid in grids.tolist()])
        return [ImageInputs(pixel_values=p, grids=g[None]) for p, g in zip(pixels, grids, strict=True)]

    def dummy_image(self) -> ImageInputs:
        side = self._merge_size
        return ImageInputs(
            pixel_values=torch.zeros(side * side, self._patch_values), grids=torch.tensor([[1, side, side]])
        )

    def num_tokens(self, grid: Sequence[int]) -> int:
        return math.prod(grid) // self._merge_size**2

    def prompt_positions(
        self, is_image: NDArray[np.bool_], grids: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], int]:
        """See ModelFamily.

        Text counts up on all three axes alike. The tokens of an image share one temporal position, the one at which it
        starts, and count rows and columns from there; the text after it continues behind the longer side.
        """
        parts: list[NDArray[np.int64]] = []
        row = position = 0
        for frames, patch_rows, patch_columns in grids:
            height, width = patch_rows // self._merge_size, patch_columns // self._merge_size
            start = row + int(np.argmax(is_image[row:]))
            end = start + frames * height * width
            if end > len(is_image) or not is_image[start:end].all():
                raise ValueError(f"an image of {height} x {width} tokens is not contiguous in the prompt")
            parts.append(_count_up(position, start - row))
            position += start - row
            parts.append(np.indices((frames, height, width)).reshape(3, -1) + position)
            position += max(height, width)
            row = end
        parts.append(_count_up(position, len(is_image) - row))
        return np.concatenate(parts, axis=1), position + len(is_image) - row

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """[3, 1, L]."""
        return positions[:, None]

    def image_features(self, model: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        return torch.cat(model.model.get_image_features(pixel_values, grids, return_dict=True).pooler_output)

    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        return list(model.model.visual.blocks)


def _count_up(first: int, length: int) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(first, first + length), (3, length))


class InternVL(ModelFamily):
    """InternVL of transformers (InternVL3-hf, 1B to 78B): square tiles, plain positions, boxes in 0..1000.

    Source: arXiv:2504.10479; tiles and pixel shuffle, arXiv:2404.16821, section 3.

    A grid is (tiles, token rows, token columns of a tile); the last tile of a cut image is its thumbnail.
    """

    parts: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "vision_tower": ("model.vision_tower.",),
            "projector": ("model.multi_modal_projector.",),
            "language_model": ("model.language_model.", "lm_head."),
        }
    )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision = config.vision_config
        self._pixels: tuple[int, int] = tuple(vision.image_size)
        self._tokens = tuple(
            int(side // patch * config.downsample_ratio)
            for side, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )

    def encode(self, image_processor: Any, images: Sequence[Image.Image]) -> list[ImageInputs]:
        # InternVLProcessor, which the engine runs, cuts into tiles whatever the image processor's own file says.
        features = image_processor(images=list(images), crop_to_patches=True, return_tensors="pt")
        num_tiles = [int(number) for number in features["num_patches"]]
        pixels = features["pixel_values"].float().split(num_tiles)
        return [ImageInputs(pixel_values=tiles, grids=torch.tensor([[len(tiles), *self._tokens]])) for tiles in pixels]

    def dummy_image(self) -> ImageInputs:
        return ImageInputs(pixel_values=torch.zeros(1, 3, *self._pixels), grids=torch.tensor([[1, *self._tokens]]))

    def num_tokens(self, grid: Sequence[int]) -> int:
        return math.prod(grid)

    def prompt_positions(
        self, is_image: NDArray[np.bool_], grids: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], int]:
        """See ModelFamily; image tokens count up like text."""
        row = 0
        for grid in grids:
            start = row + int(np.argmax(is_image[row:]))
            row = start + math.prod(grid)
            if row > len(is_image) or not is_image[start:row].all():
                raise ValueError(f"an image of {math.prod(grid)} tokens is not contiguous in the prompt")
        return np.arange(len(is_image))[None], len(is_image)

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """[1, L]."""
        return positions

    def image_features(self, model: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.model.get_image_features(pixel_values, return_dict=True).pooler_output
        return features.flatten(0, 1)

    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        return list(model.model.vision_tower.encoder.layer)


FAMILIES: dict[str, type[ModelFamily]] = {"internvl": InternVL, "qwen2_5_vl": Qwen25VL}


def load_family(text: str) -> type[ModelFamily]:
    """Load the class that `model.family` names.

    Raises:
        LearnerError: it cannot be loaded, is no ModelFamily, or lacks a method.
    """
    try:
        found = load_own("model.family", text)
    except OwnCodeError as error:
        raise LearnerError(str(error)) from error
    if not isinstance(found, type) or not issubclass(found, ModelFamily):
        raise LearnerError(f"model.family={text} is no class that derives from learner.families.ModelFamily; derive it")
    lacking = [*sorted(found.__abstractmethods__), *([] if hasattr(found, "parts") else ["parts"])]
    if lacking:
        raise LearnerError(
            f"model.family={text} lacks {', '.join(lacking)}; define them as ModelFamily in learner/families.py says"
        )
    if set(found.parts) != set(PARTS):
        raise LearnerError(
            f"model.family={text} has the parts {', '.join(found.parts)}; name {', '.join(PARTS)}, each with the "
            "beginnings of its parameters' names"
        )
    return found


def get_family(config: Any, own: type[ModelFamily] | None = None) -> ModelFamily:
    """Return the family of a configuration of transformers.

    Args:
        config: of the model.
        own: the user's class, which is taken whatever the architecture.

    Raises:
        LearnerError: no class here knows this architecture, or the user's does not read its configuration.
    """
    if own is not None:
        try:
            return own(config)
        except AttributeError as error:
            raise LearnerError(
                f"model.family: {own.__name__} does not fit a {config.model_type} model, whose configuration has no "
                f"{error.name}; read what it has in __init__"
            ) from error
    if config.model_type not in FAMILIES:
        raise LearnerError(
            f"the checkpoint's model_type is {config.model_type!r}; supported: {', '.join(sorted(FAMILIES))}. Another "
            "architecture needs a class, which model.family=FILE.py:NAME names; see learner/README.md"
        )
    return FAMILIES[config.model_type](config)
