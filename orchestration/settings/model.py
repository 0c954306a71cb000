"""Which model is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen

from conf.own_code import OwnCode, is_own
from conf.ranges import nearest
from orchestration.settings.demo import FAMILY_FRAMES, FamilyName
from orchestration.settings.errors import ConfigError

NOT_SET = "???"
"""What composition leaves where YAML demands a value that nobody gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model is trained."""

    path: Annotated[str, "path", MinLen(1)] | None
    """Hugging Face folder of the model, or its name on the Hugging Face Hub: ORG/NAME or ORG/NAME@REVISION. With a
    `family`, null takes the tiny model that the demo makes and warm-starts. `mixed-r1 plan` of a recipe needs none:
    sizes are those of `hf_config`."""
    family: Annotated[str, OwnCode(), MinLen(1)] | None
    """Which tiny model the demo makes, qwen2_5_vl or internvl; not read where a path is given, as a folder says itself
    what it holds. Or a class of your own for the model at `path`, FILE.py:NAME or PACKAGE.MODULE:NAME; see "A family of
    your own" in learner/README.md."""
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
    `path` is not there. With a path, a run checks that the two agree. For a family of your own, whose config.json
    nobody here can read: sizes of the nearest model of a known family, by which a run is planned."""
    hf_processor: Mapping[str, Any] | None = None
    """The same of preprocessor_config.json: what decides how many tokens a picture takes. It describes the checkpoint
    and changes nothing: `min_pixels` and `max_pixels` do."""

    @property
    def folder(self) -> Path | None:
        """The Hugging Face folder, there or not; None where none is named."""
        return None if self.path in (None, NOT_SET) else Path(str(self.path))

    @property
    def own_family(self) -> str | None:
        """The user's class of the model's family, FILE.py:NAME or PACKAGE.MODULE:NAME; None for one of ours."""
        return self.family if self.family is not None and is_own(self.family) else None

    @property
    def tiny_family(self) -> FamilyName | None:
        """Which tiny model the demo makes; None where `family` names none."""
        return next((name for name in FAMILY_FRAMES if name == self.family), None)

    def __post_init__(self) -> None:
        self._check_family()
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
        if self.tiny_family is not None and self.coord_mode != FAMILY_FRAMES[self.tiny_family]:
            raise ConfigError(
                f"model.coord_mode is {self.coord_mode}, but the demo's {self.family} writes boxes in "
                f"{FAMILY_FRAMES[self.tiny_family]}; set that"
            )

    def _check_family(self) -> None:
        if self.own_family is not None and self.path is None:
            raise ConfigError(
                f"model.family={self.family} is a class of your own, and the demo makes no tiny model of it; set "
                "model.path to a Hugging Face folder of this family"
            )
        if self.family is not None and self.own_family is None and self.tiny_family is None:
            near = nearest(self.family, FAMILY_FRAMES, cutoff=0.6)
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigError(
                f"model.family is {self.family!r}; allowed: {', '.join(FAMILY_FRAMES)}, or a class of your own as "
                f"FILE.py:NAME{hint}"
            )
