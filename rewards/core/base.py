"""Data types of rewards: RewardRequest, RewardResult, and the interfaces RewardFunction and CompletionFunction."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, Self, TypeVar, runtime_checkable

Item = TypeVar("Item")

COORD_MODES = ("pixel", "pixel_resized", "norm1000", "norm1")
"""Frames in which a model may write boxes; see RewardRequest.coord_mode."""


class RewardError(ValueError):
    """A setting or a request that no reward can use; the message names the field, the value and the remedy."""


class GoldError(RewardError):
    """A reference that cannot be graded against; its whole group is masked, never scored 0 or 1."""


class Explained(StrEnum):
    """A string with its meaning: base of enumerations of reasons."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Create a member that is the string `value`, with its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Reason(Explained):
    """Outcome of reading an answer; counted per source, so that a zero always has a cause. `meaning` describes it."""

    OK = "ok", "read and judged; the value says whether it was right"
    NO_ANSWER = "no_answer", "no closed, non-blank answer block after the last think block"
    TWO_ANSWERS = "two_answers", "several answer blocks: a hedge"
    TRUNCATED = "truncated", "no answer, and the completion was cut before its end-of-turn token"
    TOO_LONG = "too_long", "longer, or with more items, than the reward reads"
    UNREADABLE = "unreadable", "text that names no label, option, box or formula of its task"
    AMBIGUOUS = "ambiguous", "names more than one answer"
    CONTRADICTION = "contradiction", "label and text, or yes and no, disagree"
    NOT_A_NUMBER = "not_a_number", "holds no number, several, a range or an overflow where one number was asked"
    BAD_BOX = "bad_box", "at least one box is malformed, reversed, empty, or outside of the image"
    TIMEOUT = "timeout", "the answer kept the grader busy past its limit"
    BAD_GOLD = "bad_gold", "the reference itself is unusable; the reward is None"
    GRADER_FAILED = "grader_failed", "the grader crashed; the reward is None"
    FUNCTION_RAISED = "function_raised", "a function of your own raised; the reward is None"
    FUNCTION_TIMEOUT = "function_timeout", "a function of your own gave no value in its time; the reward is None"
    FUNCTION_DIED = "function_died", "the process of a function of your own ended; the reward is None"
    NOT_FINITE = "not_finite", "a function of your own returned NaN or infinity; the reward is None"
    OUT_OF_RANGE = "out_of_range", "a function of your own returned a value outside of [0, 1]; the reward is None"
    WRONG_TYPE = "wrong_type", "a function of your own returned no number; the reward is None"

    @property
    def is_parse_failure(self) -> bool:
        """Whether the answer could not be read as what its task asks for."""
        return self not in (Reason.OK, Reason.TIMEOUT) and not self.is_failure

    @property
    def is_failure(self) -> bool:
        """Whether the reference or the grader failed, so that there is no reward."""
        return self in _FAILURES

    @property
    def is_of_own(self) -> bool:
        """Whether a function of the user's failed."""
        return self in _OWN_FAILURES


