"""Parts of a reward: functions of the user's, weighted sums, gates, penalties, and the Route that they make up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen

from conf.own_code import OwnCode
from rewards.core.base import RewardError

FORMAT = "format"
"""Name of the format reward among the parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFunctionConfig:
    """A reward function of your own, by file or module."""

    path: Annotated[str, OwnCode(), MinLen(1)]
    """`FILE.py:NAME` or `PACKAGE.MODULE:NAME`."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of every call."""
    timeout_s: Annotated[float, Gt(0), Le(86_400)] = 10.0
    """Seconds for the value of one completion, or of a whole group where the function takes groups. Then its process is
    killed, and the completion has no reward."""
    start_timeout_s: Annotated[float, Gt(0), Le(86_400)] = 120.0
    """Seconds for importing its file or module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartConfig:
    """One function of a sum, with what a weight alone cannot say."""

    weight: Annotated[float, Ge(-1)]
    """Of the function's value in the sum; below 0 it is a penalty, and the most that it takes away."""
    above: dict[str, Annotated[float, Ge(0), Lt(1)]] = field(default_factory=dict)
    """The part counts only where each of these functions, or `format`, gives more than this; else it counts 0."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of the function that differ from its own section."""


PartsConfig = dict[str, Annotated[float, Ge(-1)] | PartConfig]
"""Functions of a sum by name: {chart: 0.7, mine: 0.3}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthConfig:
    """A penalty on long completions: 0 up to `free_chars`, 1 from `full_chars` on, and linear between them.

    Source: the shape is that of the soft overlong punishment of DAPO (Yu et al., 2025, equation 13).
    """

    free_chars: Annotated[int, Ge(0)] = 4_000
    full_chars: Annotated[int, Ge(1)] = 16_000

    def __post_init__(self) -> None:
        if self.full_chars <= self.free_chars:
            raise RewardError(
                f"reward.length.full_chars is {self.full_chars} and free_chars {self.free_chars}; the first must be "
                "larger"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepetitionConfig:
    """A penalty on repetition: the share of runs of words that occurred before."""

    num_words: Annotated[int, Ge(1), Le(100)] = 6
    """Length of a run."""
    free_frac: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Up to this share the penalty is 0; from there it is linear up to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """A penalty on mixed languages: the share of letters in scripts that neither question nor reference is written in.

    Source: the share of words in the right language, of DeepSeek-R1 (2025, section 2.3.2), by script.
    """

    scripts: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Further scripts that may be used, as Unicode names them: latin, cjk, cyrillic, greek, arabic, hangul, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One function of a route."""

    function: str
    weight: float
    """Of its value in the task reward; below 0 it is a penalty."""
    parameters: Any
    """The section of the function, with what the route changes of it."""
    above: tuple[tuple[str, float], ...] = ()
    """(part, value): it counts only where each is exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Functions, weights and parameters for one row."""

    parts: tuple[Part, ...]
    format_weight: float
    task_weight: float

    @property
    def function(self) -> str:
        """What the row's reward is called in metrics and tables: its function, or those of a sum: `chart+mine`."""
        return "+".join(part.function for part in self.parts)

    @property
    def is_sum(self) -> bool:
        """Whether more than one function scores the row."""
        return len(self.parts) > 1

    @property
    def parameters(self) -> Any:
        """Parameters of the first function."""
        return self.parts[0].parameters

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Name and weight in the total of every part, format first."""
        parts = ((part.function, self.task_weight * part.weight) for part in self.parts)
        return ((FORMAT, self.format_weight), *parts)

    def counted(self, breakdown: Mapping[str, float]) -> tuple[float, ...]:
        """Return the value of every part in the order of `weights`, 0 where its gate is closed.

        Args:
            breakdown: Unweighted value of each part and of format, as `RewardResult.breakdown` has it.
        """
        parts = (
            breakdown[part.function] if all(breakdown[name] > least for name, least in part.above) else 0.0
            for part in self.parts
        )
        return (breakdown[FORMAT], *parts)

    def task_reward(self, breakdown: Mapping[str, float]) -> float:
        """Return the weighted sum of the functions' values, in [0, 1]: penalties take no more than there is."""
        if not self.is_sum:
            return breakdown[self.parts[0].function]
        values = self.counted(breakdown)[1:]
        total = math.fsum(part.weight * value for part, value in zip(self.parts, values, strict=True))
        return min(1.0, max(0.0, total))


def check_weights(where: str, parts: Sequence[Part], penalties: Sequence[str]) -> None:
    """Check the weights and gates of a sum.

    Args:
        where: The setting, for messages.
        parts: Of the sum.
        penalties: Functions that only take away.

    Raises:
        RewardError: Weights above 0 do not sum to 1, those below 0 take more than 1, a penalty would add, or a gate
            names no other part.
    """
    for part in parts:
        if part.function in penalties and part.weight > 0:
            raise RewardError(
                f"{where}.{part.function} has the weight {part.weight:g}; it is a penalty: use {-part.weight:g}"
            )
        if part.weight == 0 or not math.isfinite(part.weight):
            raise RewardError(
                f"{where}.{part.function} has the weight {part.weight:g}; leave the part out, or weigh it"
            )
    total = math.fsum(part.weight for part in parts if part.weight > 0)
    if abs(total - 1.0) > 1e-6:
        shares = ", ".join(f"{part.function}: {part.weight / total:.4g}" for part in parts if part.weight > 0)
        remedy = f"with the same proportions {{{shares}}}" if total > 0 else "name a function that is no penalty"
        raise RewardError(f"{where} has weights above 0 that sum to {total:g}; they must sum to 1: {remedy}")
    for part in parts:
        others = {FORMAT, *(other.function for other in parts)} - {part.function}
        for name, least in part.above:
            if name not in others:
                raise RewardError(
                    f"{where}.{part.function}.above names {name!r}; the other parts are {', '.join(sorted(others))}"
                )
            if not 0 <= least < 1:
                raise RewardError(f"{where}.{part.function}.above.{name} is {least:g}; use 0 or more and below 1")
