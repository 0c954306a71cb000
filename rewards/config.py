"""Settings of the rewards; `conf/reward/*.yaml` holds exactly these keys."""

from dataclasses import dataclass, field
from typing import Literal

from rewards.base import RewardError

FUNCTION_NAMES = ("matching", "chart", "grounding", "open_ended", "math")
"""The reward functions a task may be routed to."""

DEFAULT_ROUTES = {
    "match_yesno": "matching",
    "match_mcq": "matching",
    "match_text": "matching",
    "chart": "chart",
    "iou": "grounding",
    "open": "open_ended",
    "math": "math",
}


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
    max_chars: int = 20_000

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Which reward reads which task, what it weighs, and every reward's parameters.

    Example:
        >>> RewardConfig().weights("chart")
        (0.1, 0.9)
    """

    routes: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_ROUTES))
    """Task name to function name."""
    format_weight: float = 0.1
    task_weight: float = 0.9
    """Above format_weight, so that right but untagged beats wrong but tagged; the two sum to 1."""
    format_weight_by_task: dict[str, float] = field(default_factory=dict)
    """Tasks with a format weight of their own; their task weight is the rest to 1."""
    format: FormatConfig = field(default_factory=FormatConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    chart: ChartConfig = field(default_factory=ChartConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    open_ended: OpenEndedConfig = field(default_factory=OpenEndedConfig)
    math: MathConfig = field(default_factory=MathConfig)

    def __post_init__(self) -> None:
        """Check that every route leads somewhere and that weights keep their promise."""
        for task, name in self.routes.items():
            if name not in FUNCTION_NAMES:
                raise RewardError(f"reward.routes.{task} is {name!r}; known functions: {', '.join(FUNCTION_NAMES)}")
        if abs(self.format_weight + self.task_weight - 1.0) > 1e-9:
            raise RewardError(
                f"reward.format_weight ({self.format_weight}) and reward.task_weight ({self.task_weight}) must sum to 1"
            )
        for key, weight in {"format_weight": self.format_weight, **self.format_weight_by_task}.items():
            if not 0.0 <= weight < 0.5:
                raise RewardError(
                    f"reward format weight of {key} is {weight}; use [0, 0.5) so that the task outweighs it"
                )

    def weights(self, task: str) -> tuple[float, float]:
        """Give (format weight, task weight) of a task."""
        if task in self.format_weight_by_task:
            format_weight = self.format_weight_by_task[task]
            return format_weight, 1.0 - format_weight
        return self.format_weight, self.task_weight
