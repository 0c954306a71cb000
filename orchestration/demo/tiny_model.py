"""A model of about a million parameters of any family, made from nothing: a folder like those of large ones."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.demo.drawn.samples import END_OF_TURN
from orchestration.demo.family import TinyFamily
from orchestration.demo.tokenizer import PAD, train_tokenizer

if TYPE_CHECKING:
    from torch import nn

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


def make_tiny_model(folder: Path, family: TinyFamily, *, corpus: Iterable[str], seed: int) -> None:
    """Write a Hugging Face folder with a new tokenizer, the processor, and random float32 weights.

    Args:
        folder: Created where it does not exist.
        family: What is made.
        corpus: Texts that the tokenizer learns its words from.
        seed: Fixes the weights.
    """
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    processor = family.make_processor(train_tokenizer(corpus, special_tokens=family.special_tokens))
    processor.chat_template = chat_template(family)
    tokenizer = processor.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(family.make_config(tokenizer))
    silence_blocks(model, family)
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
    """Return the template of the chat with the family's own markup for images and videos."""
    # A Jinja block swallows a line break that follows it, and only that: text before a block keeps its own.
    return CHAT_TEMPLATE.replace("IMAGE_MARKUP", family.image_markup).replace("VIDEO_MARKUP", family.video_markup)


def silence_blocks(model: "nn.Module", family: TinyFamily) -> None:
    """Zero the last matrix of every attention and MLP, so that each block starts as the identity and learns sooner."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(family.silent_weights):
                parameter.zero_()
