"""The chat template of a model folder, and checks that tokenizer and settings agree with it; without transformers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from orchestration.models.files import config_parts, read_object, read_text
from orchestration.models.image_tokens import PROCESSOR_FILES
from orchestration.models.shapes import ModelShape
from orchestration.settings.errors import ConfigError
from rewards.core.base import RewardError
from rewards.core.config import DEFAULT_FORMAT, FormatConfig, RewardConfig
from rewards.functions.tokenizer import load_tokenizer
from rollout.conversation import Conversation, PromptSpec
from rollout.records import Turn

PROBE = "What is this?"
"""A question to render the template with in checks."""
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Attributes of a tokenizer that templates may write; many begin with bos_token."""
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""Attributes that InternVLProcessor of transformers 5.19 reads from its tokenizer, and the published tokens."""


class _Generation(Extension):
    """The tag `{% generation %}`, which marks the assistant's text and does not change it."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders questions with images as texts of prompts, with one placeholder per image."""

    def __init__(self, folder: Path) -> None:
        """Find the template of a model folder and compile it.

        Raises:
            ConfigError: There is none, or it does not parse.
        """
        self._folder = folder
        self._has_processor = any((folder / name).is_file() for name in PROCESSOR_FILES)
        # A template is a program that came with the model: the sandbox lets it only compute text.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        try:
            source, self._named_tokens = template_source(folder), _named_tokens(folder)
            self._variables = find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(
                f"model.path={folder}: its chat template does not parse ({error}); copy the template of the original "
                "checkpoint"
            ) from error

    def prompt(
        self,
        question: str,
        *,
        num_images: int,
        spec: PromptSpec,
        system: str = "",
        history: tuple[Turn, ...] = (),
        task: str = "",
        is_answered: bool = False,
    ) -> str:
        """Return the text of a prompt.

        Args:
            question: The last user turn.
            num_images: Of history and question; those without a place (U+FFFC) come first in the question.
            spec: Of the run.
            system: The row's own system text; empty for none.
            history: Turns before the question.
            task: Of the row.
            is_answered: Omit the generation prompt.

        Raises:
            ConfigError: The template fails on such a conversation.
        """
        conversation = Conversation(question, system, history, task)
        messages = conversation.messages(num_images=num_images, spec=spec, in_parts=self._has_processor)
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=not is_answered,
                **{**self._named_tokens, **spec.template_kwargs},
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            before = f" behind {len(history)} other turns" if history else ""
            raise ConfigError(
                f"model.path={self._folder}: its chat template fails on a question with {num_images} images{before} "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); copy the template of the "
                "original checkpoint"
            ) from error

    def unread(self, names: Iterable[str]) -> list[str]:
        """Return those names of variables that the template never reads."""
        return [name for name in names if name not in self._variables]

    def opens_thinking(self, form: FormatConfig = DEFAULT_FORMAT, spec: PromptSpec | None = None) -> bool:
        """Return whether the prompt ends within a think block of this form, which the completion only closes."""
        plain = PromptSpec() if spec is None else replace(spec, system_prompt="")
        asked = self.prompt(PROBE, num_images=0, spec=plain)
        before = self.prompt(PROBE, num_images=0, spec=plain, is_answered=True)
        spoken = asked[len(before) :] if asked.startswith(before) else asked
        return spoken.rfind(form.think_open) > spoken.rfind(form.think_close)


def template_source(folder: Path) -> str:
    """Return the template of `rollout.prompt`: the processor's, as transformers finds it, else the tokenizer's.

    Raises:
        ConfigError: There is none, or several of which none is the default.
    """
    legacy, plain = folder / "chat_template.json", folder / "chat_template.jinja"
    named = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    of_processor = folder / "processor_config.json"
    settings = read_object(of_processor) if of_processor.is_file() else {}
    if settings.get("chat_template") is not None:
        return _default(settings["chat_template"], of_processor)
    if legacy.is_file() and named:
        raise ConfigError(
            f"model.path={folder} holds chat_template.json beside {named[0].relative_to(folder)}, which transformers "
            "refuses; replace chat_template.json by chat_template.jinja"
        )
    if legacy.is_file():
        return _default(read_object(legacy).get("chat_template"), legacy)
    if plain.is_file():
        return read_text(plain)
    if default := next((path for path in named if path.stem == "default"), None):
        return read_text(default)
    if named:
        raise ConfigError(
            f"model.path={folder} holds chat templates named {', '.join(path.stem for path in named)} and none named "
            "default; copy the one to use to chat_template.jinja"
        )
    of_tokenizer = folder / "tokenizer_config.json"
    if of_tokenizer.is_file() and (found := read_object(of_tokenizer).get("chat_template")) is not None:
        return _default(found, of_tokenizer)
    raise ConfigError(f"model.path={folder} has no chat template; copy chat_template.jinja of the checkpoint into it")


