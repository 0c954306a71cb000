"""Sample -> engine prompt: the chat template, the decoded images, and what the engine must never sample."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from rollout.errors import RolloutError
from rollout.records import ImageBytes, Sample

# Tokens that stand for vision features. A sampled or typed one would claim features that do not exist.
PLACEHOLDER_TOKENS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<video>",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePrompt:
    """A prompt as the engine takes it; image tokens are not expanded yet."""

    token_ids: list[int]
    """One placeholder token per image; the engine expands each to the image's number of tokens."""
    images: list[Image.Image]
    input_sizes: tuple[tuple[int, int], ...]
    """(width, height) of each image after the processor's resize: the frame in which Qwen2.5-VL answers boxes. The
    original size for InternVL, whose frame knows no pixels."""


class PromptBuilder:
    """Builds engine prompts with the checkpoint's own chat template and image processor."""

    def __init__(self, model_path: Path, *, system_prompt: str, max_images: int) -> None:
        """Load the processor of the checkpoint folder."""
        from transformers import AutoProcessor

        self._processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=False)
        self._tokenizer = self._processor.tokenizer
        self._system_prompt = system_prompt
        self._max_images = max_images

    def build(self, sample: Sample) -> EnginePrompt:
        """Make the prompt of a sample.

        Raises:
            RolloutError: a placeholder stands in the question, an image does not decode, or there are too many images.
        """
        self._check(sample)
        images = [_decode(image, sample.sample_id) for image in sample.images]
        return EnginePrompt(
            token_ids=self._tokenizer(self._text(sample), add_special_tokens=False).input_ids,
            images=images,
            input_sizes=tuple(self._input_size(image) for image in sample.images),
        )

    def banned_token_ids(self) -> list[int]:
        """Ids of the placeholder tokens that this checkpoint's vocabulary holds."""
        vocabulary = self._tokenizer.get_vocab()
        return sorted(vocabulary[token] for token in PLACEHOLDER_TOKENS if token in vocabulary)

    def _check(self, sample: Sample) -> None:
        found = [token for token in PLACEHOLDER_TOKENS if token in sample.question]
        if found:
            raise RolloutError(
                f"sample {sample.sample_id}: the question holds the vision placeholder {found[0]!r}; remove it from "
                "the text, images are placed by the chat template"
            )
        if len(sample.images) > self._max_images:
            raise RolloutError(
                f"sample {sample.sample_id} has {len(sample.images)} images; rollout.engine.max_images_per_prompt is "
                f"{self._max_images}"
            )

    def _text(self, sample: Sample) -> str:
        content: list[dict[str, str]] = [{"type": "image"} for _ in sample.images]
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": [*content, {"type": "text", "text": sample.question}]}
        ]
        if self._system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self._system_prompt}]})
        text: str = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def _input_size(self, image: ImageBytes) -> tuple[int, int]:
        processor = self._processor.image_processor
        if not hasattr(processor, "merge_size"):
            return image.size  # InternVL answers in a 0..1000 frame, so its tiling never enters the boxes
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        height, width = smart_resize(
            image.height,
            image.width,
            factor=processor.patch_size * processor.merge_size,
            min_pixels=processor.size["shortest_edge"],
            max_pixels=processor.size["longest_edge"],
        )
        return width, height


def _decode(image: ImageBytes, sample_id: str) -> Image.Image:
    try:
        decoded = Image.open(io.BytesIO(image.data)).convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise RolloutError(f"sample {sample_id}: an image does not decode ({error}); drop or repair the row") from error
    if decoded.size != image.size:
        raise RolloutError(
            f"sample {sample_id}: the image is {decoded.size[0]} x {decoded.size[1]} but the row says "
            f"{image.width} x {image.height}; boxes would be read in the wrong frame: repair the row"
        )
    return decoded
