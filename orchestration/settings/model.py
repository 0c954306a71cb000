"""Which model is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from conf.own_code import OwnCode, is_own
from conf.ranges import nearest
from learner.config import SUPPORTED_FAMILIES, BoxFrame
from orchestration.settings.errors import ConfigError

NOT_SET = "???"
"""What composition leaves where YAML demands a value that nobody gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """What the demo makes a tiny model of, in the words of a checkpoint's files."""

    hf_config: Mapping[str, Any]
    """config.json of the model, without the ids of tokens, which its new tokenizer says."""
    hf_processor: Mapping[str, Any] | None
    """processor_config.json: processor_class, image_processor and video_processor, each with the name of its class in
    transformers. null for a model that takes no pictures."""
    token_ids: Mapping[str, Annotated[str, MinLen(1)]]
    """Control tokens besides those of the chat, under the keys by which config.json gives their ids."""
    named_tokens: Mapping[str, Annotated[str, MinLen(1)]]
    """The same of those for which the processor asks the tokenizer, under the names by which it does."""
    image_markup: Annotated[str, MinLen(1)] | None = None
    """Text of a picture in the chat template; null for a model that takes none."""
    video_markup: Annotated[str, MinLen(1)] | None = None
    """Text of a video in the chat template; null for a model that takes none."""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """All control tokens besides those of the chat, each once."""
        return tuple(dict.fromkeys((*self.named_tokens.values(), *self.token_ids.values())))

    @property
    def text_config(self) -> Mapping[str, Any]:
        """Sizes of the language model."""
        found: Mapping[str, Any] = self.hf_config.get("text_config", self.hf_config)
        return found

    @property
    def image_processor(self) -> Mapping[str, Any]:
        """Settings of the image processor, as preprocessor_config.json says them; empty without one."""
        return {} if self.hf_processor is None else self.hf_processor["image_processor"]

    def __post_init__(self) -> None:
        need(self.hf_config, "model.tiny.hf_config", "model_type")
        need(self.text_config, "model.tiny.hf_config.text_config", "vocab_size", "max_position_embeddings")
        if self.hf_processor is not None:
            need(self.hf_processor, "model.tiny.hf_processor", "processor_class", "image_processor")
            for name, part in self.hf_processor.items():
                if isinstance(part, Mapping):
                    need(part, f"model.tiny.hf_processor.{name}", f"{name}_type")


def need(values: Mapping[str, Any], where: str, *keys: str) -> None:
    """Raise ConfigError for the first of `keys` that `values`, the setting `where`, lacks."""
    for key in keys:
        if values.get(key) is None:
            raise ConfigError(f"{where}.{key} is missing; say it as the checkpoint's file does")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model is trained."""

    path: Annotated[str, "path", MinLen(1)] | None
    """Hugging Face folder of the model, or its name on the Hugging Face Hub: ORG/NAME or ORG/NAME@REVISION. null takes
    the `tiny` model that the demo makes and warm-starts. `mixed-r1 plan` of a recipe needs none: sizes are those of
    `hf_config`."""
    family: Annotated[str, OwnCode(), MinLen(1)] | None
    """A class of your own for the model at `path`, FILE.py:NAME or PACKAGE.MODULE:NAME; see "A family of your own" in
    learner/README.md. null for the families that the learner knows: a folder says itself what it holds."""
    coord_mode: BoxFrame | None = None
    """Frame in which the model answers boxes and points: pixel (of the original image), pixel_resized (of the image as
    the model sees it), norm1000 or norm1 (0..1000 or 0..1 of width and height); demonstrations of a `tiny` model are
    written in it. null is the one in which its family was trained to answer; of an architecture that learner/families
    does not know, rows with boxes need a value here."""
    min_pixels: Annotated[int, Ge(1)] | None = None
    """Least area of a picture as the model sees it; smaller ones are enlarged. null is what the checkpoint says."""
    max_pixels: Annotated[int, Ge(1)] | None = None
    """Largest area; larger ones are shrunk. Engines, learner, prompts, box frames and plans follow both limits, and so
    does the exported checkpoint. InternVL sees tiles of one size: the limits become whole numbers of tiles, and the
    thumbnail of a cut picture comes on top."""
    hf_config: Mapping[str, Any] | None = None
    """What the published config.json of the model says about sizes, in its own words; `mixed-r1 plan` reads it where
    `path` is not there. With a path, a run checks that the two agree. For a family of your own, whose config.json
    nobody here can read: sizes of the nearest model of a known family, by which a run is planned."""
    hf_processor: Mapping[str, Any] | None = None
    """The same of preprocessor_config.json: what decides how many tokens a picture takes. It describes the checkpoint
    and changes nothing: `min_pixels` and `max_pixels` do."""
    tiny: TinyModel | None = None
    """The model that the demo makes where no path is given; see orchestration/demo/README.md. Not read with a path."""

    @property
    def folder(self) -> Path | None:
        """The Hugging Face folder, there or not; None where none is named."""
        return None if self.path in (None, NOT_SET) else Path(str(self.path))

    @property
    def box_frame(self) -> BoxFrame:
        """Frame in which rewards read boxes; pixel where none is known, and no row has any (`check_box_frame`)."""
        return self.coord_mode or "pixel"

    @property
    def own_family(self) -> str | None:
        """The user's class of the model's family, FILE.py:NAME or PACKAGE.MODULE:NAME; None for one of ours."""
        return self.family

    def __post_init__(self) -> None:
        self._check_family()
        if self.path is not None and "://" in self.path:
            raise ConfigError(
                f"model.path={self.path} is a URL; it must be a local folder: download the model and set model.path to "
                "its folder"
            )
        if self.path is None and self.tiny is None and self.hf_config is None:
            raise ConfigError(
                "model.path and model.tiny are both null; point model.path at a Hugging Face folder, or choose a tiny "
                "model of the demo, such as model=tiny_qwen2_5_vl"
            )

    def _check_family(self) -> None:
        if self.family is None:
            return
        if not is_own(self.family):
            near = nearest(self.family, SUPPORTED_FAMILIES, cutoff=0.6)
            hint = f"; did you mean model=tiny_{near}?" if near else ""
            raise ConfigError(
                f"model.family is {self.family!r}; allowed: a class of your own as FILE.py:NAME, or null, as the "
                f"folder at model.path says what it holds, and model=tiny_... chooses what the demo makes{hint}"
            )
        if self.path is None:
            raise ConfigError(
                f"model.family={self.family} is a class of your own, and the demo makes no tiny model of it; set "
                "model.path to a Hugging Face folder of this family"
            )
