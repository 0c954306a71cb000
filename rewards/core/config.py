"""RewardConfig: routes from rows to functions, weights and parameters; `conf/reward/*.yaml` has exactly these keys."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen

from conf.own_code import OwnCode, is_own
from conf.ranges import out_of_range
from rewards.core.base import RewardError, look_up
from rewards.core.judge_config import JudgeConfig
from rewards.core.parts import (
    LanguageConfig,
    LengthConfig,
    OwnFunctionConfig,
    Part,
    PartConfig,
    PartsConfig,
    RepetitionConfig,
    Route,
    check_weights,
)

TAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatConfig:
    """Form in which a model answers: what the prompt asks for, the format reward pays, and every reader reads."""

    graded: bool = False
    """True pays 0.25 for each of the four tags that occurs exactly once, instead of all or nothing; style=tags only."""
    allow_empty_think: bool = False
    think_prefilled: bool = False
    """True when the chat template already opened the think block, so the completion starts inside it."""
    fallback: Literal["none", "after_think"] = "none"
    """after_think reads unmarked text after the think block as the answer, for models that do not know the form."""
    style: Literal["tags", "boxed", "json", "none"] = "tags"
    """What marks the answer. tags: an answer block after a think block. boxed: the last \\boxed{}. json: the last JSON
    object with the key `answer`. none: nothing, the whole text is the answer and the format reward is always 1. A think
    block before the answer is left out in every style."""
    think_tag: Annotated[str, MinLen(1)] = "think"
    """Name of the tags around the thought; `reason` makes them <reason> and </reason>."""
    answer_tag: Annotated[str, MinLen(1)] = "answer"
    """Name of the tags around the answer, with style=tags."""

    def __post_init__(self) -> None:
        for key, name in (("think_tag", self.think_tag), ("answer_tag", self.answer_tag)):
            if not TAG_NAME.fullmatch(name):
                raise RewardError(
                    f"reward.format.{key} is {name!r}; use the name alone, of letters, digits, - and _, without < and >"
                )
        if self.think_tag == self.answer_tag:
            raise RewardError(f"reward.format.think_tag and answer_tag are both {self.think_tag!r}; use two names")
        if self.graded and self.style != "tags":
            raise RewardError(
                f"reward.format.graded is true, which pays each tag, with reward.format.style={self.style}; set "
                "graded=false or style=tags"
            )

    @property
    def think_open(self) -> str:
        """Tag that opens the thought."""
        return f"<{self.think_tag}>"

    @property
    def think_close(self) -> str:
        """Tag that ends the thought."""
        return f"</{self.think_tag}>"

    @property
    def answer_open(self) -> str:
        """Tag that opens the answer."""
        return f"<{self.answer_tag}>"

    @property
    def answer_close(self) -> str:
        """Tag that ends the answer."""
        return f"</{self.answer_tag}>"


DEFAULT_FORMAT = FormatConfig()
"""A think block and an answer block."""


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
    """True weighs words by how specific they are and guards the value; False gives the literal formula and ignores the
    settings below but `max_chars` and `max_distinct_tokens`."""
    sharpness: Annotated[float, Ge(1), Le(16)] = 3.0
    """Power of a cosine: keeps the likeness of unrelated words from drowning what matches."""
    function_word_weight: Annotated[float, Gt(0), Le(1)] = 0.01
    """Weight of a function word (`the`, `with`, `image`) or number in the means."""
    general_word_weight: Annotated[float, Gt(0), Le(1)] = 0.25
    """Weight of a word that fits any picture (`scene`, `background`, `person`, `standing`); other words weigh 1."""
    idf_path: str = ""
    """A JSON file of `rewards.functions.caption_words.word_frequencies` over the training references: words of many
    references weigh less than the above."""
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
    | LengthConfig
    | RepetitionConfig
    | LanguageConfig
    | JudgeConfig
)
"""The parameters of one of our reward functions."""


FUNCTIONS = {
    "matching": "rewards.functions.matching:MatchingReward",
    "chart": "rewards.functions.chart:ChartReward",
    "grounding": "rewards.functions.grounding:GroundingReward",
    "open_ended": "rewards.functions.open_ended:OpenEndedReward",
    "math": "rewards.functions.mathematics:MathReward",
    "counting": "rewards.functions.counting:CountingReward",
    "reading": "rewards.functions.reading:ReadingReward",
    "pointing": "rewards.functions.pointing:PointingReward",
}
"""The reward functions a task may be routed to, as module:class; a field of RewardConfig has the parameters of each."""
FUNCTION_NAMES = tuple(FUNCTIONS)
PENALTIES = {
    "length": "rewards.functions.penalties:LengthPenalty",
    "repetition": "rewards.functions.penalties:RepetitionPenalty",
    "language": "rewards.functions.penalties:LanguagePenalty",
}
"""Functions that only take away, in sums; a field of RewardConfig has the parameters of each."""
RESERVED = ("format", "mean", "source", "group_std_mean", "failed_frac")
"""Names that metrics give another meaning."""
RESTART_S = 10.0
"""For ending a process and starting it again; a guess that is far above what an import of ours takes."""
_NAME = re.compile(r"[A-Za-z]\w*")

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
    """Exceptions for one task, one source, or one task of one source.

    Example:
        >>> RewardRule(source="figureqa", function="matching").matches("chart", "figureqa")
        True
    """

    task: str = ""
    """Empty matches every task."""
    source: str = ""
    """Empty matches every source."""
    function: str | PartsConfig = ""
    """A name, or a sum of several as in `routes`. Empty keeps the function of `routes`."""
    format_weight: Annotated[float, Ge(0), Lt(0.5)] | None = None
    """The task's weight is the rest to 1; null keeps the general weights."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of the function that differ from its own section."""

    def matches(self, task: str, source: str) -> bool:
        """Return whether the rule applies to such a row."""
        return self.task in ("", task) and self.source in ("", source)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Routes from rows to reward functions, their weights, and every function's parameters.

    Example:
        >>> rule = RewardRule(task="chart", source="plotqa", parameters={"tolerance": 0.01})
        >>> config = RewardConfig(rules=(rule,))
        >>> config.route("chart", "plotqa").parameters.tolerance, config.route("chart", "chartqa").parameters.tolerance
        (0.01, 0.05)
    """

    routes: dict[str, str | PartsConfig] = field(default_factory=lambda: dict(DEFAULT_ROUTES))
    """Task name to function name, or to a weighted sum of several: {chart: 0.7, mine: 0.3}."""
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
    length: LengthConfig = field(default_factory=LengthConfig)
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    functions: dict[str, Annotated[str, OwnCode()] | OwnFunctionConfig] = field(default_factory=dict)
    """Functions of your own by name: `FILE.py:NAME` or `PACKAGE.MODULE:NAME`, or settings with such a path."""

    judges: dict[str, JudgeConfig] = field(default_factory=dict)
    """Models that judge answers, by name; a name is used as that of a function."""

    def __post_init__(self) -> None:
        for name in self.functions:
            self._check_own(name)
        for name in self.judges:
            self._check_own(name, key="judges", others=self.functions)
        for task, functions in self.routes.items():
            self._check_functions(f"reward.routes.{task}", functions)
        if abs(self.format_weight + self.task_weight - 1.0) > 1e-9:
            raise RewardError(
                f"reward.format_weight ({self.format_weight}) and reward.task_weight ({self.task_weight}) must sum to 1"
            )
        for index, rule in enumerate(self.rules):
            self._check_rule(f"reward.rules[{index}]", rule)

    def route(self, task: str, source: str = "") -> Route:
        """Return the function, weights and parameters for a row of this task and source.

        Raises:
            RewardError: If neither `routes` nor a rule names a function for it.
        """
        rule = next((rule for rule in self.rules if rule.matches(task, source)), RewardRule())
        functions = rule.function or look_up(task, self.routes, what="task (reward.routes)")
        weight = self.format_weight if rule.format_weight is None else rule.format_weight
        return Route(
            parts=self._parts(functions, rule.parameters),
            format_weight=weight,
            task_weight=self.task_weight if rule.format_weight is None else 1.0 - weight,
        )

    def every_route(self) -> list[Route]:
        """Return the routes of all tasks and rules, so that what they need can be built beforehand."""
        pairs = [(task, "") for task in self.routes]
        pairs += [(task, rule.source) for rule in self.rules for task in ([rule.task] if rule.task else self.routes)]
        return [self.route(*pair) for pair in pairs if self.is_routed(*pair)]

    def parameters(self, function: str) -> FunctionConfig | OwnFunctionConfig:
        """Return the section of one function."""
        if function in self.judges:
            return self.judges[function]
        own = self.functions.get(function)
        if own is not None:
            return own if isinstance(own, OwnFunctionConfig) else OwnFunctionConfig(path=own)
        section: FunctionConfig = getattr(self, function)
        return section

    @property
    def function_names(self) -> tuple[str, ...]:
        """Every function that a task may be routed to, yours last."""
        return (*FUNCTION_NAMES, *self.functions, *self.judges)

    def judges_in_use(self) -> tuple[str, ...]:
        """Return the judges that a route or a rule names, in the order of `judges`."""
        unused = self.unused()
        return tuple(name for name in self.judges if f"reward.judges.{name}" not in unused)

    def unused(self) -> tuple[str, ...]:
        """Return the settings of functions of your own and judges that no route or rule names."""
        used = {part.function for route in self.every_route() for part in route.parts}
        settings = [f"reward.functions.{name}" for name in self.functions if name not in used]
        return (*settings, *(f"reward.judges.{name}" for name in self.judges if name not in used))

    def seconds_of_own(self, num_completions: int) -> float:
        """Return how long functions of your own, killed at each completion, and judges may take for a group of many."""
        own = [self.parameters(name) for name in self.functions]
        of_judges = sum(self.judges[name].longest_s(num_completions) for name in self.judges_in_use())
        return of_judges + sum(
            section.start_timeout_s + num_completions * (section.timeout_s + RESTART_S)
            for section in own
            if isinstance(section, OwnFunctionConfig)
        )

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
        """Return whether `route` knows the row."""
        rule = next((rule for rule in self.rules if rule.matches(task, source)), RewardRule())
        return bool(rule.function) or task in self.routes

    def _parts(self, functions: str | PartsConfig, parameters: Mapping[str, Any]) -> tuple[Part, ...]:
        """Return the functions of a route; `parameters` are those of a rule with one function."""
        parts = (
            {functions: PartConfig(weight=1.0, parameters=dict(parameters))}
            if isinstance(functions, str)
            else {
                name: part if isinstance(part, PartConfig) else PartConfig(weight=float(part))
                for name, part in functions.items()
            }
        )
        return tuple(
            Part(
                function=name,
                weight=part.weight,
                parameters=_changed(self.parameters(name), part.parameters),
                above=tuple(part.above.items()),
            )
            for name, part in parts.items()
        )

    def _check_own(self, name: str, *, key: str = "functions", others: Iterable[str] = ()) -> None:
        taken = dict.fromkeys((*FUNCTION_NAMES, *PENALTIES, *RESERVED, *(item.name for item in fields(self)), *others))
        if not _NAME.fullmatch(name) or name in taken:
            raise RewardError(
                f"reward.{key} has the name {name!r}; use letters, digits and _, and none of {', '.join(taken)}"
            )
        section = self.parameters(name)
        if isinstance(section, OwnFunctionConfig) and not is_own(section.path):
            raise RewardError(
                f"reward.functions.{name} is {section.path!r}, which names no code; write FILE.py:NAME or "
                "PACKAGE.MODULE:NAME"
            )

    def _check_functions(self, where: str, functions: str | PartsConfig) -> None:
        """Check the name of a function, or the parts of a sum."""
        if isinstance(functions, str):
            if functions in PENALTIES:
                raise RewardError(
                    f"{where} is {functions!r}, a penalty; name it in a sum: {{{self.function_names[0]}: 1, "
                    f"{functions}: -0.1}}"
                )
            self._check_name(where, functions, self.function_names)
            return
        if not functions:
            raise RewardError(f"{where} is empty; name the functions of the sum with their weights: {{chart: 1}}")
        for name, part in functions.items():
            self._check_name(where, name, (*self.function_names, *PENALTIES))
            if isinstance(part, PartConfig):
                _check_parameters(f"{where}.{name}", self.parameters(name), part.parameters)
        check_weights(where, self._parts(functions, {}), tuple(PENALTIES))

    def _check_name(self, where: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            raise RewardError(
                f"{where} is {name!r}; known functions: {', '.join(known)}; one of your own is named in "
                "reward.functions, and a judge in reward.judges, first"
            )

    def _check_rule(self, where: str, rule: RewardRule) -> None:
        if not (rule.task or rule.source):
            raise RewardError(f"{where} names neither a task nor a source; change the general settings instead")
        if rule.function:
            self._check_functions(f"{where}.function", rule.function)
        elif rule.task and rule.task not in self.routes:
            raise RewardError(f"{where}.task is {rule.task!r}, which reward.routes lacks; give the rule a function")
        elif rule.parameters and not rule.task:
            raise RewardError(f"{where} sets parameters for all tasks of {rule.source!r}; name its task or function")
        functions = rule.function or self.routes.get(rule.task, "matching")
        if isinstance(functions, str):
            _check_parameters(where, self.parameters(functions), rule.parameters)
        elif rule.parameters:
            raise RewardError(
                f"{where} sets parameters for a sum of {', '.join(functions)}; set them in the part of one function: "
                "{NAME: {weight: 0.3, parameters: {..}}}"
            )


def _check_parameters(where: str, section: FunctionConfig | OwnFunctionConfig, parameters: Mapping[str, Any]) -> None:
    """Check parameters that differ from the section of their function; those of the user's own are the user's."""
    if isinstance(section, OwnFunctionConfig):
        return
    known = {item.name: getattr(section, item.name) for item in fields(section)}
    hints = get_type_hints(type(section), include_extras=True)
    for key, value in parameters.items():
        expected = look_up(key, known, what=f"{where}.parameters:")
        if isinstance(expected, bool) is not isinstance(value, bool) or not isinstance(
            value, (int, float) if isinstance(expected, float) else type(expected)
        ):
            raise RewardError(f"{where}.parameters.{key} is {value!r}; use a {type(expected).__name__}")
        remedy = out_of_range(value, getattr(hints[key], "__metadata__", ()))
        if remedy is not None:
            raise RewardError(f"{where}.parameters.{key} is {value!r}; {remedy}")
    _changed(section, parameters)


def _changed(
    section: FunctionConfig | OwnFunctionConfig, parameters: Mapping[str, Any]
) -> FunctionConfig | OwnFunctionConfig:
    """Return a section with some parameters changed; of a function of the user's they are arguments."""
    if isinstance(section, OwnFunctionConfig):
        return replace(section, parameters={**section.parameters, **parameters})
    return replace(section, **parameters)
