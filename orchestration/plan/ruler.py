"""How long prompts are, from a model folder's own files, without transformers: the rows that nobody has measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from orchestration.models.chat_template import ChatTemplate
from orchestration.models.image_tokens import image_tokens
from orchestration.models.shapes import ModelShape
from orchestration.settings.errors import ConfigError
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
        self._template = ChatTemplate(folder)

    def measure(self, questions: Sequence[str], sizes: Sequence[Sequence[Size]]) -> list[PromptLength | None]:
        """Give the length of every prompt; None where the processor refuses a picture.

        Args:
            questions: user turns.
            sizes: of the pictures of each.
        """
        texts = [
            self._template.prompt(question, num_images=len(own), system_prompt=self._system_prompt)
            for question, own in zip(questions, sizes, strict=True)
        ]
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
