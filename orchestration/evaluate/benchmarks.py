"""The presets of `evaluate.preset`: ChartQA, RefCOCO, multiple choice, yes or no (POPE), captions.

A preset has the rules of a benchmark: which rows it scores, how an answer is scored, and the metrics.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from conf.ranges import nearest
from orchestration.evaluate.statistics import Estimate, Ratio, mean_of
from orchestration.evaluate.summary import Columns, SummarySettings, estimate_rows
from orchestration.settings.errors import ConfigError
from orchestration.workers.answers import (
    ROUNDING,
    UNANSWERED,
    Completion,
    EvaluatedSample,
    bare_answer,
    marked_answer,
    model_boxes,
    reference_boxes,
)
from rewards.core.base import GoldError, Reason
from rewards.core.config import DEFAULT_FORMAT, FormatConfig
from rewards.functions.bmas import duplicate_frac
from rewards.functions.grounding import iou
from rewards.text.choices import Choices
from rewards.text.yes_no import read_yes_no

MAX_RELATIVE_ERROR = 0.05
"""Tolerance of ChartQA's relaxed accuracy."""
IOU_THRESHOLD = 0.5
MAX_CHARS = 256
"""Longer answers to multiple choice and yes or no count as unreadable, as in the reward."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Scoring rules of a benchmark."""

    name: str
    summary: str
    """One sentence that describes it to a user."""
    tasks: frozenset[str]
    """Tasks whose rows it scores."""
    score: Callable[[EvaluatedSample, Completion, FormatConfig], Columns | None]
    """Returns the columns of a graded completion; None if the reference cannot be read. Each row has two: `official`,
    by the rule of the benchmark's usual scorer on the answer without tags, and `strict`, by the reward of the training,
    in which format and hedging matter; both in [0, 1]."""
    metrics: Mapping[str, Ratio]
    """By name, the main one first."""
    accepts: Callable[[EvaluatedSample], bool] = lambda sample: True
    """Returns whether a row of its tasks can be scored."""
    groups: Callable[[EvaluatedSample], Sequence[str]] = lambda sample: ()
    """Returns the names of the groups of the table that a row also belongs to."""

    def takes(self, sample: EvaluatedSample) -> bool:
        """Return whether the preset scores the row."""
        return sample.task in self.tasks and self.accepts(sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetResult:
    """Results of a preset."""

    preset: str
    num_rows: int
    """Scored rows."""
    num_skipped: int
    """Rows that the preset does not score."""
    num_failed: int
    """Rows without a score: engine, grader or reference failed."""
    metrics: Mapping[str, Estimate]
    """Metrics of all scored rows; empty if there are none."""
    groups: Mapping[str, Mapping[str, Estimate]]
    """Metrics by group."""


def apply_preset(
    preset: Preset,
    samples: Iterable[EvaluatedSample],
    settings: SummarySettings | None = None,
    form: FormatConfig = DEFAULT_FORMAT,
) -> PresetResult:
    """Score all rows that the preset accepts: the greedy completion, or else the mean of the sampled ones.

    Args:
        preset: The rules.
        samples: Rows of any task.
        settings: Of the estimates.
        form: Form in which the model answered.
    """
    settings = settings or SummarySettings()
    scored: list[tuple[EvaluatedSample, Columns]] = []
    parts: dict[str, list[tuple[EvaluatedSample, Columns]]] = defaultdict(list)
    num_skipped = num_failed = 0
    for sample in samples:
        if not preset.takes(sample):
            num_skipped += 1
        elif (columns := row_columns(preset, sample, form)) is None:
            num_failed += 1
        else:
            scored.append((sample, columns))
            for group in preset.groups(sample):
                parts[group].append((sample, columns))

    def estimates(rows: Sequence[tuple[EvaluatedSample, Columns]]) -> dict[str, Estimate]:
        present = {name for _, columns in rows for name in columns}
        metrics = {name: metric for name, metric in preset.metrics.items() if present & metric.numerator.keys()}
        return estimate_rows(metrics, rows, settings)

    return PresetResult(
        preset=preset.name,
        num_rows=len(scored),
        num_skipped=num_skipped,
        num_failed=num_failed,
        metrics=estimates(scored),
        groups={group: estimates(parts[group]) for group in sorted(parts)},
    )


def row_columns(
    preset: Preset, sample: EvaluatedSample, form: FormatConfig = DEFAULT_FORMAT
) -> dict[str, float] | None:
    """Return the columns of a row, and `rows`, which is 1; None if the row cannot be scored."""
    completions = sample.sampled if sample.greedy is None else (sample.greedy,)
    graded = [completion for completion in completions if completion.task_reward is not None]
    scores = [score for completion in graded if (score := preset.score(sample, completion, form)) is not None]
    if sample.failure is not None or not scores:
        return None
    sums: dict[str, float] = defaultdict(float)
    for score in scores:
        for name, value in score.items():
            sums[name] += value / len(scores)
    return {**sums, "rows": 1.0}


def _metadata_groups(sample: EvaluatedSample, *keys: str) -> list[str]:
    return [f"{key} {sample.metadata[key]}" for key in keys if key in sample.metadata]


def _has_full_reward(completion: Completion) -> float:
    return float((completion.task_reward or 0.0) >= 1.0 - ROUNDING)


def relaxed_match(prediction: str, target: str) -> bool:
    """Return whether the relaxed accuracy of public scorers accepts the prediction.

    Example:
        >>> relaxed_match("2010", "2015"), relaxed_match("1,000", "1000"), relaxed_match("12%", "0.12")
        (True, False, True)
    """
    number, reference = _number(prediction), _number(target)
    if number is None or not reference:
        return prediction.lower() == target.lower()
    return abs(number - reference) / abs(reference) <= MAX_RELATIVE_ERROR


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _score_chartqa(sample: EvaluatedSample, completion: Completion, form: FormatConfig) -> Columns | None:
    """Score ChartQA by the relaxed accuracy of public scorers, and by our chart reward (`strict`).

    The public rule (pix2struct, VLMEvalKit, lmms-eval) reads both sides as Python floats, a trailing % dividing by 100.
    If both are numbers and the reference is not 0, the relative error may be 5 %; otherwise the texts must be equal,
    ignoring case. It therefore accepts wrong years (2010 for 2015), and refuses `1,000` for 1000, `$12` for 12 and
    `0.0` for 0. The chart reward does the opposite in all of these cases.

    Source:
        Masry et al., 2022, ChartQA, section 5.1; Methani et al., 2020, PlotQA.
    """
    return {
        "official": float(relaxed_match(bare_answer(completion.text, form), sample.answer)),
        "strict": _has_full_reward(completion),
        "unreadable": float(completion.is_unreadable),
    }


def _chartqa_groups(sample: EvaluatedSample) -> list[str]:
    """Return the groups of human and augmented questions, which ChartQA reports separately."""
    return _metadata_groups(sample, "split", "type")


CHARTQA = Preset(
    name="chartqa",
    summary="relaxed accuracy as the public scorers compute it, and the strict chart reward at 1",
    tasks=frozenset({"chart"}),
    score=_score_chartqa,
    groups=_chartqa_groups,
    metrics={
        "relaxed_accuracy": mean_of("official"),
        "strict_accuracy": mean_of("strict"),
        "unreadable_frac": mean_of("unreadable"),
    },
)


def _score_refcoco(sample: EvaluatedSample, completion: Completion, form: FormatConfig) -> Columns | None:
    """Score RefCOCO, RefCOCO+ and RefCOCOg: whether the box has an IoU of at least 0.5 with the reference.

    Boxes are read in the model's own frame and compared in original pixels. A referring expression names one object, so
    several different boxes are wrong, and a malformed box counts as a different one (`accuracy`). `official` uses the
    first box, as public scorers do. `strict` also requires the box to be in the answer block.

    Rows whose reference is not exactly one box are skipped.
    """
    try:
        boxes = model_boxes(sample.request(completion.text), form)
    except GoldError:
        return None
    target = reference_boxes(sample.request())[0]
    overlaps = [0.0 if box is None else iou(box, target) for box in boxes]
    hits = [float(overlap >= IOU_THRESHOLD - ROUNDING) for overlap in overlaps]
    is_one = len(set(boxes)) == 1
    hit = hits[0] if is_one else 0.0
    return {
        "official": hits[0] if hits else 0.0,
        "strict": hit if marked_answer(completion.text, form) is not None else 0.0,
        "hit": hit,
        "iou": overlaps[0] if is_one else 0.0,
        "unreadable": float(not boxes),
        "several": float(len(set(boxes)) > 1),
    }


REFCOCO = Preset(
    name="refcoco",
    summary="share of boxes with IoU of at least 0.5 in original pixels; several different boxes are wrong",
    tasks=frozenset({"iou"}),
    score=_score_refcoco,
    accepts=lambda sample: len(reference_boxes(sample.request())) == 1,
    groups=lambda sample: _metadata_groups(sample, "split"),
    metrics={
        "accuracy": mean_of("hit"),
        "first_box_accuracy": mean_of("official"),
        "strict_accuracy": mean_of("strict"),
        "mean_iou": mean_of("iou"),
        "unreadable_frac": mean_of("unreadable"),
        "several_boxes_frac": mean_of("several"),
    },
)


def _score_mcq(sample: EvaluatedSample, completion: Completion, form: FormatConfig) -> Columns | None:
    """Score multiple choice (MMMU, AI2D, MMBench and similar), and count how often each letter is chosen and right.

    An answer that names no option is wrong, unlike in MMMU's own parser, which guesses an option at random. `official`
    reads the answer without tags, even if the model wrote none;
    `strict` is the reward, which requires the answer block. The letters show a model that always answers A.
    """
    try:
        choices = Choices(sample.options, sample.answer)
    except GoldError:
        return None
    answer = bare_answer(completion.text, form)
    grade = choices.grade(answer) if len(answer) <= MAX_CHARS else None
    # A hedge (`B. 14` if 14 is C) chooses nothing and counts as unreadable, as in the reward.
    chosen = [] if grade is None or grade.parsed is None or grade.reason is not Reason.OK else grade.parsed.split(", ")
    columns = {
        "official": 0.0 if grade is None or grade.value is None else grade.value,
        "strict": _has_full_reward(completion),
        "unreadable": float(not chosen),
    }
    for letter in sorted({*chosen, *choices.gold}):
        columns[f"chosen_{letter}"] = float(letter in chosen)
        columns[f"right_{letter}"] = float(letter in choices.gold)
    return columns


def _mcq_groups(sample: EvaluatedSample) -> list[str]:
    names = _metadata_groups(sample, "split", "category")
    return [*names, f"answer {sample.answer}"] if len(sample.answer) == 1 else names


MCQ = Preset(
    name="mcq",
    summary="accuracy of multiple choice without random guesses, and the balance of letters",
    tasks=frozenset({"match_mcq"}),
    score=_score_mcq,
    groups=_mcq_groups,
    metrics={
        "accuracy": mean_of("official"),
        "strict_accuracy": mean_of("strict"),
        "unreadable_frac": mean_of("unreadable"),
        **{
            f"{verb}_frac/{letter}": mean_of(f"{verb}_{letter}")
            for letter in ascii_uppercase
            for verb in ("chosen", "right")
        },
    },
)


def _score_pope(sample: EvaluatedSample, completion: Completion, form: FormatConfig) -> Columns | None:
    """Score POPE and other yes-or-no sets, with yes as the positive class.

    An unreadable answer is wrong, and a false negative for a yes question. Public scorers differ here: POPE's own takes
    any answer without a negation for a yes, lmms-eval omits unreadable answers from recall. `official_accuracy` is
    VLMEvalKit's: the answer contains the word yes and not the word no, or the reverse. Ours requires the label as the
    first word.

    Source:
        Li et al., 2023, Evaluating Object Hallucination in Large Vision-Language Models (POPE).
    """
    truth, _ = read_yes_no(sample.answer)
    if truth is None:
        return None
    answer = bare_answer(completion.text, form)
    label = read_yes_no(answer)[0] if len(answer) <= MAX_CHARS else None
    words = _WORD.findall(answer.lower())
    by_words = None if ("yes" in words) is ("no" in words) else "yes" in words
    return {
        "official": float(by_words is truth),
        "strict": _has_full_reward(completion),
        "correct": float(label is truth),
        "tp": float(truth and label is True),
        "fp": float(not truth and label is True),
        "fn": float(truth and label is not True),
        "yes": float(label is True),
        "unreadable": float(label is None),
    }


def _pope_groups(sample: EvaluatedSample) -> list[str]:
    """Return the POPE categories (random, popular, adversarial) of a row, separated by commas in its metadata."""
    return [f"category {name.strip()}" for name in sample.metadata.get("category", "").split(",") if name.strip()]


POPE = Preset(
    name="pope",
    summary="yes or no: accuracy, precision, recall and F1 of yes, and the yes-ratio, by category",
    tasks=frozenset({"match_yesno"}),
    score=_score_pope,
    groups=_pope_groups,
    metrics={
        "accuracy": mean_of("correct"),
        "f1": Ratio(numerator={"tp": 2.0}, denominator={"tp": 2.0, "fp": 1.0, "fn": 1.0}),
        "precision": Ratio(numerator={"tp": 1.0}, denominator={"tp": 1.0, "fp": 1.0}),
        "recall": Ratio(numerator={"tp": 1.0}, denominator={"tp": 1.0, "fn": 1.0}),
        "yes_ratio": mean_of("yes"),
        "unreadable_frac": mean_of("unreadable"),
        "official_accuracy": mean_of("official"),
        "strict_accuracy": mean_of("strict"),
    },
)


def _score_captions(sample: EvaluatedSample, completion: Completion, form: FormatConfig) -> Columns | None:
    """Score captions by BMAS, with the length relative to the reference and the share of repeated 4-grams.

    There is no official scorer: `official` and `strict` are both the task reward. BMAS ignores order and facts, so
    a mean that rises together with length ratio or repetition is a sign of reward hacking.
    """
    reference = sample.answer.split()
    if not reference:
        return None
    answer = bare_answer(completion.text, form)
    words = [] if answer == UNANSWERED else answer.casefold().split()
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return {
        "official": completion.task_reward or 0.0,
        "strict": completion.task_reward or 0.0,
        "length_ratio": len(words) / len(reference),
        "duplicates": duplicate_frac([numbers[word] for word in words]),
        "unreadable": float(completion.is_unreadable),
    }


CAPTIONS = Preset(
    name="captions",
    summary="mean BMAS with length ratio and share of repeated 4-grams, both in words",
    tasks=frozenset({"open"}),
    score=_score_captions,
    metrics={
        "bmas": mean_of("official"),
        "length_ratio": mean_of("length_ratio", is_share=False),
        "duplicate_4gram_frac": mean_of("duplicates"),
        "unreadable_frac": mean_of("unreadable"),
    },
)


PRESETS = {preset.name: preset for preset in (CHARTQA, REFCOCO, MCQ, POPE, CAPTIONS)}
MIXED = "mixed"
"""Value of `evaluate.preset` for data that is not a public benchmark."""


def preset_of(name: str) -> Preset | None:
    """Return the preset called `name`; None for `mixed`, the training reward, which every evaluation reports.

    Raises:
        ConfigError: There is none; names the nearest, or lists all.
    """
    if name == MIXED:
        return None
    if name not in PRESETS:
        if near := nearest(name.lower(), (MIXED, *PRESETS)):
            raise ConfigError(f"evaluate.preset={name} is not a preset; did you mean {near}?")
        summaries = {MIXED: "the training reward, its task part and its format part, by task and source"}
        summaries.update({preset.name: preset.summary for preset in PRESETS.values()})
        known = "; ".join(f"{known}: {summary}" for known, summary in summaries.items())
        raise ConfigError(f"evaluate.preset={name} is not a preset; use one of {known}")
    return PRESETS[name]
