"""ModelFamily: what differs between families of vision-language models; everything else is the same for all.

Axes: P prompt tokens, A position axes, D hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

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


class ModelFamily(Protocol):
    """One family, built from a model's configuration."""

    parts: Mapping[str, tuple[str, ...]]
    """Part of PARTS -> beginnings of the names of its parameters."""
    image_token_id: int
    """Placeholder of an image's features in a prompt."""

    def encode(self, image_processor: Any, images: Sequence[Image.Image]) -> list[ImageInputs]:
        """Process RGB images as the engine's processor does; one entry an image."""
        ...

    def dummy_image(self) -> ImageInputs:
        """Return the smallest black image that the tower takes."""
        ...

    def num_tokens(self, grid: Sequence[int]) -> int:
        """Count the prompt tokens of an image."""
        ...

    def prompt_positions(
        self, is_image: NDArray[np.bool_], grids: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], int]:
        """Return rotary positions [A, P] of a prompt, and the position of the token behind it.

        Args:
            is_image: [P] True at image tokens.
            grids: of its images, in order.

        Raises:
            ValueError: an image's tokens are not contiguous.
        """
        ...

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """Shape positions [A, L] of a stream as the language model takes them."""
        ...

    def image_features(self, model: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Run vision tower and projector; [image tokens, D], image after image."""
        ...

    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        """Transformer blocks of the tower."""
        ...

    def language_blocks(self, model: Any) -> list[torch.nn.Module]:
        """Transformer blocks of the language model."""
        ...
