"""InternVL in transformers' own layout."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from learner.families.base import ImageInputs, ModelFamily


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
