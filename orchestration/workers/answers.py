"""EvaluatedSample: one held-out row with the model's answers and their rewards; a line of predictions.jsonl."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from orchestration.settings.errors import DataError
from rewards.core.base import GoldError, Reason, RewardRequest
from rewards.core.config import DEFAULT_FORMAT, FUNCTION_NAMES, FormatConfig
from rewards.core.envelope import after_thinking, extract_answer, strip_end_of_turn
from rewards.core.frames import Box, clip, to_pixels
from rewards.text.boxes import parse_boxes

Part = Literal["task", "source", "function"]
"""Fields of a row by which results are split."""
Size = tuple[int, int]
"""(width, height) in pixels."""

PASS_AT = {
    "matching": 1.0, "chart": 1.0, "math": 1.0, "counting": 1.0, "reading": 1.0, "pointing": 1.0, "grounding": 0.5,
}  # fmt: skip
"""Task reward from which a completion counts as passed, by reward function; open-ended text and sums neither pass nor
fail. 0.5 for boxes is the IoU that detection and RefCOCO call a hit."""
OWN_PASS_AT = 1.0
"""For functions of the user's."""
ROUNDING = 1e-9
"""Rewards are sums of floats; one that misses its threshold by less than this has reached it."""

UNANSWERED = "[unanswered]"
"""Written in place of a missing answer. An empty cell would be read back as NaN, and `no answer` as a no."""
MAX_BOX_CHARS = 20_000
"""Longer answers are searched for boxes up to here; one box needs a few dozen characters."""

WRITTEN_IF_ANY = frozenset({"parts", "counts", "history"})
"""Fields that a line of JSON has only where they hold something."""

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
    """How the answer was read, a value of rewards.core.base.Reason."""
    parsed_answer: str | None
    """The answer as the reward read it."""
    num_tokens: int
    """Tokens of the completion, end-of-turn token included."""
    truncated: bool
    """Whether sampling stopped at the limit, without an end-of-turn token."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Of a sum: each function and the format with its unweighted value, before gates; else empty."""

    def __post_init__(self) -> None:
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
    """One row of an evaluation and its completions, without image bytes.

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
    """Reward function that scored it, one of ours or of the user's own; those of a sum are joined: chart+mine."""
    question: str
    answer: str
    """The reference; boxes as JSON in original pixels."""
    greedy: Completion | None
    """The completion at temperature 0; None where none was asked for, or the row failed."""
    source_id: str = ""
    """The row's name inside its source; what other toolkits call index or doc_id."""
    history: tuple[tuple[str, str], ...] = ()
    """(role, text) of the turns before the question."""
    options: tuple[str, ...] = ()
    """Option texts in the order A, B, C, ..."""
    answer_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the source: category, split, original image."""
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
    counts: Mapping[str, float] = field(default_factory=dict)
    """What judges were asked about its completions and what it cost, by name of a metric; empty without a judge."""

    def to_json(self) -> str:
        """Return one line of JSON without its line break, in ASCII, so that no character of a completion ends it."""
        values = asdict(self)
        for record in (values, *values["sampled"], values["greedy"] or {}):
            for name in WRITTEN_IF_ANY & record.keys():
                if not record[name]:
                    del record[name]
        return json.dumps(values, allow_nan=False, sort_keys=True)

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
        values["history"] = tuple((role, text) for role, text in values.get("history", ()))
        values["greedy"] = None if values["greedy"] is None else _completion(values["greedy"])
        values["sampled"] = tuple(map(_completion, values["sampled"]))
        return cls(**values)

    def graded(self) -> tuple[Completion, ...]:
        """Return the sampled completions that have a reward."""
        return tuple(completion for completion in self.sampled if completion.task_reward is not None)

    def request(self, response: str = "") -> RewardRequest:
        """Return the row as the rewards read it, with a completion's text as `response`."""
        return RewardRequest(
            task=self.task,
            question=self.question,
            history=self.history,
            response=response,
            answer=self.answer,
            options=self.options,
            source=self.source,
            image_sizes=self.image_sizes,
            image_input_sizes=self.image_input_sizes,
            coord_mode=self.coord_mode,
            answer_type=self.answer_type,
            metadata=self.metadata,
        )


def is_passed(completion: Completion, function: str) -> bool | None:
    """Return whether a graded completion reached the threshold of its function; None where there is no threshold."""
    least = PASS_AT.get(function)
    if least is None and function not in FUNCTION_NAMES and "+" not in function:
        least = OWN_PASS_AT
    if least is None or completion.task_reward is None:
        return None
    return completion.task_reward >= least - ROUNDING


def _completion(values: Any) -> Completion:
    _check_keys(values, Completion)
    return Completion(**values)


def _check_keys(values: Any, record: type[Completion] | type[EvaluatedSample]) -> None:
    known = {item.name for item in fields(record)}
    if not isinstance(values, dict):
        raise DataError(f"{record.__name__} is {type(values).__name__}; a JSON object is needed")
    missing, unknown = sorted(known - WRITTEN_IF_ANY - values.keys()), sorted(values.keys() - known)
    if missing or unknown:
        raise DataError(
            f"{record.__name__} lacks {missing} and has unknown {unknown}; write it again with this version"
        )


