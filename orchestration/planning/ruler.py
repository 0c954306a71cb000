"""How long prompts are, from a model folder's own files, without transformers: the rows that nobody has measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from orchestration.errors import ConfigError
from orchestration.planning.image_tokens import image_tokens
from orchestration.planning.shapes import ModelShape
from rewards.tokenizer import load_tokenizer
from rollout.prompt import PromptLength

Size = tuple[int, int]
"""Width and height in pixels."""

PROBE: Size = (224, 224)
"""A picture that every processor takes."""


class PromptRuler:
    """Measures prompts as the run's own processor makes them: chat template, tokenizer, arithmetic of images."""

    def __init__(self, folder: Path, shape: ModelShape, processor: Mapping[str, Any], system_prompt: str) -> None:
        """Read template and tokenizer.

        Args:
            folder: Hugging Face folder.
            shape: of the model.
            processor: what its preprocessor file says.
            system_prompt: of every prompt; empty for none.

        Raises:
            ConfigError: the folder has no chat template, or one that does not parse; the processor is of another model.
            RewardError: it has no tokenizer.
        """
        self._tokenizer: Tokenizer = load_tokenizer(folder)
        self._shape, self._processor, self._system_prompt = shape, processor, system_prompt
        image_tokens(shape, processor, *PROBE)  # settings of another model's processor are refused here, not row by row
        # A template is a program that came with the model: the sandbox lets it compute text and nothing else.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            self._template = environment.from_string(chat_template(folder))
        except TemplateError as error:
            raise ConfigError(f"model.path={folder}: its chat template does not parse ({error})") from error

    def measure(self, questions: Sequence[str], sizes: Sequence[Sequence[Size]]) -> list[PromptLength | None]:
        """Give the length of every prompt; None where the processor refuses a picture.

        Args:
            questions: user turns.
            sizes: of the pictures of each.
        """
        texts = [self._text(question, len(own)) for question, own in zip(questions, sizes, strict=True)]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [
            None if (pictures := self.pictures(own)) is None
            else PromptLength(num_tokens=len(encoding.ids) - len(own) + pictures, num_image_tokens=pictures)
            for encoding, own in zip(encodings, sizes, strict=True)
        ]  # fmt: skip

    def pictures(self, sizes: Sequence[Size]) -> int | None:
        """Give the tokens of a prompt's pictures; None where the processor refuses one."""
        try:
            return sum(image_tokens(self._shape, self._processor, width, height) for width, height in sizes)
        except ConfigError:
            return None

    def _text(self, question: str, num_images: int) -> str:
        content = [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self._system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self._system_prompt}]})
        return self._template.render(messages=messages, add_generation_prompt=True)


def chat_template(folder: Path) -> str:
    """Give the chat template of a model folder, from whichever of its files holds one.

    Raises:
        ConfigError: none does.
    """
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text()
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            template = json.loads((folder / name).read_text()).get("chat_template")
            if isinstance(template, str):
                return template
    raise ConfigError(f"model.path={folder} has no chat template; copy chat_template.jinja of the checkpoint into it")
