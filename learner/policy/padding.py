"""Pieces -> MicroBatch of right-padded rows, one a sequence, with its prompt and images, for the generic path.

    row 0   | prompt 0 | completion 0.0 | padding |
    row 1   | prompt 0 | completion 0.1     |     |
    last    | the prompt of a small image |       |      where no other row has an image: the tower runs on every rank

Axes: S rows, T tokens of the longest, C completion tokens (predicted).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from learner.attention.kernel import AttentionKernel
from learner.batching import Piece
from learner.errors import LearnerError
from learner.families.base import BaseFamily, ImageInputs, ModelFamily, PaddedInputs
from learner.families.generic import Generic
from learner.policy.images import ImageEncoder, NoImages, decode_images
from learner.policy.packing import BatchBuilder, MicroBatchBuilder
from learner.records import ScoredGroup

Tensors = Mapping[str, torch.Tensor]
"""What a processor makes of a group's images, by the names of the model's arguments; the first dimension counts images,
tiles, patches or prompts."""

TOKEN_OUTPUTS = ("input_ids", "attention_mask")
TYPE_OUTPUTS = ("token_type_ids", "mm_token_type_ids")
PADDED_WITH_ZEROS = ("pixel_values", "pixel_attention_mask", "patch_attention_mask")
"""Outputs that processors pad with zeros where images of one call differ in size; of others the sizes must be equal."""
PROBE_SIDE = 64
"""Of the small image, in pixels."""


class GroupEncoder:
    """Runs the folder's whole processor, as the engine does, on the images of one group at a time."""

    def __init__(self, processor: Any, family: Generic) -> None:
        """Process a small image, which shows what the processor returns.

        Raises:
            LearnerError: the processor makes something that cannot be repeated for every completion.
        """
        self._processor = processor
        self._family = family
        self.type_names: tuple[str, ...] = ()
        """Arguments of the model that tell image tokens, 1, from others, 0."""
        black = Image.new("RGB", (PROBE_SIDE, PROBE_SIDE))
        ids, self.probe_tensors, types = self._process([black])
        self.probe_ids = np.array(ids, dtype=np.int64)
        """Prompt of the small image."""
        for name, values in types.items():
            if not np.array_equal(values, self.probe_ids == family.image_token_id):
                raise LearnerError(
                    f"{type(processor).__name__} returns {name} that are not 1 at image tokens and 0 elsewhere, so the "
                    "generic path cannot continue them over a completion; write a family for this model"
                )
        self.type_names = tuple(types)

    @classmethod
    def from_pretrained(cls, model_path: str | Path, family: Generic) -> Self:
        """Load the processor in the model's folder.

        Raises:
            LearnerError: there is none, or it cannot be used.
        """
        from transformers import AutoProcessor

        try:
            return cls(AutoProcessor.from_pretrained(str(model_path), trust_remote_code=False), family)
        except (OSError, ValueError, ImportError, AttributeError) as error:
            raise LearnerError(
                f"model folder {model_path} holds no processor that loads; copy the processor and tokenizer files of "
                f"the original checkpoint into it ({error})"
            ) from error

    def encode(self, groups: Sequence[ScoredGroup]) -> list[Tensors | None]:
        """Process the images of several groups; None for a group without images.

        Raises:
            LearnerError: an image does not decode, or a prompt has another number of image tokens than its images
                make; names the group.
        """
        encoded: list[Tensors | None] = []
        for group in groups:
            images = decode_images(group.images, f"group {group.group_id}")
            expected, tensors = 0, None
            if images:
                ids, tensors, _ = self._process(images)
                expected = ids.count(self._family.image_token_id or -1)
            found = int((group.prompt_token_ids == self._family.image_token_id).sum())
            if expected != found:
                raise LearnerError(
                    f"group {group.group_id}: its prompt holds {found} image tokens, its {len(images)} images make "
                    f"{expected}; send the prompt as the engine expanded it, and use one processor on both sides"
                )
            if any((s.completion_token_ids == self._family.image_token_id).any() for s in group.sequences):
                raise LearnerError(
                    f"group {group.group_id}: a completion holds the image token {self._family.image_token_id}, which "
                    "stands for features that do not exist; have the engine never sample it"
                )
            encoded.append(tensors)
        return encoded

    def encode_images(self, images: Sequence[bytes]) -> list[ImageInputs]:
        """Process images that belong to no group, each in a prompt of its own.

        Raises:
            LearnerError: one does not decode.
        """
        decoded = decode_images(images, "images without a group")
        pixels = [self._process([image])[1]["pixel_values"] for image in decoded]
        return [ImageInputs(pixel_values=rows, grids=torch.tensor([[len(rows), 0, 0]])) for rows in pixels]

    def _process(self, images: list[Image.Image]) -> tuple[list[int], Tensors, dict[str, NDArray[np.int64]]]:
        """Return token ids of a prompt with these images, the images' tensors, and the token types."""
        messages = [{"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": "."}]}]
        processor = self._processor
        template = processor.chat_template or processor.tokenizer.chat_template
        text = processor.apply_chat_template(messages, chat_template=template, tokenize=False)
        found = dict(processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt"))
        tensors = {}
        for name, value in found.items():
            if name in (*TOKEN_OUTPUTS, *TYPE_OUTPUTS) or name not in self._family.accepted:
                continue
            if not isinstance(value, torch.Tensor) or name == "cross_attention_mask":
                raise LearnerError(
                    f"{type(processor).__name__} returns {name}, which cannot be repeated for every completion; write "
                    "a family for this model"
                )
            tensors[name] = value.float() if value.is_floating_point() else value
        accepted = [name for name in TYPE_OUTPUTS if name in found and name in self._family.accepted]
        return found["input_ids"][0].tolist(), tensors, {name: found[name][0].numpy() for name in accepted}


Encoder = ImageEncoder | GroupEncoder | NoImages


def load_encoder(model_path: str | Path, family: BaseFamily) -> Encoder:
    """Return what processes the images of a family.

    Raises:
        LearnerError: the model's folder has no processor that can be used.
    """
    if family.is_text_only:
        return NoImages()
    if isinstance(family, Generic):
        return GroupEncoder.from_pretrained(model_path, family)
    assert isinstance(family, ModelFamily)
    return ImageEncoder.from_pretrained(model_path, family)


class PaddedBuilder(BatchBuilder):
    """Lays out padded rows."""

    is_padded = True

    def __init__(self, family: Generic, encoder: Encoder, **settings: Any) -> None:
        """Lay out for a model with the encoder of its images; `settings` as in the base."""
        super().__init__(**settings)
        self._family = family
        self._encoder = encoder if isinstance(encoder, GroupEncoder) else None

    def _lay_out(
        self, pieces: Sequence[Piece], images: Sequence[Any], lengths: Sequence[int]
    ) -> tuple[PaddedInputs, torch.Tensor]:
        rows: list[NDArray[np.int64]] = []
        tensors: list[Tensors] = []
        for piece, image in zip(pieces, images, strict=True):
            prompt = piece.group.prompt_token_ids.astype(np.int64)
            for sequence in piece.sequences:
                completion = piece.group.sequences[sequence.index].completion_token_ids[:-1].astype(np.int64)
                rows.append(np.concatenate([prompt, completion]))
                tensors += [] if image is None else [image]
        if self._encoder is not None and not tensors:
            rows.append(self._encoder.probe_ids)
            tensors.append(self._encoder.probe_tensors)
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        arguments = {"attention_mask": self._tensor(mask)}
        if self._encoder is not None:
            is_image = (ids == self._family.image_token_id) & (mask == 1)
            arguments |= {name: self._tensor(is_image.astype(np.int64)) for name in self._encoder.type_names}
            arguments |= {name: tensor.to(self._device) for name, tensor in join_tensors(tensors).items()}
        # Row s predicts its first completion token at the prompt's last one.
        predicting = [
            place * longest + len(rows[place]) - length + np.arange(length) for place, length in enumerate(lengths)
        ]
        return (
            PaddedInputs(input_ids=self._tensor(ids), arguments=arguments),
            self._tensor(np.concatenate(predicting)),
        )


def encoder_of(processor: Any, family: BaseFamily) -> Encoder:
    """Return what processes the images of a family with a processor of transformers that is loaded already."""
    if family.is_text_only:
        return NoImages()
    if isinstance(family, Generic):
        return GroupEncoder(processor, family)
    assert isinstance(family, ModelFamily)
    return ImageEncoder(processor.image_processor, family)


def make_builder(family: BaseFamily, encoder: Encoder, kernel: AttentionKernel, **settings: Any) -> BatchBuilder:
    """Return what lays out the micro-batches of a family.

    Args:
        family: of the model.
        encoder: of its images.
        kernel: attention of its streams.
        settings: device and dtype, and temperatures as `BatchBuilder` takes them.
    """
    if isinstance(family, Generic):
        del settings["dtype"]  # the model's own masks need none
        return PaddedBuilder(family, encoder, **settings)
    assert isinstance(family, ModelFamily)
    return MicroBatchBuilder(family, kernel, **settings)


def join_tensors(tensors: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """Concatenate images' tensors by name along the first dimension, with zeros where pixels are of several sizes.

    Raises:
        LearnerError: sizes differ of something else than pixels and their mask.
    """
    joined = {}
    for name in tensors[0]:
        own = [each[name] for each in tensors]
        sizes = [max(axis) for axis in zip(*(tensor.shape[1:] for tensor in own), strict=True)]
        if any(list(tensor.shape[1:]) != sizes for tensor in own) and name not in PADDED_WITH_ZEROS:
            raise LearnerError(
                f"the processor makes {name} of several shapes for images of several sizes; resize images to one size, "
                "or write a family for this model"
            )
        joined[name] = torch.cat([_pad(tensor, sizes) for tensor in own])
    return joined


def _pad(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    if list(tensor.shape[1:]) == list(sizes):
        return tensor
    padded = tensor.new_zeros(len(tensor), *sizes)
    padded[(slice(None), *(slice(size) for size in tensor.shape[1:]))] = tensor
    return padded
