"""Which samples a run learns from."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import RecipeConfig
from rollout.config import StreamConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which samples are trained on and which are held out."""

    train: Annotated[str, "path", MinLen(1)] | None
    """Parquet file or folder of shards; null builds the recipe."""
    held_out: Annotated[str, "path", MinLen(1)] | None
    """The same for evaluation."""
    recipe: RecipeConfig | None
    """What is built where train and held_out are null."""
    stream: StreamConfig
    """In which order and mixture the rows are trained on."""

    def __post_init__(self) -> None:
        """Data is either there, or has a recipe."""
        if (self.train is None) != (self.held_out is None):
            raise ConfigError("data.train and data.held_out must both be set, or both be null to build data.recipe")
        if self.train is None and self.recipe is None:
            raise ConfigError("data.train and data.recipe are both null; set the files, or choose a recipe (data=demo)")
