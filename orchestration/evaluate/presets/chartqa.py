"""ChartQA: relaxed accuracy by the rule of the public scorers, and the strict reading of our chart reward beside it.

The public rule (pix2struct, VLMEvalKit, lmms-eval) reads both sides as Python floats, a trailing % dividing by 100.
Where the prediction is a number and the reference a number other than 0, the relative error may be 5 %; in all other
cases the texts must be equal but for case. It therefore forgives years (2010 for 2015), refuses `1,000` for 1000 and
`$12` for 12, and takes `0.0` for a wrong answer to 0. The strict reading is the other way round in all of these.

Source:
    Masry et al., 2022, ChartQA, section 5.1; Methani et al., 2020, PlotQA.
"""

from orchestration.evaluate.presets.answer_text import bare_answer
from orchestration.evaluate.presets.base import Preset, RowScore, mean_of
from orchestration.workers.answers import ROUNDING, Completion, EvaluatedSample

MAX_RELATIVE_ERROR = 0.05


def relaxed_match(prediction: str, target: str) -> bool:
    """Say whether the public scorers take the prediction for right.

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


def _score(sample: EvaluatedSample, completion: Completion) -> RowScore | None:
    if completion.task_reward is None:
        return None
    return RowScore(
        official=float(relaxed_match(bare_answer(completion.text), sample.answer)),
        strict=float(completion.task_reward >= 1.0 - ROUNDING),
        columns={"unreadable": float(completion.is_unreadable)},
    )


def _groups(sample: EvaluatedSample) -> list[str]:
    """ChartQA reports its human and its augmented questions apart."""
    return [f"{key} {sample.metadata[key]}" for key in ("split", "type") if key in sample.metadata]


CHARTQA = Preset(
    name="chartqa",
    summary="relaxed accuracy as the public scorers compute it, and the strict chart reward at 1",
    tasks=frozenset({"chart"}),
    score=_score,
    groups=_groups,
    metrics={
        "relaxed_accuracy": mean_of("official"),
        "strict_accuracy": mean_of("strict"),
        "unreadable_frac": mean_of("unreadable"),
    },
)
