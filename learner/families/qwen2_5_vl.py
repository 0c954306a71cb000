"""Qwen2.5-VL."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from learner.families.base import ImageInputs, ModelFamily


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
