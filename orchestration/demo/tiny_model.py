"""A Qwen2.5-VL of about a million parameters, made from nothing: tokenizer, processor, configuration, weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.demo.samples import END_OF_TURN, TAGS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

PAD = "<|endoftext|>"
IMAGE_PAD = "<|image_pad|>"
SPECIAL_TOKENS = (
    PAD,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE_PAD,
    "<|video_pad|>",
)
VOCAB_SIZE = 576
"""Room for 256 bytes, 11 added tokens, and every word of the demo as one token."""

SPLIT_PATTERN = r", |\p{N}| ?\p{L}+|[^\s\p{L}\p{N}]|\s+"
"""Digits stand alone, a word takes the space before it, and so does the gap of a list."""

WIDTH = 96
HEAD_DIM = 32
NUM_HEADS = WIDTH // HEAD_DIM
TEXT_LAYERS = 3
VISION_LAYERS = 3
MLP_WIDTH = 256
MAX_POSITIONS = 512
ROPE_THETA = 30.0
MROPE_SECTION = (4, 6, 6)
"""Rotary frequencies for time, height and width; they sum to half the head dimension."""
INITIALIZER_RANGE = 0.05
"""Half of 1 / sqrt(width); the 0.02 of large models leaves so narrow a network silent for its first hundred steps."""

PATCH_SIZE = 14
MERGE_SIZE = 2
WINDOW_SIZE = 112
"""One attention window holds a whole picture of the demo, so windowed and full layers see the same."""
MIN_PIXELS = 56 * 56
MAX_PIXELS = 448 * 448
"""Pictures between these areas whose sides divide by 28 reach the model unresized."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(folder: Path, *, corpus: Iterable[str], seed: int) -> None:
    """Write a Hugging Face folder with a new tokenizer, the processor, and random float32 weights.

    Args:
        folder: Created where it does not exist.
        corpus: Texts that the tokenizer learns its words from.
        seed: Fixes the weights.
    """
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    processor = make_processor(train_tokenizer(corpus))
    tokenizer = processor.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
    silence_blocks(model)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        do_sample=True,
        temperature=1.0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float32).save_pretrained(folder)
    processor.save_pretrained(folder)


def silence_blocks(model: "Qwen2_5_VLForConditionalGeneration") -> None:
    """Zero the last matrix of every attention and MLP, so that each block starts as the identity and learns sooner."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                parameter.zero_()


def train_tokenizer(corpus: Iterable[str]) -> "Tokenizer":
    """Learn a byte-level BPE in which digits, tags and control tokens are single tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(TAGS) - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_added_tokens(corpus), trainer)
    # The tags are not special: decoding with skip_special_tokens must keep them for the reward to read.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _without_added_tokens(corpus: Iterable[str]) -> Iterable[str]:
    for text in corpus:
        for token in (*TAGS, *SPECIAL_TOKENS):
            text = text.replace(token, "\n")
        yield text


def make_processor(tokenizer: "Tokenizer") -> "Qwen2_5_VLProcessor":
    """Wrap the tokenizer into a Qwen2.5-VL processor with chat template and image settings."""
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    pixels: dict[str, Any] = {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}}
    grid: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": 2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels, **grid),
        video_processor=Qwen2VLVideoProcessor(**pixels, **grid),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token=END_OF_TURN,
            pad_token=PAD,
            extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in (END_OF_TURN, PAD)],
            clean_up_tokenization_spaces=False,
            model_max_length=MAX_POSITIONS,
        ),
        chat_template=CHAT_TEMPLATE,
    )


def make_config(tokenizer: Any) -> "Qwen2_5_VLConfig":
    """Give the configuration of the tiny model for a tokenizer."""
    from transformers import Qwen2_5_VLConfig

    token_id = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": WIDTH,
            "intermediate_size": MLP_WIDTH,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": NUM_HEADS,
            "num_key_value_heads": NUM_HEADS,
            "max_position_embeddings": MAX_POSITIONS,
            "initializer_range": INITIALIZER_RANGE,
            "rms_norm_eps": 1e-6,
            "bos_token_id": None,
            "eos_token_id": token_id(END_OF_TURN),
            "pad_token_id": token_id(PAD),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_THETA,
                "mrope_section": list(MROPE_SECTION),
            },
            "dtype": "float32",
        },
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": WIDTH,
            "intermediate_size": MLP_WIDTH,
            "num_heads": NUM_HEADS,
            "out_hidden_size": WIDTH,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": 2,
            "window_size": WINDOW_SIZE,
            "fullatt_block_indexes": [VISION_LAYERS - 1],
            "initializer_range": INITIALIZER_RANGE,
        },
        image_token_id=token_id(IMAGE_PAD),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=False,
        dtype="float32",
    )


def read_token_id(folder: Path, token: str) -> int:
    """Give the id of an added token of a model folder without loading transformers."""
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return int(next(entry["id"] for entry in added if entry["content"] == token))
