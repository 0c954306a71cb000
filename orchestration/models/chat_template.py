"""The chat template of a model folder, compiled and rendered as transformers does it, without transformers."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from orchestration.models.files import read_object, read_text
from orchestration.settings.errors import ConfigError
from rewards.envelope import THINK_CLOSE, THINK_OPEN

PROBE = "What is this?"
"""A question to render the template with."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text for training on conversations; the text itself is not changed."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Turns a question with images into the text of a prompt, each image as the family's placeholder."""

    def __init__(self, folder: Path) -> None:
        """Find the template of a model folder and compile it.

        Raises:
            ConfigError: there is none, or it does not parse.
        """
        self._folder = folder
        # A template is a program that came with the model: the sandbox lets it compute text and nothing else.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        try:
            self._template = environment.from_string(_source(folder))
        except TemplateError as error:
            raise ConfigError(
                f"model.path={folder}: its chat template does not parse ({error}); copy the template of the original "
                "checkpoint"
            ) from error

    def prompt(self, question: str, *, num_images: int, system_prompt: str, is_answered: bool = False) -> str:
        """Return the text of a prompt.

        Args:
            question: the user turn.
            num_images: images before it.
            system_prompt: empty for none.
            is_answered: leave out the generation prompt.

        Raises:
            ConfigError: the template refuses such a conversation.
        """
        content = [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_prompt}]})
        try:
            return self._template.render(messages=messages, add_generation_prompt=not is_answered)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise ConfigError(
                f"model.path={self._folder}: its chat template fails on a question with {num_images} pictures "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); copy the template of the "
                "original checkpoint"
            ) from error

    def opens_thinking(self) -> bool:
        """Whether the prompt ends within a think block, which the completion then only closes."""
        asked = self.prompt(PROBE, num_images=0, system_prompt="")
        before = self.prompt(PROBE, num_images=0, system_prompt="", is_answered=True)
        spoken = asked[len(before) :] if asked.startswith(before) else asked
        return spoken.rfind(THINK_OPEN) > spoken.rfind(THINK_CLOSE)


def _source(folder: Path) -> str:
    """Return the template of `rollout.prompt`: the processor's, as transformers finds it, else the tokenizer's."""
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
