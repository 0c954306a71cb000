"""Encoded images -> pixel_values and image_grid_thw, by the checkpoint's own image processor.

The same processor runs inside the engine; both sides must see equal pixels, or their logprobs drift apart.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from learner.errors import LearnerError
from learner.records import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInputs:
    """The images of one group as the vision tower takes them."""

    pixel_values: torch.Tensor
    """float32 [patches of all images, values of a patch]"""
    image_grid_thw: torch.Tensor
    """int64 [images, 3]: frames, patch rows, patch columns."""


class ImageEncoder:
    """Decodes and processes images; a group's images once, however many completions it has."""

    def __init__(self, image_processor: Any, *, image_token_id: int) -> None:
        """Use an image processor of transformers (Qwen2-VL's kind: it gives image_grid_thw)."""
        self._processor = image_processor
        self._image_token_id = image_token_id
        self.merge_size: int = image_processor.merge_size

    @classmethod
    def from_pretrained(cls, model_path: str | Path, *, image_token_id: int) -> Self:
        """Load the processor that lies in the model's folder."""
        from transformers import AutoImageProcessor

        return cls(AutoImageProcessor.from_pretrained(str(model_path)), image_token_id=image_token_id)

    def encode(self, groups: Sequence[ScoredGroup]) -> list[ImageInputs | None]:
        """Process the images of several groups in one call; None for a group without images.

        Raises:
            LearnerError: an image does not decode, or the image tokens of a prompt are not as many as its images'
                grids imply; names the group.
        """
        decoded = [_decode(group) for group in groups]
        flat = [image for images in decoded for image in images]
        if not flat:
            for group in groups:
                self._check_tokens(group, [])
            return [None] * len(groups)
        features = self._processor(images=flat, return_tensors="pt")
        grids: list[list[int]] = features["image_grid_thw"].tolist()
        pixels = torch.split(features["pixel_values"].float(), [math.prod(grid) for grid in grids])
        inputs: list[ImageInputs | None] = []
        first = 0
        for group, images in zip(groups, decoded, strict=True):
            own = slice(first, first + len(images))
            first += len(images)
            self._check_tokens(group, grids[own])
            inputs.append(
                ImageInputs(pixel_values=torch.cat(pixels[own]), image_grid_thw=torch.tensor(grids[own]))
                if images
                else None
            )
        return inputs

    def dummy(self) -> ImageInputs:
        """Give one smallest black image, for micro-batches without images: see learner/packing.py."""
        patch_size: int = self._processor.patch_size
        side = patch_size * self.merge_size
        num_values = 3 * self._processor.temporal_patch_size * patch_size**2
        grid = torch.tensor([[1, side // patch_size, side // patch_size]])
        return ImageInputs(pixel_values=torch.zeros(self.merge_size**2, num_values), image_grid_thw=grid)

    def _check_tokens(self, group: ScoredGroup, grids: Sequence[Sequence[int]]) -> None:
        expected = sum(math.prod(grid) // self.merge_size**2 for grid in grids)
        found = int((group.prompt_token_ids == self._image_token_id).sum())
        if expected != found:
            raise LearnerError(
                f"group {group.group_id}: its prompt holds {found} image tokens, its {len(grids)} images make "
                f"{expected}; send the prompt as the engine expanded it, and use one image processor on both sides"
            )


def _decode(group: ScoredGroup) -> list[Image.Image]:
    images = []
    for index, image in enumerate(group.images):
        try:
            images.append(Image.open(io.BytesIO(image.data)).convert("RGB"))
        except (OSError, Image.DecompressionBombError) as error:
            raise LearnerError(
                f"group {group.group_id}: image {index} of {len(group.images)} does not decode ({error}); drop the "
                "row or store the image again"
            ) from error
    return images
