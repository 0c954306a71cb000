"""From a sample to an engine prompt: chat template, decoded images, and their sizes as the model sees them."""

import inspect
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from PIL import Image

from conf.pictures import in_rgb
from rollout.conversation import Conversation, PromptSpec
from rollout.errors import RolloutError
from rollout.placeholders import placeholder_tokens
from rollout.records import IMAGE_PLACE, EncodedPicture, ImageBytes, Sample, Turn

if TYPE_CHECKING:
    import torch

PROBE_SIZE = (224, 224)
"""(width, height) of a blank picture that every processor takes."""
RESIZED_BY = {"height", "width", "factor", "min_pixels", "max_pixels"}
"""Arguments of the resize of Qwen2-VL's image processor and of those made after it."""
BLANKS = 4096
"""Sizes of pictures whose tokens, or whose size as the model sees them, are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePrompt:
    """A prompt as the engine takes it; image tokens are not expanded yet."""

    token_ids: list[int]
    """One placeholder token per image; the engine expands each to the image's number of tokens."""
    images: list[Image.Image]
    image_digests: tuple[str, ...]
    """Of the bytes of each image, in hex."""
    input_sizes: tuple[tuple[int, int], ...]
    """(width, height) of each image after the processor's resize: the frame in which Qwen2.5-VL answers boxes. The
    original size where the processor cuts images into tiles, as InternVL's does: such a frame knows no pixels."""
    template: str
    """Digest of the chat template that made it, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLength:
    """Length of a prompt once its image tokens are expanded.

    Example:
        >>> PromptLength(num_tokens=40, num_image_tokens=16).num_tokens
        40
    """

    num_tokens: int
    """All of the prompt, chat template included."""
    num_image_tokens: int
    """Of them, those that the processor puts in the images' places."""


