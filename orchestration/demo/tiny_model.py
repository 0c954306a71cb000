"""A model of about a million parameters of any family, made from nothing: a folder like those of large ones.

Its tokenizer is a byte-level BPE learned from the demo's texts, the same for every family.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.demo.drawn.samples import END_OF_TURN, TAGS
from orchestration.models.tiny import VOCAB_SIZE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from orchestration.demo.families import TinyFamily

PAD = "<|endoftext|>"
CHAT_TOKENS = (PAD, "<|im_start|>", END_OF_TURN)
MAX_TOKENS = 512
"""Longest text that the tiny models are made for."""
SPLIT_PATTERN = r", |\p{N}| ?\p{L}+|[^\s\p{L}\p{N}]|\s+"
"""Digits stand alone, a word takes the space before it, and so does the gap of a list."""
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


def make_tiny_model(folder: Path, family: "TinyFamily", *, corpus: Iterable[str], seed: int) -> None:
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


def chat_template(family: "TinyFamily") -> str:
    """Return the template of the chat with the family's own markup for images and videos."""
    # A Jinja block swallows a line break that follows it, and only that: text before a block keeps its own.
    return CHAT_TEMPLATE.replace("IMAGE_MARKUP", family.image_markup).replace("VIDEO_MARKUP", family.video_markup)


def _silence_blocks(model: "nn.Module", family: "TinyFamily") -> None:
    """Zero the last matrix of every attention and MLP, so that each block starts as the identity and learns sooner."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(family.silent_weights):
                parameter.zero_()


def train_tokenizer(corpus: Iterable[str], *, special_tokens: tuple[str, ...]) -> "Tokenizer":
    """Learn a byte-level BPE in which digits, tags and control tokens are single tokens.

    Args:
        corpus: Texts that the words are learned from.
        special_tokens: Control tokens of the model family, beside those of the chat.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    control_tokens = (*CHAT_TOKENS, *special_tokens)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(TAGS) - len(control_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without(corpus, (*TAGS, *control_tokens)), trainer)
    # The tags are not special: decoding with skip_special_tokens must keep them for the reward to read.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control_tokens])
    return tokenizer


def _without(corpus: Iterable[str], tokens: tuple[str, ...]) -> Iterable[str]:
    for text in corpus:
        for token in tokens:
            text = text.replace(token, "\n")
        yield text


def wrap_tokenizer(tokenizer: "Tokenizer", **special_tokens: Any) -> "PreTrainedTokenizerFast":
    """Return the tokenizer as transformers and vLLM take it; `special_tokens` names those of a family."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
        **special_tokens,
    )
