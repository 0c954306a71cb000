"""The demo's tiny models: a Hugging Face folder of about a million parameters, made from scratch for either family.

The tokenizer is a byte-level BPE learned from the demo's texts, the same for every family.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestration.demo.drawn.questions import END_OF_TURN, tags_of
from orchestration.models.tiny import (
    DOWNSAMPLE_RATIO,
    MAX_PIXELS,
    MERGE_SIZE,
    MIN_PIXELS,
    PATCH_SIZE,
    TEMPORAL_PATCH,
    VOCAB_SIZE,
    WIDTH,
    text_shape,
    vision_shape,
)
from orchestration.settings.demo import CELL, SIDE, FamilyName
from rewards.core.config import DEFAULT_FORMAT, FormatConfig

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import nn
    from transformers import (
        InternVLConfig,
        InternVLProcessor,
        PreTrainedConfig,
        PreTrainedTokenizerFast,
        ProcessorMixin,
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
    )

PAD = "<|endoftext|>"
CHAT_TOKENS = (PAD, "<|im_start|>", END_OF_TURN)
MAX_TOKENS = 512
"""Longest sequence of the tiny models."""
SPLIT_PATTERN = r", |\p{N}| ?\p{L}+|[^\s\p{L}\p{N}]|\s+"
"""Each digit is a piece of its own; a word includes the space before it; a comma includes the space after it."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "IMAGE_MARKUP"
    "{% elif part['type'] == 'video' or 'video' in part %}VIDEO_MARKUP"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROPE_THETA = 30.0
