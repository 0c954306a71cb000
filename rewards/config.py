"""RewardConfig: which function scores which row, what it weighs; `conf/reward/*.yaml` holds exactly these keys."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from conf.ranges import out_of_range
from rewards.base import RewardError, look_up
from rewards.parameters import (
    ChartConfig,
    CountingConfig,
    FormatConfig,
    FunctionConfig,
    GroundingConfig,
    MatchingConfig,
    MathConfig,
    OpenEndedConfig,
    PointingConfig,
    ReadingConfig,
)

FUNCTION_NAMES = ("matching", "chart", "grounding", "open_ended", "math", "counting", "reading", "pointing")
"""The reward functions a task may be routed to."""

DEFAULT_ROUTES = {
    "match_yesno": "matching",
    "match_mcq": "matching",
    "match_text": "matching",
    "chart": "chart",
    "iou": "grounding",
    "open": "open_ended",
    "math": "math",
    "counting": "counting",
    "ocr": "reading",
    "pointing": "pointing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRule:
    """What is different for one task, one source, or one task of one source.

    Example:
        >>> RewardRule(source="figureqa", function="matching").matches("chart", "figureqa")
        True
    """

    task: str = ""
    """Empty matches every task."""
    source: str = ""
    """Empty matches every source."""
    function: str = ""
    """Empty keeps the function of `routes`."""
    format_weight: Annotated[float, Ge(0), Lt(0.5)] | None = None
    """The task's weight is the rest to 1; null keeps the general weights."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of the function that differ from its own section."""

    def matches(self, task: str, source: str) -> bool:
        """Whether the rule speaks of such a row."""
        return self.task in ("", task) and self.source in ("", source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one row is scored."""

    function: str
    """One of FUNCTION_NAMES."""
    format_weight: float
    task_weight: float
    parameters: FunctionConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Which reward reads which row, what it weighs, and every reward's parameters.

    Example:
        >>> rule = RewardRule(task="chart", source="plotqa", parameters={"tolerance": 0.01})
        >>> config = RewardConfig(rules=(rule,))
        >>> config.route("chart", "plotqa").parameters.tolerance, config.route("chart", "chartqa").parameters.tolerance
        (0.01, 0.05)
    """

    routes: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_ROUTES))
    """Task name to function name."""
    rules: tuple[RewardRule, ...] = ()
    """Exceptions; the first rule that matches a row is the one that holds."""
    format_weight: Annotated[float, Ge(0), Lt(0.5)] = 0.1
    task_weight: Annotated[float, Gt(0.5), Le(1)] = 0.9
    """Above format_weight, so that right but untagged beats wrong but tagged; the two sum to 1."""
    format: FormatConfig = field(default_factory=FormatConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    chart: ChartConfig = field(default_factory=ChartConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    open_ended: OpenEndedConfig = field(default_factory=OpenEndedConfig)
    math: MathConfig = field(default_factory=MathConfig)
    counting: CountingConfig = field(default_factory=CountingConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    pointing: PointingConfig = field(default_factory=PointingConfig)

    def __post_init__(self) -> None:
        for task, name in self.routes.items():
            _check_function(f"reward.routes.{task}", name)
        if abs(self.format_weight + self.task_weight - 1.0) > 1e-9:
            raise RewardError(
                f"reward.format_weight ({self.format_weight}) and reward.task_weight ({self.task_weight}) must sum to 1"
            )
        for index, rule in enumerate(self.rules):
            self._check_rule(f"reward.rules[{index}]", rule)

    def route(self, task: str, source: str = "") -> Route:
        """Give how a row of this task and source is scored.

        Raises:
            RewardError: If neither `routes` nor a rule names a function for it.
        """
        rule = next((rule for rule in self.rules if rule.matches(task, source)), RewardRule())
        name = rule.function or look_up(task, self.routes, what="task (reward.routes)")
        weight = self.format_weight if rule.format_weight is None else rule.format_weight
        return Route(
            function=name,
            format_weight=weight,
            task_weight=self.task_weight if rule.format_weight is None else 1.0 - weight,
            parameters=replace(self.parameters(name), **rule.parameters),
        )

    def every_route(self) -> list[Route]:
        """Give the routes of all tasks and rules, so that what they need can be built beforehand."""
        pairs = [(task, "") for task in self.routes]
        pairs += [(task, rule.source) for rule in self.rules for task in ([rule.task] if rule.task else self.routes)]
        return [self.route(*pair) for pair in pairs if self.is_routed(*pair)]

    def parameters(self, function: str) -> FunctionConfig:
        """Give the section of one function."""
        sections: dict[str, FunctionConfig] = {
            "matching": self.matching,
            "chart": self.chart,
            "grounding": self.grounding,
            "open_ended": self.open_ended,
            "math": self.math,
            "counting": self.counting,
            "reading": self.reading,
            "pointing": self.pointing,
        }
        return sections[function]

    def unrouted(self, rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Count the rows that nothing scores.

        Args:
            rows: (task, source) of every row.

        Returns:
            Number of rows by (task, source); empty when all are routed.
        """
        counts = Counter(rows)
        return {pair: num for pair, num in counts.items() if not self.is_routed(*pair)}

    def is_routed(self, task: str, source: str = "") -> bool:
        """Whether `route` knows the row."""
        rule = next((rule for rule in self.rules if rule.matches(task, source)), RewardRule())
        return bool(rule.function) or task in self.routes

    def _check_rule(self, where: str, rule: RewardRule) -> None:
        if not (rule.task or rule.source):
            raise RewardError(f"{where} names neither a task nor a source; change the general settings instead")
        if rule.function:
            _check_function(f"{where}.function", rule.function)
        elif rule.task and rule.task not in self.routes:
            raise RewardError(f"{where}.task is {rule.task!r}, which reward.routes lacks; give the rule a function")
        elif rule.parameters and not rule.task:
            raise RewardError(f"{where} sets parameters for all tasks of {rule.source!r}; name its task or function")
        section = self.parameters(rule.function or self.routes.get(rule.task, "matching"))
        known = {item.name: getattr(section, item.name) for item in fields(section)}
        hints = get_type_hints(type(section), include_extras=True)
        for key, value in rule.parameters.items():
            expected = look_up(key, known, what=f"{where}.parameters:")
            if isinstance(expected, bool) is not isinstance(value, bool) or not isinstance(
                value, (int, float) if isinstance(expected, float) else type(expected)
            ):
                raise RewardError(f"{where}.parameters.{key} is {value!r}; use a {type(expected).__name__}")
            remedy = out_of_range(value, getattr(hints[key], "__metadata__", ()))
            if remedy is not None:
                raise RewardError(f"{where}.parameters.{key} is {value!r}; {remedy}")
        replace(section, **rule.parameters)


def _check_function(where: str, name: str) -> None:
    if name not in FUNCTION_NAMES:
        raise RewardError(f"{where} is {name!r}; known functions: {', '.join(FUNCTION_NAMES)}")