def _named_tokens(folder: Path) -> dict[str, str]:
    """Return the tokens that transformers gives to templates by name: bos_token, eos_token, ..."""
    file = folder / "tokenizer_config.json"
    settings = read_object(file) if file.is_file() else {}
    named = {key: settings.get(key) for key in NAMED_TOKENS}
    texts = {key: value.get("content") if isinstance(value, Mapping) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _default(found: Any, file: Path) -> str:
    """Return the default template: `found` is one template, a mapping of names to templates, or a list of both."""
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
    if isinstance(found, dict):
        found = found.get("default")
    if not isinstance(found, str):
        raise ConfigError(f"model.path: {file} holds no chat template that is the default; copy the checkpoint's own")
    return found


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
            sort_keys: bool = False) -> str:  # fmt: skip
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def check_opened_thinking(folder: Path, reward: RewardConfig, spec: PromptSpec) -> None:
    """Check that chat template and settings agree: on its variables, and on whether the prompt opens the think block.

    Raises:
        ConfigError: They differ; names the key and the value to set.
    """
    template, form = ChatTemplate(folder), reward.format
    if unread := template.unread(spec.template_kwargs):
        raise ConfigError(
            f"rollout.chat_template_kwargs.{unread[0]}: the chat template of {folder} reads no variable of that name; "
            "correct the name, or leave it out"
        )
    opens = template.opens_thinking(form, spec)
    if not opens and form.think_tag != DEFAULT_FORMAT.think_tag and template.opens_thinking(spec=spec):
        raise ConfigError(
            f"reward.format.think_tag is {form.think_tag}, but the chat template of {folder} ends its prompt with an "
            "opened <think>; set reward.format.think_tag=think and reward.format.think_prefilled=true"
        )
    if opens and not form.think_prefilled:
        raise ConfigError(
            f"reward.format.think_prefilled is false, but the chat template of {folder} ends its prompt with an opened "
            f"{form.think_open}, so completions only close it and none would be well formed; set "
            "reward.format.think_prefilled=true"
        )
    if form.think_prefilled and not opens:
        raise ConfigError(
            f"reward.format.think_prefilled is true, but the chat template of {folder} does not end its prompt with an "
            f"opened {form.think_open}; set reward.format.think_prefilled=false"
        )


def check_tokens(folder: Path, config: Mapping[str, Any], shape: ModelShape) -> None:
    """Check that tokenizer, chat template and config.json agree on the placeholder of an image and on end tokens.

    Raises:
        ConfigError: in one line, naming the file and the remedy.
    """
    try:
        tokenizer = load_tokenizer(folder)
    except RewardError as error:
        raise ConfigError(f"model.path: {error}") from error
    settings_file = folder / "tokenizer_config.json"
    if not settings_file.is_file():
        raise ConfigError(
            f"model.path={folder} holds no tokenizer_config.json; copy the tokenizer's files of the original "
            "checkpoint into it"
        )
    settings = read_object(settings_file)
    if shape.family == "internvl":
        _check_internvl_tokens(settings_file, settings, tokenizer.get_vocab(with_added_tokens=True))

    def token_of(index: Any, key: str, file: str = "config.json") -> str:
        """Return the text of the token that a key of a file names."""
        if type(index) is not int or not 0 <= index < shape.text.vocab_size:
            raise ConfigError(
                f"model.path: {folder / file} says {key}={index}, and the model has ids below "
                f"vocab_size={shape.text.vocab_size}; both must be as published"
            )
        found = tokenizer.id_to_token(index)
        if found is None:
            raise ConfigError(
                f"model.path: {folder / 'tokenizer.json'} has no token of id {index}, which {file} names as "
                f"{key}; copy the tokenizer's files of the original checkpoint"
            )
        return found

    generation = folder / "generation_config.json"
    ends = [
        (part.get("eos_token_id"), f"{where}eos_token_id", "config.json") for where, part in config_parts(config, "")
    ]
    if generation.is_file():
        ends.append((read_object(generation).get("eos_token_id"), "eos_token_id", generation.name))
    for named, key, file in ends:
        for index in named if isinstance(named, list) else [] if named is None else [named]:
            token_of(index, key, file)
    if shape.image_kind == "none":
        return
    token = token_of(config.get("image_token_id", shape.image_token_id), "image_token_id")
    placed = ChatTemplate(folder).prompt(PROBE, num_images=1, spec=PromptSpec()).count(token)
    if placed != 1:
        raise ConfigError(
            f"model.path={folder}: its chat template writes {placed} {token} for one image; copy the template of "
            "the original checkpoint"
        )


def _check_internvl_tokens(file: Path, settings: Mapping[str, Any], vocabulary: Iterable[str]) -> None:
    """Refuse tokenizer files of InternVL's first conversions, which lack tokens that the processor needs."""
    named: dict[str, Any] = {}
    for part in (settings, settings.get("extra_special_tokens"), settings.get("model_specific_special_tokens")):
        if isinstance(part, Mapping):
            named |= {key: part[key] for key in INTERNVL_TOKENS if part.get(key) is not None}
    missing = {key: token for key, token in INTERNVL_TOKENS.items() if key not in named}
    if missing:
        raise ConfigError(
            f"model.path: {file} does not name {', '.join(missing)}, which transformers' InternVL processor needs; add "
            f"{json.dumps(missing)[1:-1]} to it, or take newer tokenizer files of the checkpoint"
        )
    known = set(vocabulary)
    for key, token in named.items():
        text = token.get("content") if isinstance(token, Mapping) else token
        if text not in known:
            raise ConfigError(
                f"model.path: {file} says {key}={text}, which tokenizer.json does not contain; copy the tokenizer's "
                "files of the original checkpoint"
            )