INITIALIZER_RANGE = 0.05
"""Half of 1 / sqrt(width); with the 0.02 of large models this narrow network learns nothing for 100 steps."""
IMAGE_TOKENS = (SIDE // CELL) ** 2
"""Image tokens of a drawing in each family: one per cell."""
GRID_SIDE = SIDE // PATCH_SIZE
"""Patches along each side of a drawing."""
MROPE_SECTION = (4, 6, 6)
"""Rotary frequencies of Qwen2.5-VL for time, height and width; they sum to half the head dimension."""


class TinyFamily(ABC):
    """A model family in miniature: its tokens, its configuration, and the inputs of its forward pass."""

    special_tokens: tuple[str, ...]
    """Control tokens besides those of the chat."""
    image_token: str
    """Placeholder, one per image token of an expanded prompt."""
    image_markup: str
    """Text of an image in the chat template."""
    drawing_markup: str
    """`image_markup` of one drawing as the processor expands it."""
    video_markup: str
    """Text of a video in the chat template."""
    silent_weights: tuple[str, ...]
    """Name suffixes of the output projections of attention and MLP, which start at zero."""

    @abstractmethod
    def make_processor(self, tokenizer: "Tokenizer") -> "ProcessorMixin":
        """Return the processor of a new tokenizer; the caller sets the chat template."""

    @abstractmethod
    def make_config(self, tokenizer: Any) -> "PreTrainedConfig":
        """Return the configuration of the tiny model for a processor's tokenizer."""

    @abstractmethod
    def image_positions(self, image_start: int, length: int) -> "torch.Tensor":
        """Return the rotary positions [A, L] of a text with one drawing, A axes.

        Args:
            image_start: Index of the first image token.
            length: Number of tokens, L.
        """

    @abstractmethod
    def vision_inputs(self, images_png: Sequence[bytes]) -> "dict[str, torch.Tensor]":
        """Return the forward arguments of drawings, equal to the output of the processor."""


class Qwen25VL(TinyFamily):
    """A tiny Qwen2.5-VL: patches in windows, 2 x 2 of them an image token, positions in time, height and width."""

    special_tokens = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    image_token = "<|image_pad|>"
    image_markup = "<|vision_start|><|image_pad|><|vision_end|>"
    drawing_markup = f"<|vision_start|>{'<|image_pad|>' * IMAGE_TOKENS}<|vision_end|>"
    video_markup = "<|vision_start|><|video_pad|><|vision_end|>"
    silent_weights = ("o_proj.weight", "down_proj.weight", "attn.proj.weight")

    def make_processor(self, tokenizer: "Tokenizer") -> "Qwen2_5_VLProcessor":
        from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

        pixels: dict[str, Any] = {
            "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
            "patch_size": PATCH_SIZE,
            "merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH,
        }
        return Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(**pixels),
            video_processor=Qwen2VLVideoProcessor(**pixels),
            tokenizer=wrap_tokenizer(tokenizer, extra_special_tokens=["<|im_start|>", *self.special_tokens]),
        )

    def make_config(self, tokenizer: Any) -> "Qwen2_5_VLConfig":
        from transformers import Qwen2_5_VLConfig

        token_id = tokenizer.convert_tokens_to_ids
        rope = {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": list(MROPE_SECTION)}
        vision = {"out_hidden_size": WIDTH, "initializer_range": INITIALIZER_RANGE}
        return Qwen2_5_VLConfig(
            architectures=["Qwen2_5_VLForConditionalGeneration"],
            text_config={**_text_settings(tokenizer), "rope_parameters": rope},
            vision_config={**vision_shape("qwen2_5_vl"), **vision},
            image_token_id=token_id("<|image_pad|>"),
            video_token_id=token_id("<|video_pad|>"),
            vision_start_token_id=token_id("<|vision_start|>"),
            vision_end_token_id=token_id("<|vision_end|>"),
            tie_word_embeddings=False,
            dtype="float32",
        )

    def image_positions(self, image_start: int, length: int) -> "torch.Tensor":
        """Return M-RoPE positions [3, length]; the image's cells share one time."""
        import torch

        side = GRID_SIDE // MERGE_SIZE
        cells = torch.arange(IMAGE_TOKENS)
        head = torch.arange(image_start)
        tail = torch.arange(length - image_start - IMAGE_TOKENS) + image_start + side
        axes = (torch.zeros_like(cells), cells // side, cells % side)
        return torch.stack([torch.cat([head, axis + image_start, tail]) for axis in axes])

    def vision_inputs(self, images_png: Sequence[bytes]) -> "dict[str, torch.Tensor]":
        """Return pixel_values [num patches, patch values] and image_grid_thw [B, 3]."""
        import torch
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        pictures = _decode(images_png)
        cells = GRID_SIDE // MERGE_SIZE
        blocks = pictures.reshape(len(pictures), cells, MERGE_SIZE, PATCH_SIZE, cells, MERGE_SIZE, PATCH_SIZE, 3)
        blocks = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3, 1, PATCH_SIZE * PATCH_SIZE)
        patches = _normalise(blocks, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD).repeat(TEMPORAL_PATCH, axis=2)
        return {
            "pixel_values": torch.from_numpy(patches.reshape(len(patches), -1)),
            "image_grid_thw": torch.tensor([(1, GRID_SIDE, GRID_SIDE)] * len(images_png)),
        }


class InternVL(TinyFamily):
    """A tiny InternVL in the layout of the InternVL3-hf checkpoints: square tiles, plain positions, boxes in 0..1000.

    A drawing is exactly one tile. The processor never splits an image (max_patches 1), so there is no thumbnail, and
    all images have the same number of tokens.
    """

    special_tokens = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    image_token = "<IMG_CONTEXT>"
    image_markup = "<IMG_CONTEXT>\n"
    drawing_markup = f"<img>{'<IMG_CONTEXT>' * IMAGE_TOKENS}</img>\n"
    video_markup = "<video>\n"
    silent_weights = ("o_proj.weight", "down_proj.weight", "projection_layer.weight", "fc2.weight")

    def make_processor(self, tokenizer: "Tokenizer") -> "InternVLProcessor":
        from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor
        from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        pixels: dict[str, Any] = {
            "size": {"height": SIDE, "width": SIDE},
            "image_mean": list(IMAGENET_DEFAULT_MEAN),
            "image_std": list(IMAGENET_DEFAULT_STD),
        }
        names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
        return InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(**pixels, min_patches=1, max_patches=1),
            video_processor=InternVLVideoProcessor(**pixels),
            tokenizer=wrap_tokenizer(
                tokenizer,
                extra_special_tokens=["<|im_start|>"],
                model_specific_special_tokens=dict(zip(names, self.special_tokens, strict=True)),
            ),
            image_seq_length=IMAGE_TOKENS,
        )

    def make_config(self, tokenizer: Any) -> "InternVLConfig":
        from transformers import InternVLConfig

        return InternVLConfig(
            architectures=["InternVLForConditionalGeneration"],
            text_config={
                **_text_settings(tokenizer),
                "model_type": "qwen2",
                "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
                "tie_word_embeddings": False,
            },
            vision_config={**vision_shape("internvl"), "initializer_range": INITIALIZER_RANGE},
            image_token_id=tokenizer.convert_tokens_to_ids(self.image_token),
            image_seq_length=IMAGE_TOKENS,
            downsample_ratio=DOWNSAMPLE_RATIO,
            tie_word_embeddings=False,
            initializer_range=INITIALIZER_RANGE,
            dtype="float32",
        )

    def image_positions(self, image_start: int, length: int) -> "torch.Tensor":
        """Return positions [1, length], the same for image and text tokens."""
        import torch

        return torch.arange(length)[None]

    def vision_inputs(self, images_png: Sequence[bytes]) -> "dict[str, torch.Tensor]":
        """Return pixel_values [B, 3, SIDE, SIDE]."""
        import torch
        from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        pictures = _decode(images_png).transpose(0, 3, 1, 2)
        tiles = _normalise(pictures, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        return {"pixel_values": torch.from_numpy(tiles)}


FAMILIES: dict[FamilyName, TinyFamily] = {"qwen2_5_vl": Qwen25VL(), "internvl": InternVL()}


def _text_settings(tokenizer: Any) -> dict[str, Any]:
    """Return the settings of the language model that all families share."""
    return {
        **text_shape(),
        "max_position_embeddings": MAX_TOKENS,
        "initializer_range": INITIALIZER_RANGE,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids(END_OF_TURN),
        "pad_token_id": tokenizer.convert_tokens_to_ids(PAD),
        "dtype": "float32",
    }


def _decode(images_png: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return the pixels [B, SIDE, SIDE, 3] of drawings."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in images_png])


def _normalise(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Return pixels [N, 3, ...] as the image processors of transformers scale them."""
    means, stds = (np.asarray(values, np.float32).reshape(1, -1, 1, 1) for values in (mean, std))
    return pixels * np.float32(1 / 255.0) / stds - means / stds


def make_tiny_model(
    folder: Path, family: TinyFamily, *, corpus: Iterable[str], seed: int, form: FormatConfig = DEFAULT_FORMAT
) -> None:
    """Write a Hugging Face folder with a new tokenizer, the processor, and random float32 weights.

    Args:
        folder: Created where it does not exist.
        family: Model family.
        corpus: Training texts of the tokenizer.
        seed: Seed of the weights.
        form: Form of answers, whose tags are tokens.
    """
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    processor = family.make_processor(train_tokenizer(corpus, special_tokens=family.special_tokens, form=form))
    processor.chat_template = chat_template(family)
    tokenizer = processor.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(family.make_config(tokenizer))
    _silence_blocks(model, family)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        do_sample=True,
        temperature=1.0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float32).save_pretrained(folder)
    processor.save_pretrained(folder)


def chat_template(family: TinyFamily) -> str:
    """Return the chat template with the family's markup of images and videos."""
    # A Jinja block swallows a line break that follows it, and only that: text before a block keeps its own.
    return CHAT_TEMPLATE.replace("IMAGE_MARKUP", family.image_markup).replace("VIDEO_MARKUP", family.video_markup)


def _silence_blocks(model: "nn.Module", family: TinyFamily) -> None:
    """Zero the output projection of each attention and MLP, so that blocks start as the identity and learn faster."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(family.silent_weights):
                parameter.zero_()


def train_tokenizer(
    corpus: Iterable[str], *, special_tokens: tuple[str, ...], form: FormatConfig = DEFAULT_FORMAT
) -> "Tokenizer":
    """Train a byte-level BPE in which digits, tags and control tokens are single tokens.

    Args:
        corpus: Training texts.
        special_tokens: Control tokens of the model family, besides those of the chat.
        form: Form of answers with the tags.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tags, control_tokens = tags_of(form), (*CHAT_TOKENS, *special_tokens)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(tags) - len(control_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without(corpus, (*tags, *control_tokens)), trainer)
    # The tags are not special: decoding with skip_special_tokens must keep them for the reward to read.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control_tokens])
    return tokenizer


def _without(corpus: Iterable[str], tokens: tuple[str, ...]) -> Iterable[str]:
    for text in corpus:
        for token in tokens:
            text = text.replace(token, "\n")
        yield text


def wrap_tokenizer(tokenizer: "Tokenizer", **special_tokens: Any) -> "PreTrainedTokenizerFast":
    """Return the tokenizer for transformers and vLLM; `special_tokens` are those of the family."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
        **special_tokens,
    )
