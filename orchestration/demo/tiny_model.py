"""The demo's tiny models: a Hugging Face folder of about a million parameters, made from scratch.

What a model is made of is data, `model.tiny` in conf/model/tiny_*.yaml; nothing here knows an architecture. The
tokenizer is a byte-level BPE learned from the demo's texts, the same for every model but for its control tokens.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.demo.drawn.questions import END_OF_TURN, tags_of
from orchestration.settings.model import TinyModel
from rewards.core.config import DEFAULT_FORMAT, FormatConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast, ProcessorMixin

START_OF_TURN = "<|im_start|>"
PAD = "<|endoftext|>"
CHAT_TOKENS = (PAD, START_OF_TURN, END_OF_TURN)
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
SILENT_WEIGHTS = (
    "o_proj.weight", "out_proj.weight", "attn.proj.weight", "attention.projection_layer.weight",
    "mlp.down_proj.weight", "experts.down_proj", "shared_expert.down_proj.weight", "mlp.fc2.weight",
    "mlp.linear_fc2.weight", "o_proj.linear.weight", "mlp.down_proj.linear.weight",
)  # fmt: skip
"""Ends of the names of the output projections of attention and MLP, in the words of all architectures."""


def make_tiny_model(
    folder: Path, tiny: TinyModel, *, corpus: Iterable[str], seed: int, form: FormatConfig = DEFAULT_FORMAT
) -> None:
    """Write a Hugging Face folder with a new tokenizer, the processor, and random float32 weights.

    Args:
        folder: Created where it does not exist.
        tiny: What the model is made of.
        corpus: Training texts of the tokenizer.
        seed: Seed of the weights.
        form: Form of answers, whose tags are tokens.
    """
    import torch
    from transformers import GenerationConfig

    from learner.policy.conversion import save_as_published

    vocab_size = tiny.text_config["vocab_size"]
    trained = train_tokenizer(corpus, special_tokens=tiny.control_tokens, vocab_size=vocab_size, form=form)
    processor = make_processor(tiny, trained)
    tokenizer = getattr(processor, "tokenizer", processor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(tiny).from_config(make_config(tiny, tokenizer))
    _silence_blocks(model)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        do_sample=True,
        temperature=1.0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_as_published(model.to(torch.float32), folder)
    processor.save_pretrained(folder)


def model_class(tiny: TinyModel) -> Any:
    """Return the class of transformers that makes and loads the model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if tiny.hf_processor is None else AutoModelForImageTextToText


def make_config(tiny: TinyModel, tokenizer: Any) -> "PreTrainedConfig":
    """Return the configuration of the model, with the ids that its tokens have in a tokenizer."""
    from transformers import AutoConfig

    token_id = tokenizer.convert_tokens_to_ids
    values = copy.deepcopy(dict(tiny.hf_config))
    text = values.get("text_config", values)
    text |= {"bos_token_id": None, "eos_token_id": token_id(END_OF_TURN), "pad_token_id": token_id(PAD)}
    values |= {key: token_id(token) for key, token in tiny.token_ids.items()}
    return AutoConfig.for_model(values.pop("model_type"), **values)


def make_processor(tiny: TinyModel, tokenizer: "Tokenizer") -> "ProcessorMixin | PreTrainedTokenizerFast":
    """Return the processor with its chat template; the tokenizer itself where the model takes no pictures."""
    import transformers

    wrapped = _wrap_tokenizer(tiny, tokenizer)
    if tiny.hf_processor is None:
        wrapped.chat_template = chat_template(tiny)
        return wrapped
    settings = dict(tiny.hf_processor)
    made = getattr(transformers, settings.pop("processor_class"))
    parts = {name: _make_part(name, part) for name, part in settings.items() if isinstance(part, Mapping)}
    processor: ProcessorMixin = made(tokenizer=wrapped, **(settings | parts))
    processor.chat_template = chat_template(tiny)
    return processor


def _make_part(name: str, settings: Mapping[str, Any]) -> Any:
    """Return the image or video processor whose class and settings processor_config.json says."""
    import transformers

    given = dict(settings)
    return getattr(transformers, given.pop(f"{name}_type"))(**given)


def chat_template(tiny: TinyModel) -> str:
    """Return the chat template with the model's markup of images and videos."""
    # A Jinja block swallows a line break that follows it, and only that: text before a block keeps its own.
    return CHAT_TEMPLATE.replace("IMAGE_MARKUP", tiny.image_markup or "").replace(
        "VIDEO_MARKUP", tiny.video_markup or ""
    )


def _silence_blocks(model: "nn.Module") -> None:
    """Zero the output projection of each attention and MLP, so that blocks start as the identity and learn faster."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(SILENT_WEIGHTS):
                parameter.zero_()


def train_tokenizer(
    corpus: Iterable[str], *, special_tokens: Sequence[str], vocab_size: int, form: FormatConfig = DEFAULT_FORMAT
) -> "Tokenizer":
    """Train a byte-level BPE in which digits, tags and control tokens are single tokens.

    Args:
        corpus: Training texts.
        special_tokens: Control tokens of the model, besides those of the chat.
        vocab_size: Most tokens, all of these included.
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
        vocab_size=vocab_size - len(tags) - len(control_tokens),
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


def _wrap_tokenizer(tiny: TinyModel, tokenizer: "Tokenizer") -> "PreTrainedTokenizerFast":
    """Return the tokenizer for transformers and vLLM."""
    from transformers import PreTrainedTokenizerFast

    named = {"model_specific_special_tokens": dict(tiny.named_tokens)} if tiny.named_tokens else {}
    unnamed = [token for token in tiny.control_tokens if token not in tiny.named_tokens.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=tiny.text_config["max_position_embeddings"],
        extra_special_tokens=[START_OF_TURN, *unnamed],
        **named,
    )
