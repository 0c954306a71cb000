"""What the proofs need to know of a model family: one `Case` in one file of `cases/`, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch

VOCAB_SIZE = 512
VISION_START, VISION_END, IMAGE_TOKEN, VIDEO_TOKEN = 3, 4, 5, 6
CHAT_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
"""Tokens 0 to 2; the family's own follow."""
TOKEN_PIXELS = 28
"""Side of the square of pixels that becomes one token: 2 x 2 patches of 14."""
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    # Wide enough that attention is not uniform: errors in mask or positions then show in the logprobs.
    "initializer_range": 0.1,
}
"""Language model of every tiny model, as far as its family has these settings."""
CORPUS = ["what colour is the large red circle left of the small blue square? yes no 1 2 3"] * 20
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A tiny random model of a family, and what is known of it without our code."""

    name: str
    config: Callable[[bool], Any]
    """tie_word_embeddings -> configuration of transformers."""
    processor: Callable[[Any], Any]
    """Tokenizer -> processor of transformers, with image and video processor."""
    control_tokens: tuple[str, ...]
    """Start and end of an image, placeholders of an image's and of a video's features: tokens 3 to 6; others follow. A
    language model has none."""
    token_names: tuple[str, ...] = ()
    """Names under which the processor asks its tokenizer for them."""
    image_markup: str | None
    """Text of an image in the chat template; None of a language model, which takes none."""
    num_image_tokens: Callable[[int, int], int] | None
    """Width, height -> prompt tokens of a picture whose sides are multiples of 28."""
    plain_inputs: Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]] | None = None
    """Token ids [B, L], grids [images, 3] -> what transformers' own forward pass reads beside pixels and ids. None of a
    language model, and on the generic path, where it is what the processor makes."""
    as_published: Callable[[Path], None] = lambda folder: None
    """What makes of a folder that transformers has saved one like those that are published."""
    parts: dict[str, str] = field(hash=False)
    """Part in `learner.freeze` -> a parameter of it."""
    class_in_readme: str | None = None
    """Class of learner/README.md's example that is the family, where there is none in learner/families."""
    lora_targets: tuple[str, ...] = ("q_proj", "down_proj")
    atol: float = 1e-5
    """Allowed for logprobs, and for gradients as shares of the largest one where that is above 1; float32."""
    engine_dtype: str = "float32"
    engine_atol: float = 1e-5
    """Allowed between logprobs of engine and learner."""

    @property
    def is_padded(self) -> bool:
        """Whether it trains on the generic path, in rows and not in a stream."""
        return self.takes_images and self.plain_inputs is None

    @property
    def takes_images(self) -> bool:
        """Whether it is a vision-language model."""
        return self.image_markup is not None

    @property
    def model_class(self) -> Any:
        """Class of transformers that makes and loads the model."""
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        return AutoModelForImageTextToText if self.takes_images else AutoModelForCausalLM


def find_cases() -> dict[str, Case]:
    """Return the cases by name; there is one in each file of `cases/`."""
    folder = Path(__file__).parent / "cases"
    modules = [import_module(f"tests.families.cases.{found.name}") for found in iter_modules([str(folder)])]
    return {module.CASE.name: module.CASE for module in modules}


def write_model(folder: Path, case: Case, *, tie_word_embeddings: bool = True) -> None:
    """Write a Hugging Face folder: configuration, random float32 weights, tokenizer, chat template, processor."""
    torch.manual_seed(0)
    case.model_class.from_config(case.config(tie_word_embeddings)).save_pretrained(folder)
    case.as_published(folder)
    processor = case.processor(make_tokenizer(case))
    markup = case.image_markup or ""
    template = CHAT_TEMPLATE.replace("IMAGE", markup)
    processor.chat_template = template.replace("VIDEO", markup and markup.replace(*case.control_tokens[2:4]))
    processor.save_pretrained(folder)


def make_tokenizer(case: Case) -> Any:
    """Return a byte-level BPE tokenizer of transformers, control tokens first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[*CHAT_TOKENS, *case.control_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", *case.control_tokens],
        model_specific_special_tokens=dict(zip(case.token_names, case.control_tokens, strict=False)),
        clean_up_tokenization_spaces=False,
        model_max_length=TEXT["max_position_embeddings"],
    )
