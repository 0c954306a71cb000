"""EvaluatedSample: one held-out row with what the model answered and what that earned.

One line of predictions.jsonl is one of them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from orchestration.errors import DataError
from rewards.base import Reason, RewardRequest

Size = tuple[int, int]
"""(width, height) in pixels."""

PASS_AT = {"matching": 1.0, "chart": 1.0, "math": 1.0, "grounding": 0.5}
"""Task reward from which a completion counts as passed, by reward function; open-ended text neither passes nor fails.
0.5 for boxes is the IoU that detection and RefCOCO call a hit."""
ROUNDING = 1e-9
"""Rewards are sums of floats; one that misses its threshold by less than this has reached it."""

_REASONS = {reason.value: reason for reason in Reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One completion with its reward.

    Example:
        >>> Completion(text="<think>a</think><answer>B</answer>", reward=1.0, task_reward=1.0, format_reward=1.0,
        ...            reason="ok", parsed_answer="B", num_tokens=9, truncated=False).is_unreadable
        False
    """

    text: str
    """As decoded, tags included."""
    reward: float | None
    """Weighted total in [0, 1]; None where the reference or the grader failed."""
    task_reward: float | None
    """Without the format part, in [0, 1]; None together with reward."""
    format_reward: float
    """In [0, 1]."""
    reason: str
    """How the answer was read, a word of rewards.base.Reason."""
    parsed_answer: str | None
    """What the reward took the answer to be."""
    num_tokens: int
    """Tokens of the completion, end-of-turn token included."""
    truncated: bool
    """Whether sampling stopped at the limit, without an end-of-turn token."""

    def __post_init__(self) -> None:
        """Check the reason, and that rewards are there together."""
        if self.reason not in _REASONS:
            raise DataError(f"Completion.reason is {self.reason!r}; use one of {', '.join(_REASONS)}")
        if (self.reward is None) is not (self.task_reward is None):
            raise DataError(
                f"Completion has reward {self.reward} and task_reward {self.task_reward}; give both, or None for both"
            )

    @property
    def is_unreadable(self) -> bool:
        """Whether no answer could be read: no block, cut off, or not what the task asks for."""
        return _REASONS[self.reason].is_parse_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedSample:
    """One held-out row and its completions; holds no image bytes.

    Example:
        >>> sample = EvaluatedSample(sample_id="7f", source="demo/bar", task="chart", function="chart",
        ...                          question="How tall is red?", answer="4", greedy=None, failure="prompt too long")
        >>> EvaluatedSample.from_json(sample.to_json()) == sample
        True
    """

    sample_id: str
    """Unique within the dataset; two evaluations are matched by it."""
    source: str
    task: str
    function: str
    """Reward function that scored it: matching, chart, grounding, open_ended, math."""
    question: str
    answer: str
    """The reference; boxes as JSON in original pixels."""
    greedy: Completion | None
    """The completion at temperature 0; None where none was asked for, or the row failed."""
    source_id: str = ""
    """The row's name inside its source; what other toolkits call index or doc_id."""
    options: tuple[str, ...] = ()
    """Option texts in the order A, B, C, ..."""
    answer_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What else the source says of the row: category, split, original image."""
    image_sizes: tuple[Size, ...] = ()
    """Original size of each image."""
    image_input_sizes: tuple[Size, ...] = ()
    """Size of each image as the model saw it."""
    coord_mode: str = "pixel"
    """Frame of the model's boxes; see RewardRequest.coord_mode."""
    sampled: tuple[Completion, ...] = ()
    """Completions at the sampling temperature, in seed order."""
    failure: str | None = None
    """Why the row has no scores (engine, grader or reference); such rows are counted apart and enter no mean."""

    def to_json(self) -> str:
        """Give one line of JSON, without the line break; ASCII, so that no character of a completion ends the line."""
        return json.dumps(asdict(self), allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> "EvaluatedSample":
        """Read a line of `to_json`.

        Raises:
            DataError: The line is no JSON object, or a field is missing, unknown or of another form.
        """
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"an evaluated sample is not JSON: {error}") from error
        _check_keys(values, cls)
        values["options"] = tuple(values["options"])
        for key in ("image_sizes", "image_input_sizes"):
            values[key] = tuple((width, height) for width, height in values[key])
        values["greedy"] = None if values["greedy"] is None else _completion(values["greedy"])
        values["sampled"] = tuple(map(_completion, values["sampled"]))
        return cls(**values)

    def graded(self) -> tuple[Completion, ...]:
        """Give the sampled completions that have a reward."""
        return tuple(completion for completion in self.sampled if completion.task_reward is not None)

    def request(self, response: str = "") -> RewardRequest:
        """Give the row as the rewards read it; `response` matters to nothing but format."""
        return RewardRequest(
            task=self.task,
            question=self.question,
            response=response,
            answer=self.answer,
            options=self.options,
            source=self.source,
            image_sizes=self.image_sizes,
            image_input_sizes=self.image_input_sizes,
            coord_mode=self.coord_mode,
            answer_type=self.answer_type,
        )


def is_passed(completion: Completion, function: str) -> bool | None:
    """Say whether a graded completion reached the pass mark of its function; None where there is no such mark."""
    if function not in PASS_AT or completion.task_reward is None:
        return None
    return completion.task_reward >= PASS_AT[function] - ROUNDING


def _completion(values: Any) -> Completion:
    _check_keys(values, Completion)
    return Completion(**values)


def _check_keys(values: Any, record: type[Completion] | type[EvaluatedSample]) -> None:
    known = {item.name for item in fields(record)}
    if not isinstance(values, dict):
        raise DataError(f"{record.__name__} is {type(values).__name__}; a JSON object is needed")
    if values.keys() != known:
        missing, unknown = sorted(known - values.keys()), sorted(values.keys() - known)
        raise DataError(
            f"{record.__name__} lacks {missing} and has unknown {unknown}; write it again with this version"
        )