class PromptBuilder:
    """Builds engine prompts with the checkpoint's own chat template and image processor."""

    def __init__(self, model_path: Path, *, spec: PromptSpec | None = None, max_images: int) -> None:
        """Load the processor of a checkpoint folder; `spec` is the run's, none adds nothing to the texts of rows."""
        from transformers import AutoProcessor, ProcessorMixin

        # Of a language model the folder has a tokenizer alone, which transformers returns in the processor's place.
        self._processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=False)
        self._takes_images = isinstance(self._processor, ProcessorMixin)
        self._tokenizer = self._processor.tokenizer if self._takes_images else self._processor
        if self._processor.chat_template is None:  # older folders keep it in tokenizer_config.json alone
            self._processor.chat_template = self._tokenizer.chat_template
        self._template_digest = blake2b(str(self._processor.chat_template).encode(), digest_size=8).hexdigest()
        self._placeholders = placeholder_tokens(model_path)
        self._spec = spec or PromptSpec()
        self._max_images = max_images
        self._input_size = lru_cache(maxsize=BLANKS)(self._resized)
        self._num_image_tokens = lru_cache(maxsize=BLANKS)(self._counted)

    def build(self, sample: Sample) -> EnginePrompt:
        """Make the prompt of a sample.

        Raises:
            RolloutError: a turn contains a placeholder, there are too many images, or one does not decode or is of a
                size that the processor refuses.
        """
        sizes = [image.size for image in sample.images]
        self._check(Conversation.of(sample), sizes, sample.sample_id)
        images = [_decode(image, sample.sample_id) for image in sample.images]
        return EnginePrompt(
            token_ids=self._token_ids(self._text(Conversation.of(sample), len(images), sample.sample_id)),
            images=images,
            image_digests=tuple(blake2b(image.data, digest_size=16).hexdigest() for image in sample.images),
            input_sizes=tuple(self._input_size(image.size) for image in sample.images),
            template=self._template_digest,
        )

    def expanded_ids(self, sample: Sample) -> list[int]:
        """Return the token ids [P] of a prompt, image tokens expanded by the checkpoint's own processor.

        The engine expands its prompts itself and must arrive at the same ids.

        Raises:
            RolloutError: as `build`.
        """
        prompt = self.build(sample)
        if not self._takes_images:
            return prompt.token_ids
        text = self._text(Conversation.of(sample), len(prompt.images), sample.sample_id)
        return self._expanded(text, prompt.images)

    def encoded_picture(self, pixels: "torch.Tensor", grid: Sequence[int]) -> EncodedPicture:
        """Describe one picture as a vision tower gets it.

        Args:
            pixels: [rows, ...] as an image processor made them; uint8 before normalisation. Channels come first in a
                row where their means differ.
            grid: their shape; see `EncodedPicture`.
        """
        import torch

        from rollout.fingerprint import fingerprint

        if pixels.dtype != torch.uint8:
            processor = self._processor.image_processor
            values = pixels.float().reshape(len(pixels), -1)
            if processor.do_normalize:
                mean, std = (torch.tensor(v).view(1, -1, 1) for v in (processor.image_mean, processor.image_std))
                values = (values.reshape(len(pixels), mean.numel(), -1) * std + mean).reshape(len(pixels), -1)
            if processor.do_rescale:
                values = values / processor.rescale_factor
            pixels = values.round().clamp(0, 255).to(torch.uint8)
        return EncodedPicture(grid=tuple(grid), pixels=fingerprint(pixels), num_values=len(pixels.unique()))

    def measure(
        self,
        question: str,
        image_sizes: Sequence[tuple[int, int]],
        sample_id: str,
        *,
        system: str = "",
        history: tuple[Turn, ...] = (),
        task: str = "",
    ) -> PromptLength:
        """Return the length of a prompt from the sizes of its images, without their pixels.

        Args:
            question: As in a sample, like the rest.
            image_sizes: (width, height) of each image in original pixels.
            sample_id: For messages.
            system: The row's own system text.
            history: Turns before the question.
            task: Of the row.

        Raises:
            RolloutError: As `build` does, or the processor cannot take an image of such a size.
        """
        conversation = Conversation(question, system, history, task)
        num_image_tokens = self._check(conversation, image_sizes, sample_id)
        ids = self._token_ids(self._text(conversation, len(image_sizes), sample_id))
        num_text_tokens = len(ids) - len(image_sizes)
        return PromptLength(num_tokens=num_text_tokens + num_image_tokens, num_image_tokens=num_image_tokens)

    def _check(self, conversation: Conversation, image_sizes: Sequence[tuple[int, int]], sample_id: str) -> int:
        """Refuse what cannot be a prompt; returns the tokens of its images."""
        for name, text in conversation.texts():
            found = [token for token in self._placeholders if token in text]
            if found:
                raise RolloutError(
                    f"sample {sample_id}: {name} holds the vision placeholder {found[0]!r}; remove it from "
                    "the text, images are placed by the chat template"
                )
        if IMAGE_PLACE in conversation.system:
            raise RolloutError(
                f"sample {sample_id}: the system turn holds a place for an image (U+FFFC); images stand in the "
                "question or in the history: repair the row"
            )
        if not conversation.has_places_for(len(image_sizes)):
            raise RolloutError(
                f"sample {sample_id}: question and history have {conversation.num_places} places for images (U+FFFC), "
                f"the sample {len(image_sizes)} images; repair the row"
            )
        if len(image_sizes) > self._max_images:
            raise RolloutError(
                f"sample {sample_id} has {len(image_sizes)} images; rollout.engine.max_images_per_prompt is "
                f"{self._max_images}"
            )
        if not self._takes_images:
            if image_sizes:
                raise RolloutError(
                    f"sample {sample_id} has {len(image_sizes)} images, and the model is a language model that takes "
                    "none; leave rows with images out, or choose a vision-language model"
                )
            return 0
        try:
            return sum(self._num_image_tokens(size) for size in image_sizes)
        except (ValueError, ArithmeticError) as error:
            raise RolloutError(f"sample {sample_id}: the processor refuses an image: {error}") from error

    def _token_ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _text(self, conversation: Conversation, num_images: int, sample_id: str) -> str:
        messages = conversation.messages(num_images=num_images, spec=self._spec, in_parts=self._takes_images)
        try:
            prompt: str = self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **self._spec.template_kwargs
            )
        except TemplateError as error:  # some templates know no system turn, or no two turns of one role
            raise RolloutError(f"sample {sample_id}: the model's chat template refuses its turns: {error}") from error
        return prompt

    def _expanded(self, text: str, images: Sequence[Image.Image]) -> list[int]:
        found = self._processor(images=list(images) or None, text=[text], add_special_tokens=False)
        return [int(token) for token in found["input_ids"][0]]

    def _counted(self, size: tuple[int, int]) -> int:
        """Count the tokens that the processor puts in the place of an image: by its formula, else by a blank image.

        The formulas of some processors leave out the marks around an image; `_marks` adds them.
        """
        if not hasattr(self._processor, "_get_num_multimodal_tokens"):
            return self._tokens_of_blank(size)
        return self._formula(size) + self._marks

    def _formula(self, size: tuple[int, int]) -> int:
        width, height = size
        return int(sum(self._processor._get_num_multimodal_tokens([(height, width)])["num_image_tokens"]))

    @cached_property
    def _marks(self) -> int:
        """Tokens of an image that the processor's formula leaves out."""
        return self._tokens_of_blank(PROBE_SIZE) - self._formula(PROBE_SIZE)

    def _tokens_of_blank(self, size: tuple[int, int]) -> int:
        text = self._text(Conversation("?"), 1, "of a blank image")
        return len(self._expanded(text, [Image.new("RGB", size)])) - len(self._token_ids(text)) + 1

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of an image as the model sees it; the original size where it is cut into tiles."""
        processor = self._processor.image_processor
        width, height = size
        if hasattr(processor, "merge_size"):  # patches of any resolution
            resize = getattr(sys.modules[type(processor).__module__], "smart_resize", None)
            if resize is not None and _takes(resize):
                rows, columns = resize(
                    height=height,
                    width=width,
                    factor=processor.patch_size * processor.merge_size,
                    min_pixels=processor.size["shortest_edge"],
                    max_pixels=processor.size["longest_edge"],
                )
                return columns, rows
            blank = processor(images=[Image.new("RGB", size)], return_tensors="pt")
            _, rows, columns = blank["image_grid_thw"][0].tolist()
            return columns * processor.patch_size, rows * processor.patch_size
        return size


def _takes(resize: Callable[..., Any]) -> bool:
    """Return whether a function takes the arguments RESIZED_BY, and needs no others."""
    parameters = inspect.signature(resize).parameters
    needed = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    return parameters.keys() >= RESIZED_BY and needed <= RESIZED_BY


def _decode(image: ImageBytes, sample_id: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(image.data)) as file:
            if file.mode.startswith(("I", "F")):
                raise RolloutError(
                    f"sample {sample_id}: an image has deeper channels than 8 bits (mode {file.mode}), of which Pillow "
                    "makes black and white; store it with 8 bits or drop the row"
                )
            decoded = in_rgb(file)
    except RolloutError:
        raise
    except Exception as error:  # each of Pillow's readers has errors of its own: OSError, SyntaxError, struct.error, ..
        raise RolloutError(f"sample {sample_id}: an image does not decode ({error}); drop or repair the row") from error
    if decoded.size != image.size:
        raise RolloutError(
            f"sample {sample_id}: the image is {decoded.size[0]} x {decoded.size[1]} but the row says "
            f"{image.width} x {image.height}; boxes would be read in the wrong frame: repair the row"
        )
    return decoded
