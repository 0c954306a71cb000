"""Which model is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen

from orchestration.settings.demo import FAMILY_FRAMES, FamilyName
from orchestration.settings.errors import ConfigError

NOT_SET = "???"
"""What composition leaves where YAML demands a value that nobody gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model is trained."""

    path: Annotated[str, "path", MinLen(1)] | None
    """Hugging Face folder of the model. With a `family`, null takes the tiny model that the demo makes and warm-starts.
    `mixed-r1 plan` of a recipe needs none: sizes are those of `hf_config`."""
    family: FamilyName | None
    """Which tiny model the demo makes. Not read where a path is given: a folder says itself what it holds."""
    coord_mode: Literal["pixel", "pixel_resized", "norm1000", "norm1"]
    """Frame in which this model family answers boxes."""
    min_pixels: Annotated[int, Ge(1)] | None = None
    """Least area of a picture as the model sees it; smaller ones are enlarged. null is what the checkpoint says."""
    max_pixels: Annotated[int, Ge(1)] | None = None
    """Largest area; larger ones are shrunk. Engines, learner, prompts, box frames and plans follow both limits, and so
    does the exported checkpoint. InternVL sees tiles of one size: the limits become whole numbers of tiles, and the
    thumbnail of a cut picture comes on top."""
    hf_config: Mapping[str, Any] | None = None
    """What the published config.json of the model says about sizes, in its own words; `mixed-r1 plan` reads it where
    `path` is not there. With a path, a run checks that the two agree."""
    hf_processor: Mapping[str, Any] | None = None
    """The same of preprocessor_config.json: what decides how many tokens a picture takes. It describes the checkpoint
    and changes nothing: `min_pixels` and `max_pixels` do."""

    @property
    def folder(self) -> Path | None:
        """The Hugging Face folder, there or not; None where none is named."""
        return None if self.path in (None, NOT_SET) else Path(str(self.path))

    def __post_init__(self) -> None:
        if self.path is not None and "://" in self.path:
            raise ConfigError(
                f"model.path={self.path} is a URL; it must be a local folder: download the model and set model.path to "
                "its folder"
            )
        if self.path is not None or (self.family is None and self.hf_config is not None):
            return
        if self.family is None:
            raise ConfigError(
                "model.path and model.family are both null; point model.path at a Hugging Face folder, or set "
                f"model.family to {' or '.join(FAMILY_FRAMES)} for a tiny model of the demo"
            )
        if self.coord_mode != FAMILY_FRAMES[self.family]:
            raise ConfigError(
                f"model.coord_mode is {self.coord_mode}, but the demo's {self.family} writes boxes in "
                f"{FAMILY_FRAMES[self.family]}; set that"
            )
