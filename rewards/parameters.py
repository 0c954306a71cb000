"""Parameters of format and of each reward function."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from rewards.base import RewardError


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatConfig:
    """How the envelope of think and answer blocks is read."""

    graded: bool = False
    """True pays 0.25 for each of the four tags that occurs exactly once, instead of all or nothing."""
    allow_empty_think: bool = False
    think_prefilled: bool = False
    """True when the chat template already opened the think block, so the completion starts inside it."""
    fallback: Literal["none", "after_think"] = "none"
    """after_think reads untagged text after the think block as the answer, for models that do not know the tags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingConfig:
    """Yes/no, multiple choice and exact text."""

    max_chars: Annotated[int, Ge(1)] = 256
    """Longer answers score 0."""
    vqa_accuracy: bool = False
    """True pays a text by how many of several accepted answers it equals, as VQA does; see matching.vqa_accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartConfig:
    """Numbers within a tolerance, years, text and lists."""

    tolerance: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Relative to the reference; 0.05 is ChartQA's relaxed accuracy."""
    graded: bool = False
    """True pays 1 - relative error / tolerance inside the tolerance."""
    anls: bool = False
    """True pays text by normalised Levenshtein similarity from 0.5 upwards (ANLS)."""
    max_chars: Annotated[int, Ge(1)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingConfig:
    """Intersection over union of boxes."""

    shaping: Literal["raw", "threshold", "power", "soft_f1", "f1"] = "raw"
    threshold: Annotated[float, Ge(0), Le(1)] = 0.5
    """With shaping=threshold and f1: pairs below it count 0; with f1 all others count 1."""
    power: Annotated[float, Gt(0)] = 2.0
    """With shaping=power: exponent of each pair's IoU."""
    label_aware: bool = False
    """True gives IoU 0 to pairs whose labels differ, where the reference has labels."""
    max_boxes: Annotated[int, Ge(1)] = 100
    max_chars: Annotated[int, Ge(1)] = 20_000

    def __post_init__(self) -> None:
        if self.shaping not in ("raw", "threshold", "power", "soft_f1", "f1"):
            raise RewardError(f"reward.grounding.shaping is {self.shaping!r}; use raw, threshold, power, soft_f1 or f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEndedConfig:
    """BMAS over static token embeddings, and the guards against gaming it."""

    guards: bool = True
    """True compares words by what they tell and guards the value; False gives the literal formula and ignores the
    settings below but `max_chars` and `max_distinct_tokens`."""
    sharpness: Annotated[float, Ge(1), Le(16)] = 3.0
    """Power of a cosine: keeps the likeness of unrelated words from drowning what matches."""
    function_word_weight: Annotated[float, Gt(0), Le(1)] = 0.05
    """What a function word (`the`, `with`, `image`) or number weighs in the means."""
    general_word_weight: Annotated[float, Gt(0), Le(1)] = 0.3
    """What a word that fits any picture (`scene`, `background`, `person`, `standing`) weighs; other words weigh 1."""
    idf_path: str = ""
    """A JSON file of `rewards.caption_words.word_frequencies` over the training references: words of many references
    weigh less than the above."""
    max_chars: Annotated[int, Ge(1)] = 10_000
    max_distinct_tokens: Annotated[int, Ge(1)] = 896
    """Replies with more different tokens score 0, because each costs a row of the product. English prose of ten
    thousand characters has up to 680 different words and marks (measured on the texts of this repository)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MathConfig:
    """Symbolic equality in a process that can be killed."""

    timeout_s: Annotated[float, Gt(0), Le(10**9)] = 2.0
    max_chars: Annotated[int, Ge(1)] = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingConfig:
    """The exact whole number."""

    graded: bool = False
    """True pays 1 - |answer - reference| / reference, at least 0."""
    max_chars: Annotated[int, Ge(1)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """Text read from an image, by edit distance (ANLS)."""

    threshold: Annotated[float, Ge(0), Le(1)] = 0.5
    """A similarity below it counts 0: another text, not a misreading."""
    max_chars: Annotated[int, Ge(1)] = 256
    """The distance takes time in proportion to the product of both lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointingConfig:
    """Points in boxes."""

    distance: bool = False
    """True pays 1 at a box's centre and less in proportion to the distance, 0 from half its diagonal on."""
    max_points: Annotated[int, Ge(1)] = 100
    max_chars: Annotated[int, Ge(1)] = 20_000


FunctionConfig = (
    MatchingConfig
    | ChartConfig
    | GroundingConfig
    | OpenEndedConfig
    | MathConfig
    | CountingConfig
    | ReadingConfig
    | PointingConfig
)
"""The parameters of one reward function."""