def row_metrics(sample: EvaluatedSample, pass_ks: Sequence[int] = ()) -> dict[str, float]:
    """Return the value of every metric that a row has.

    `greedy/...` is the greedy completion; `sampled/...` the mean over the graded sampled ones (mean@k with k as many
    as were sampled); `pass@k` the unbiased estimate from them. A completion without a reward counts in no metric.

    Example:
        >>> right, wrong = (Completion(text="", reward=r, task_reward=r, format_reward=1.0, reason="ok",
        ...                            parsed_answer=None, num_tokens=3, truncated=False) for r in (1.0, 0.0))
        >>> sample = EvaluatedSample(sample_id="a", source="s", task="chart", function="chart", question="", answer="",
        ...                          greedy=None, sampled=(right, wrong))
        >>> row_metrics(sample, (2,))["sampled/reward"], row_metrics(sample, (2,))["pass@2"]
        (0.5, 1.0)
    """
    if sample.failure is not None:
        return {}
    metrics: dict[str, float] = {}
    if sample.greedy is not None and sample.greedy.task_reward is not None:
        metrics.update(_means("greedy", [sample.greedy]))
    graded = sample.graded()
    if graded:
        metrics.update(_means("sampled", graded))
    passes = [is_passed(completion, sample.function) for completion in graded]
    if None not in passes:
        metrics.update(
            {f"pass@{k}": pass_at_k(len(passes), passes.count(True), k) for k in pass_ks if k <= len(passes)}
        )
    return metrics


def _means(name: str, completions: Sequence[Completion]) -> dict[str, float]:
    return {
        f"{name}/task_reward": fmean(completion.task_reward or 0.0 for completion in completions),
        f"{name}/reward": fmean(completion.reward or 0.0 for completion in completions),
        f"{name}/format": fmean(completion.format_reward for completion in completions),
        f"{name}/truncated_frac": fmean(completion.truncated for completion in completions),
        f"{name}/unreadable_frac": fmean(completion.is_unreadable for completion in completions),
        f"{name}/num_tokens": fmean(completion.num_tokens for completion in completions),
    }


def split_rows(samples: Iterable[EvaluatedSample], part: Part) -> dict[str, list[EvaluatedSample]]:
    """Return the rows by one of their fields, names in order."""
    groups: dict[str, list[EvaluatedSample]] = defaultdict(list)
    for sample in samples:
        groups[getattr(sample, part)].append(sample)
    return {name: groups[name] for name in sorted(groups)}


def pass_at_k(num_completions: int, num_passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k completions passes.

    Args:
        num_completions: n, completions that were sampled.
        num_passed: c, how many of them passed.
        k: At most n.

    Returns:
        1 - C(n - c, k) / C(n, k), as the product of 1 - k / i over i = n - c + 1 .. n, which overflows nowhere.

    Source:
        Chen et al., 2021, Evaluating Large Language Models Trained on Code, equation 1 and figure 3.

    Example:
        >>> round(pass_at_k(4, 1, 2), 6)  # 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6
        0.5
    """
    if not 1 <= k <= num_completions or not 0 <= num_passed <= num_completions:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n; got n={num_completions}, c={num_passed}, k={k}")
    failed = num_completions - num_passed
    if failed < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(failed + 1, num_completions + 1)))


def bare_answer(text: str, form: FormatConfig = DEFAULT_FORMAT) -> str:
    """Return the answer of a completion without its marks, for a scorer that knows none.

    The marked answer, if there is one; else what follows the last think block, without tags. Two answer blocks come out
    one behind the other, so that a hedge stays a hedge. Thinking that never ended is no answer.

    Example:
        >>> bare_answer("<think>a</think><answer>B</answer>"), bare_answer("So it is B."), bare_answer("<think>B")
        ('B', 'So it is B.', '[unanswered]')
    """
    body = marked_answer(text, form)
    if body is None:
        body, _ = after_thinking(text, replace(form, think_prefilled=False))
    for tag in (form.answer_open, form.answer_close, form.think_open, form.think_close):
        body = body.replace(tag, " ")
    return strip_end_of_turn(body) or UNANSWERED


def marked_answer(text: str, form: FormatConfig = DEFAULT_FORMAT) -> str | None:
    """Return the answer that a completion marks as its form asks, whoever opened its thought; None without one."""
    return extract_answer(text, replace(form, think_prefilled=False, fallback="none")).text


def reference_boxes(request: RewardRequest) -> list[Box]:
    """Return the reference boxes in original pixels, clipped to the image; unusable ones are left out."""
    boxes = [entry.box and clip(entry.box, request) for entry in parse_boxes(request.answer) or []]
    return [box for box in boxes if box is not None]


def model_boxes(request: RewardRequest, form: FormatConfig = DEFAULT_FORMAT) -> list[Box | None]:
    """Return the boxes of the response in original pixels, clipped to the image; None for each malformed one.

    Raises:
        GoldError: The request lacks the image size that its frame needs.
    """
    entries = parse_boxes(bare_answer(request.response, form)[:MAX_BOX_CHARS]) or []
    return [entry.box and to_pixels(entry.box, request) for entry in entries]


def drawable_boxes(request: RewardRequest, form: FormatConfig = DEFAULT_FORMAT) -> dict[str, list[Box]]:
    """Return the usable boxes, `reference` and `given`; none are given where the frame needs a missing image size."""
    try:
        given = [box for box in model_boxes(request, form) if box is not None]
    except GoldError:
        given = []
    return {"reference": reference_boxes(request), "given": given}