_OWN_FAILURES = frozenset(
    {
        Reason.FUNCTION_RAISED,
        Reason.FUNCTION_TIMEOUT,
        Reason.FUNCTION_DIED,
        Reason.NOT_FINITE,
        Reason.OUT_OF_RANGE,
        Reason.WRONG_TYPE,
    }
)
_FAILURES = _OWN_FAILURES | {Reason.BAD_GOLD, Reason.GRADER_FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRequest:
    """One completion's text with the reference it is judged against.

    Example:
        >>> RewardRequest(task="chart", question="How tall is red?", answer="45",
        ...               response="<think>The axis says 45.</think><answer>45</answer>").coord_mode
        'pixel'
    """

    task: str
    """With `source`, chooses reward function, weights and parameters: RewardConfig.route."""
    question: str
    """The last user turn, with `<image>` where an image stands that does not come first."""
    response: str
    """The completion as text, tags included."""
    answer: str
    """The reference: a label, a number, text, or boxes as JSON in original pixels."""
    options: tuple[str, ...] = ()
    """Option texts in the order A, B, C, ..."""
    source: str = ""
    """The dataset that the row comes from; settings may differ by it."""
    image_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image in original pixels; boxes belong to the first."""
    image_input_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image after the processor's resize."""
    coord_mode: str = "pixel"
    """Frame of the model's boxes: pixel (original), pixel_resized (input), norm1000 (0..1000), norm1 (0..1)."""
    answer_type: str = ""
    """Type of a chart reference: number | year | text | list | bool; empty = by its form."""
    history: tuple[tuple[str, str], ...] = ()
    """(role, text) of the turns before the question; role is user or assistant."""
    truncated: bool = False
    """Whether sampling stopped without an end-of-turn token."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the source, for functions of your own."""
    images: tuple[bytes, ...] = ()
    """The encoded files; filled only where a function asks for them (`MixedReward.reads_images`)."""

    def __post_init__(self) -> None:
        if any(type(option) is not str for option in self.options):
            texts = (
                option if isinstance(option, str) else json.dumps(option, ensure_ascii=False) for option in self.options
            )
            object.__setattr__(self, "options", tuple(texts))
        if self.coord_mode not in COORD_MODES:
            raise RewardError(f"RewardRequest.coord_mode is {self.coord_mode!r}; use one of {', '.join(COORD_MODES)}")
        for width, height in (*self.image_sizes, *self.image_input_sizes):
            if width < 1 or height < 1:
                raise RewardError(f"RewardRequest has an image of {width} x {height}; both sides need at least 1 pixel")

    @property
    def gold_key(self) -> tuple[object, ...]:
        """Everything but the response that a grade depends on; equal keys are graded together."""
        return (
            self.task,
            self.source,
            self.question,
            self.history,
            self.answer,
            self.options,
            self.answer_type,
            self.coord_mode,
            self.image_sizes,
            self.image_input_sizes,
            self.images,
            tuple(sorted(self.metadata.items())) if self.metadata else (),
        )


class RewardResult(NamedTuple):
    """Reward of one completion, and its cause. A named tuple, as one is made for every completion.

    Example:
        >>> RewardResult(reward=1.0, task_reward=1.0, format_reward=1.0, breakdown={"format": 1.0, "chart": 1.0},
        ...              parsed_answer="45", reason=Reason.OK).failure is None
        True
    """

    reward: float | None
    """Weighted total in [0, 1]; None where the reference or the grader failed (mask it, never read it as 0)."""
    task_reward: float | None
    """In [0, 1], unweighted; None with reward."""
    format_reward: float
    """In [0, 1], unweighted."""
    breakdown: Mapping[str, float]
    """Unweighted value by function name, `format` among them; lacks the function that failed."""
    parsed_answer: str | None
    """The answer as the reward read it."""
    reason: Reason
    failure: str | None = None
    """Fault of the reference or the grader; None in all ordinary cases, wrong answers included. Its first line says
    what happened; of a function of your own the traceback follows."""
    explanations: tuple[tuple[str, str], ...] = ()
    """What functions say of their values in words: (function, text); empty where none does."""


class Grade(NamedTuple):
    """Judgement of a reward function on one answer."""

    value: float | None
    """In [0, 1]; None when the grader failed on this answer."""
    reason: Reason = Reason.OK
    parsed: str | None = None
    failure: str | None = None
    explanation: str | None = None
    """Why this value, in words, where the function says so."""


class RewardFunction(Protocol):
    """Grades the answers of one group against the reference that they share."""

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer.

        Args:
            request: Any request of the group; only its reference fields are read, never its response.
            answers: Bodies of the answer blocks; may be empty, and the reference is checked even then.

        Returns:
            One grade per answer, in order, each independent of the other answers.

        Raises:
            GoldError: If the reference cannot be graded against.
        """
        ...

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        """Return lines on how reference and answer were read and compared; for a reader, not for a program.

        Raises:
            GoldError: If the reference cannot be graded against.
        """
        ...


class CompletionFunction(ABC):
    """Grades the completions of one group from their whole texts, those without an answer block too."""

    @abstractmethod
    def grade_completions(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> list[Grade]:
        """Grade each completion.

        Args:
            requests: One per completion; but for the response they are alike.
            answers: Body of each one's answer block; None where there is none that counts.

        Returns:
            One grade per completion, in order.
        """

    @abstractmethod
    def explain_completion(self, request: RewardRequest, answer: str | None) -> list[str]:
        """Return lines on how a completion was read; for a reader, not for a program."""


@runtime_checkable
class Closable(Protocol):
    """A reward function that holds processes or connections until it is closed."""

    def close(self) -> None:
        """Release them; they are made anew if the function is asked again."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A reward function that counts what its grades cost."""

    def take_counts(self) -> dict[str, float]:
        """Return what was counted since the last call, by name of a metric."""
        ...


def look_up(name: str, known: Mapping[str, Item], *, what: str) -> Item:
    """Return the item called `name`.

    Raises:
        RewardError: If the name is unknown; the message lists the known ones.
    """
    if name not in known:
        raise RewardError(f"{what} {name!r} is unknown; known: {', '.join(sorted(known))}")
    return known[name]
