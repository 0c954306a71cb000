"""Parameters of format and of each reward function."""

from dataclasses import dataclass
from typing import Literal

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

    max_chars: int = 256
    """Longer answers score 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartConfig:
    """Numbers within a tolerance, years, text and lists."""

    tolerance: float = 0.05
    """Relative to the reference; 0.05 is ChartQA's relaxed accuracy."""
    graded: bool = False
    """True pays 1 - relative error / tolerance inside the tolerance."""
    anls: bool = False
    """True pays text by normalised Levenshtein similarity from 0.5 upwards (ANLS)."""
    max_chars: int = 256

    def __post_init__(self) -> None:
        """Check the tolerance."""
        if not 0.0 < self.tolerance < 1.0:
            raise RewardError(f"reward.chart.tolerance is {self.tolerance}; use a fraction between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingConfig:
    """Intersection over union of boxes."""

    shaping: Literal["raw", "threshold", "power", "soft_f1"] = "raw"
    threshold: float = 0.5
    """With shaping=threshold: pairs below it count 0."""
    power: float = 2.0
    """With shaping=power: exponent of each pair's IoU."""
    label_aware: bool = False
    """True gives IoU 0 to pairs whose labels differ, where the reference has labels."""
    max_boxes: int = 100
    max_chars: int = 20_000

    def __post_init__(self) -> None:
        """Check the shaping parameters."""
        if self.shaping not in ("raw", "threshold", "power", "soft_f1"):
            raise RewardError(f"reward.grounding.shaping is {self.shaping!r}; use raw, threshold, power or soft_f1")
        if not 0.0 <= self.threshold <= 1.0:
            raise RewardError(f"reward.grounding.threshold is {self.threshold}; use a value in [0, 1]")
        if self.power <= 0.0:
            raise RewardError(f"reward.grounding.power is {self.power}; use a value above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEndedConfig:
    """BMAS over static token embeddings, and the guards against gaming it."""

    guards: bool = True
    """False gives the literal formula."""
    min_length_ratio: float = 0.5
    """Replies shorter than this share of the reference (in tokens) lose in proportion."""
    max_length_ratio: float = 2.0
    """Replies longer than this multiple lose in proportion."""
    max_duplicate_frac: float = 0.3
    """Share of repeated 4-grams that costs nothing, unless the reference repeats more."""
    f1: bool = False
    """True takes the harmonic mean of the two directions, as BERTScore does."""
    distinct: bool = False
    """True counts every distinct token once, whatever its multiplicity."""
    idf_path: str = ""
    """A .npy file of float weights [V], one per token id; empty = no weighting."""
    baseline: float = 0.0
    """Rescales to max(0, (bmas - baseline) / (1 - baseline)); 0 = off."""
    max_chars: int = 10_000
    max_distinct_tokens: int = 896
    """Replies with more different tokens score 0, because each costs a row of the product. English prose of ten
    thousand characters has up to 680 different words and marks (measured on the texts of this repository)."""

    def __post_init__(self) -> None:
        """Check ratios and baseline."""
        if not 0.0 < self.min_length_ratio <= 1.0 <= self.max_length_ratio:
            raise RewardError(
                f"reward.open_ended length ratios are {self.min_length_ratio} and {self.max_length_ratio}; "
                "they must enclose 1 and the lower one be above 0"
            )
        if not 0.0 <= self.max_duplicate_frac <= 1.0:
            raise RewardError(f"reward.open_ended.max_duplicate_frac is {self.max_duplicate_frac}; use [0, 1]")
        if not 0.0 <= self.baseline < 1.0:
            raise RewardError(f"reward.open_ended.baseline is {self.baseline}; use a value in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MathConfig:
    """Symbolic equality in a process that can be killed."""

    timeout_s: float = 2.0
    max_chars: int = 128

    def __post_init__(self) -> None:
        """Check the limit."""
        if self.timeout_s <= 0.0:
            raise RewardError(f"reward.math.timeout_s is {self.timeout_s}; use a value above 0")


FunctionConfig = MatchingConfig | ChartConfig | GroundingConfig | OpenEndedConfig | MathConfig
"""The parameters of one reward function."""
