"""The tokenizer of a tiny model: a byte-level BPE learned from the demo's texts, the same for every family."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestration.demo.drawn.samples import END_OF_TURN, TAGS
from orchestration.models.tiny import VOCAB_SIZE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD = "<|endoftext|>"
CHAT_TOKENS = (PAD, "<|im_start|>", END_OF_TURN)
MAX_TOKENS = 512
"""Longest text that the tiny models are made for."""

SPLIT_PATTERN = r", |\p{N}| ?\p{L}+|[^\s\p{L}\p{N}]|\s+"
"""Digits stand alone, a word takes the space before it, and so does the gap of a list."""


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
