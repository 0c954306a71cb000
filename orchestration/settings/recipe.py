"""Datasets of a run, and recipes of the data engine: sources, and what each stage does to their rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from conf.own_code import OwnCode
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import unknown_key
from rollout.config import StreamConfig

ANY_SOURCE = "*"
OWN = "own"
"""Name of the recipe of data=parquet, which has no sources: its checks are those of the files in data.train."""
Role = Literal["train", "held_out", "guard"]
"""What a source's rows are for; guard rows are evaluation sets whose rows training must not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One raw dataset of a recipe."""

    adapter: Annotated[str, OwnCode(), MinLen(1)]
    """What reads it: a name that `mixed-r1 data sources` lists, or a function of your own, FILE.py:NAME."""
    path: Annotated[str, "path", MinLen(1)] | None = None
    """Folder of the raw files, relative to data.recipe.raw or absolute; null for drawn sources."""
    label: str = ""
    """Name under which its rows are counted; empty takes its name in the recipe."""
    role: Role = "train"
    split: Annotated[str, MinLen(1)] = "train"
    """Which split of the raw dataset, in the source's own words."""
    license: str = ""
    """Overrides the adapter's licence note."""
    max_rows: Annotated[int, Ge(1)] | None = None
    """Rows drawn at random before anything else is done to them; null takes all."""
    held_out_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the rows that are held out, of a source of role train: all rows of as many of its images. Drawn by the
    seed, after `max_rows`. At least one image is held out and one is not, if there are two."""
    quota: Annotated[int, Ge(1)] | None = None
    """Rows of this source in the result, at most."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the adapter alone understands; each adapter documents its own."""
    timeout_s: Annotated[float, Gt(0), Le(10**6)] = 600.0
    """Seconds that a function of your own may take for a row, the first with all that it prepares. Then the build ends
    and says where the function was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What validate and normalise accept."""

    max_images: Annotated[int, Ge(0)] = 8
    max_image_bytes: Annotated[int, Ge(1)] = 30_000_000
    min_side: Annotated[int, Ge(1)] = 28
    """Pixels; Qwen2.5-VL's processor needs 28."""
    max_aspect: Annotated[float, Ge(1)] = 100.0
    """Longer side over shorter; Qwen's processor raises at 200."""
    max_pixels: Annotated[int, Ge(1)] = 50_000_000
    cmyk: Literal["quarantine", "convert"] = "quarantine"
    exif: Literal["quarantine", "rotate"] = "quarantine"
    """Rows with boxes are quarantined in either case: nobody knows which way up their boxes were drawn."""
    max_question_chars: Annotated[int, Ge(1)] = 8_000
    max_answer_chars: Annotated[int, Ge(1)] = 8_000
    box_slack: Annotated[float, Ge(0)] = 2.0
    """Pixels that an annotation may leave its image by; it is clipped."""
    max_box_frac: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the image that one reference box may cover."""
    max_boxes: Annotated[int, Ge(1)] = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NormaliseConfig:
    """How a raw question becomes the user turn."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    """By task: a text with {question} and, for options, {options}; a task that is not named keeps its question."""
    shuffle_options: bool = False
    """Put options into a random order, drawn from the seed and the row, and move the letter of the answer along."""

    def __post_init__(self) -> None:
        for task, template in self.prompts.items():
            if "{question}" not in template:
                raise ConfigError(f"data.recipe.normalise.prompts.{task} is {template!r}; it must hold {{question}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """A function of your own that decides which rows stay."""

    path: Annotated[str, OwnCode(), MinLen(1)]
    """FILE.py:NAME or PACKAGE.MODULE:NAME of a function keep(row, **parameters) that returns a bool, or
    (bool, reason); with a parameter called images it gets the encoded images too."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the function, by name."""
    roles: Annotated[tuple[Literal["train", "held_out"], ...], MinLen(1)] = ("train",)
    """Of which rows it is asked; all others stay."""
    timeout_s: Annotated[float, Gt(0), Le(10**6)] = 60.0
    """Seconds for one row. Then the build ends and says where the function was, and at which row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeduplicateConfig:
    """When two rows are one, and when a row gives an evaluation set away."""

    perceptual: bool = True
    """Look for near-duplicates by image hash beside exact ones."""
    max_hash_distance: Annotated[int, Ge(0), Le(256)] = 10
    """Bits of 256 in which two difference hashes may differ."""
    max_thumbnail_difference: Annotated[int, Ge(0), Le(255)] = 24
    """Largest difference, of 255, between the 16 x 16 thumbnails of two images that count as nearly the same."""
    min_question_similarity: Annotated[float, Ge(0), Le(1)] = 0.8
    """Jaccard similarity of the questions' words, above which questions count as nearly the same."""
    max_rows_per_image: Annotated[int, Ge(1)] | None = None
    """Questions about one image; null takes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """Prompt lengths under the model's own processor."""

    max_prompt_tokens: Annotated[int, Ge(1)] | None = None
    """Null takes what rollout.engine.max_model_len leaves after rollout.sampling.max_completion_tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifficultyConfig:
    """Whether and how often the current policy tries every row; it samples as rollout.sampling says."""

    enabled: bool = False
    num_completions: Annotated[int, Ge(1)] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BandConfig:
    """Which rows of one reward function are worth training on; read only where difficulty was measured."""

    drop_all_right: bool = True
    drop_all_wrong: bool = True
    keep_all_right_frac: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the all-right rows that stays, so that what is known is not forgotten."""
    min_mean: Annotated[float, Ge(0), Le(1)] = 0.0
    max_mean: Annotated[float, Ge(0), Le(1)] = 1.0
    """Rows outside go as too_hard or too_easy. A mean says little of IoU and BMAS: use min_std there."""
    min_std: Annotated[float, Ge(0)] = 0.0
    doubt_agreement: Annotated[float, Ge(0), Le(1)] = 0.75
    """An all-wrong row of which at least this share of completions gives one answer has a doubted reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectConfig:
    """From the rows that fit to the rows that are written."""

    bands: Mapping[str, BandConfig] = field(default_factory=dict)
    """By reward function; a function that is not named keeps everything."""
    quotas: Mapping[str, Annotated[int, Ge(1)]] = field(default_factory=dict)
    """Rows by reward function; a function that is not named has no limit."""
    strata: Mapping[str, tuple[Annotated[float, Ge(0), Le(1)], Annotated[float, Ge(0), Le(1)]]] = field(
        default_factory=dict
    )
    """Difficulty classes: name -> [low, high) of the mean task reward; the last one includes 1."""
    balance_strata: bool = True
    """Fill quotas evenly from the strata where there are enough rows."""
    balance_answers: bool = True
    """Fill quotas evenly from the answers of yes/no and lettered rows where there are enough."""
    strict: bool = False
    """Refuse a result that does not fill every quota, instead of stating the shortage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsConfig:
    """The files that are written."""

    rows_per_shard: Annotated[int, Ge(1)] = 4096
    images: Literal["bytes", "paths"] = "bytes"
    """Inside the Parquet rows, or as files in images/ under the dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeConfig:
    """A dataset: its sources and what every stage does to their rows."""

    name: Annotated[str, MinLen(1)]
    seed: Annotated[int, Ge(0)]
    sources: Mapping[str, SourceConfig]
    raw: Annotated[str, "path", MinLen(1)] | None = None
    """Folder under which the sources' folders lie."""
    out: Annotated[str, "path", MinLen(1)] | None = None
    """Folder of the result; null puts it into cache_dir under a digest of everything that shapes it."""
    chunk_rows: Annotated[int, Ge(1)] = 256
    """Rows that one task works on, and that a kill can cost."""
    num_workers: Annotated[int, Ge(1)] | None = None
    """Tasks at once; null takes every core."""
    limits: LimitsConfig = LimitsConfig()
    normalise: NormaliseConfig = NormaliseConfig()
    filters: Mapping[str, FilterConfig] = field(default_factory=dict)
    """By name: functions of your own that leave rows out, asked in this order after normalise."""
    deduplicate: DeduplicateConfig = DeduplicateConfig()
    measure: MeasureConfig = MeasureConfig()
    difficulty: DifficultyConfig = DifficultyConfig()
    select: SelectConfig = SelectConfig()
    shards: ShardsConfig = ShardsConfig()
    image_roots: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Absolute folders outside of the sources' own, from which images may be read too: where links, absolute paths and
    paths with .. lead."""
    fetch_images: bool = False
    """Allow images to be fetched from http(s) links that rows name. Each is asked for once and kept in cache_dir."""
    allow_loss: tuple[str, ...] = ()
    """Sources that may yield no row, have a broken file, or lose more than a fifth of their rows before selection;
    "*" stands for all. The rows are the same with it or without: it decides whether the command succeeds."""

    def __post_init__(self) -> None:
        for root in self.image_roots:
            if not Path(root).expanduser().is_absolute():
                raise ConfigError(f"data.recipe.image_roots names {root}; write each folder from the root")
        for name, source in self.sources.items():
            if source.held_out_share and source.role != "train":
                raise ConfigError(
                    f"data.recipe.sources.{name}.held_out_share is {source.held_out_share:g}, and its role is "
                    f"{source.role}: all of its rows are kept from training; set the share to 0, or role to train"
                )

    def check_sources(self) -> None:
        """Check what holds of a recipe that is built, not of one whose settings alone are used for data.train.

        Raises:
            ConfigError: No source has rows to train on, or `allow_loss` names none of the sources.
        """
        for name in self.allow_loss:
            if name != ANY_SOURCE and name not in self.sources:
                raise ConfigError(unknown_key(name, list(self.sources), "data.recipe.sources"))
        if not any(source.role == "train" for source in self.sources.values()):
            raise ConfigError(f"recipe {self.name} has no source of role train; add one to data.recipe.sources")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which samples are trained on and which are held out."""

    train: Annotated[str, "path", MinLen(1)] | None
    """Rows to train on: a dataset that `mixed-r1 data build` wrote, or a file or folder of any form that the data
    engine reads, here or on the Hugging Face Hub (ORG/NAME); null builds the recipe."""
    held_out: Annotated[str, "path", MinLen(1)] | None
    """The same for evaluation; null beside files of your own in `train` holds out a share of them."""
    recipe: RecipeConfig | None
    """What is built where train is null. Files of your own are its sources, with its limits, prompts and checks."""
    stream: StreamConfig
    """In which order and mixture the rows are trained on."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What the columns of your own files are, where `mixed-r1 data look` shows a wrong guess:
    data.columns.question=prompt data.columns.answer=meta.answer data.columns.task=chart. answer_is says how answers are
    written, and images_from in which folder image paths start: one from the folder of the rows, or from /.
    orchestration/data/own_data.md lists the keys."""
    rows: Annotated[str, MinLen(1)] | None = None
    """Of a JSON object with several lists: the name of the list of rows."""
    held_out_share: Annotated[float, Gt(0), Lt(1)] = 0.02
    """Share of the images in `train`, with all their rows, that is held out where held_out is null."""
    image_roots: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Folders outside of the data's own from which images of your own files may be read too: where links, absolute
    paths and paths with .. lead, as in data.image_roots=[/nas/scans]. Of a recipe: data.recipe.image_roots."""

    def __post_init__(self) -> None:
        if self.train is None and self.held_out is not None:
            raise ConfigError("data.held_out is set and data.train is null; set both, or neither to build data.recipe")
        if self.train is None and self.recipe is None:
            raise ConfigError("data.train and data.recipe are both null; set the files, or choose a recipe (data=demo)")
        if self.train is None and self.recipe is not None:
            self.recipe.check_sources()
