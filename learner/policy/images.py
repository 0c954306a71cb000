"""Encoded images to inputs of the vision tower, by the checkpoint's own image processor.

The same processor runs inside the engine; both sides must see equal pixels, or their logprobs drift apart.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from conf.pictures import in_rgb
from learner.errors import LearnerError
from learner.families.base import ImageInputs, ModelFamily, join_images
from learner.records import ScoredGroup


class NoImages:
    """The encoder of a language model."""

    def encode(self, groups: Sequence[ScoredGroup]) -> list[None]:
        """Return None for each group.

        Raises:
            LearnerError: a group has images; names it.
        """
        for group in groups:
            if group.images:
                raise LearnerError(
                    f"group {group.group_id} has {len(group.images)} images, and the model is a language model that "
                    "takes none; train it on rows without images, or choose a vision-language model"
                )
        return [None] * len(groups)

    def encode_images(self, images: Sequence[bytes]) -> list[ImageInputs]:
        """Return nothing for no images.

        Raises:
            LearnerError: there are some.
        """
        if images:
            raise LearnerError("the model is a language model that takes no images; choose a vision-language model")
        return []


class ImageEncoder:
    """Decodes and processes images; a group's images once, however many completions it has."""

    def __init__(self, image_processor: Any, family: ModelFamily) -> None:
        self._processor = image_processor
        self._family = family

    @classmethod
    def from_pretrained(cls, model_path: str | Path, family: ModelFamily) -> Self:
        """Load the processor in the model's folder.

        Raises:
            LearnerError: there is none.
        """
        from transformers import AutoImageProcessor

        try:
            return cls(AutoImageProcessor.from_pretrained(str(model_path)), family)
        except (OSError, ValueError) as error:
            raise LearnerError(
                f"model folder {model_path} holds no image processor (preprocessor_config.json or "
                f"processor_config.json); copy the processor files of the original checkpoint into it ({error})"
            ) from error

    def encode(self, groups: Sequence[ScoredGroup]) -> list[ImageInputs | None]:
        """Process the images of several groups in one call; None for a group without images.

        Raises:
            LearnerError: an image does not decode, or a prompt has another number of image tokens than its images
                make; names the group.
        """
        decoded = [decode_images(group.images, f"group {group.group_id}") for group in groups]
        flat = [image for images in decoded for image in images]
        encoded = self._family.encode(self._processor, flat) if flat else []
        inputs: list[ImageInputs | None] = []
        first = 0
        for group, images in zip(groups, decoded, strict=True):
            own = encoded[first : first + len(images)]
            first += len(images)
            self._check_tokens(group, own)
            inputs.append(join_images(own) if own else None)
        return inputs

    def encode_images(self, images: Sequence[bytes]) -> list[ImageInputs]:
        """Process images that belong to no group.

        Raises:
            LearnerError: one does not decode.
        """
        return self._family.encode(self._processor, decode_images(images, "images without a group")) if images else []

    def _check_tokens(self, group: ScoredGroup, images: Sequence[ImageInputs]) -> None:
        grids: list[list[int]] = torch.cat([image.grids for image in images]).tolist() if images else []
        expected = sum(self._family.num_tokens(grid) for grid in grids)
        found = int((group.prompt_token_ids == self._family.image_token_id).sum())
        if expected != found:
            raise LearnerError(
                f"group {group.group_id}: its prompt holds {found} image tokens, its {len(grids)} images make "
                f"{expected}; send the prompt as the engine expanded it, and use one image processor on both sides"
            )


def decode_images(images: Sequence[bytes], owner: str) -> list[Image.Image]:
    """Decode images to RGB.

    Args:
        images: encoded.
        owner: of them, for messages.

    Raises:
        LearnerError: one does not decode.
    """
    decoded = []
    for index, image in enumerate(images):
        try:
            decoded.append(in_rgb(Image.open(io.BytesIO(image))))
        except (OSError, Image.DecompressionBombError) as error:
            raise LearnerError(
                f"{owner}: image {index} of {len(images)} does not decode ({error}); drop the "
                "row or store the image again"
            ) from error
    return decoded
