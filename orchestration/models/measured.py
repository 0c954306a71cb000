"""What the length of a prompt depends on, besides question and images; written with every length. Without torch."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from orchestration.models.chat_template import template_source
from orchestration.models.files import read_object
from orchestration.models.image_tokens import processor_of, size_limits
from orchestration.models.shapes import shape_of
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from rollout.conversation import PromptSpec

DIGEST_BYTES = 16
_CALL = ("padding", "truncation")
"""Keys of tokenizer.json into which transformers writes what its last call was; they change no length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredWith:
    """Tokenizer, chat template, image processor, and what the run adds to the rows; equal ones give equal lengths.

    A field is empty where it is not known.
    """

    tokenizer: str
    """Digest of the content of tokenizer.json."""
    chat_template: str
    """Digest of its text."""
    images: str
    """Sizes that decide how many tokens an image has, in words."""
    system_prompt: str
    """Digest of its text."""
    template_variables: str = "{}"
    """JSON text of rollout.chat_template_kwargs."""
    task_prompts: str = "{}"
    """JSON text of task -> digest of rollout.task_prompts; the defaults are those of records of earlier versions."""

    @property
    def record(self) -> str:
        """JSON text that a dataset keeps; `of_record` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    def differences(self, other: "MeasuredWith", tasks: Iterable[str]) -> list[str]:
        """Return the names of the fields that differ; those that either does not know are not compared.

        Args:
            other: What is compared.
            tasks: Of the rows; prompts of other tasks are not compared.
        """
        pairs = {one.name: (getattr(self, one.name), getattr(other, one.name)) for one in fields(self)}
        mine, others = (json.loads(one) for one in pairs["task_prompts"])
        if all(mine.get(task) == others.get(task) for task in tasks):
            del pairs["task_prompts"]
        return [name.replace("_", " ") for name, (mine, others) in pairs.items() if mine and others and mine != others]


def measured_with(model: ModelConfig, folder: Path | None, spec: PromptSpec) -> MeasuredWith:
    """Return what a run measures prompts with; it does not depend on where the folder lies.

    Args:
        model: Its limits of an image's size are applied.
        folder: Hugging Face folder of the model; None, or one that lacks a file, leaves fields empty.
        spec: What the run adds to the texts of rows.
    """
    return MeasuredWith(
        tokenizer=_tokenizer(folder),
        chat_template=_chat_template(folder),
        images=_images(model),
        system_prompt=_digest(spec.system_prompt),
        template_variables=json.dumps(dict(spec.template_kwargs), sort_keys=True),
        task_prompts=json.dumps({task: _digest(text) for task, text in spec.task_prompts.items()}, sort_keys=True),
    )


def of_record(text: str) -> MeasuredWith | None:
    """Return what the JSON text of a dataset says; None where it says nothing that is understood."""
    try:
        found = json.loads(text)
        return MeasuredWith(**{name: str(value) for name, value in found.items()})
    except (ValueError, TypeError, AttributeError):
        return None


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def _tokenizer(folder: Path | None) -> str:
    try:
        found = read_object(folder / "tokenizer.json") if folder is not None else {}
    except (ConfigError, OSError):
        found = {}
    kept = {key: value for key, value in found.items() if key not in _CALL}
    return _digest(json.dumps(kept, sort_keys=True)) if kept else ""


def _chat_template(folder: Path | None) -> str:
    try:
        return _digest(template_source(folder)) if folder is not None else ""
    except (ConfigError, OSError):
        return ""


def _images(model: ModelConfig) -> str:
    try:
        shape = shape_of(model)
        lowest, highest = size_limits(processor_of(model), shape)
    except ConfigError:
        return ""
    tower = shape.tower
    if shape.image_kind == "resized":
        return f"tokens of {tower.patch_side * tower.merge_side} pixels a side, {lowest} to {highest} pixels"
    if shape.image_kind == "fitted":
        return f"tokens of {tower.patch_side * tower.merge_side} pixels a side, at most {highest} of them"
    if shape.image_kind == "none":
        return ""
    number = f", {lowest} to {highest} tiles" if shape.image_kind == "tiles" else ""
    return f"tiles of {tower.tile_side} pixels a side, {tower.tokens_per_tile} tokens each{number}"
