"""POPE and other yes-or-no sets: accuracy, precision, recall and F1 with yes as the positive class, and the yes-ratio.

An unreadable answer is wrong, and for a yes question a missed yes. Public scorers differ here: POPE's own takes
whatever holds no negation for a yes, lmms-eval leaves unreadable answers out of recall. `official_accuracy` is
VLMEvalKit's: the words of the answer hold a yes and no no, or the reverse. Ours wants the label as the first word.

Source:
    Li et al., 2023, Evaluating Object Hallucination in Large Vision-Language Models (POPE).
"""

import re

from orchestration.evaluate.presets.answer_text import bare_answer
from orchestration.evaluate.presets.base import Preset, RowScore, mean_of
from orchestration.evaluate.presets.statistics import Ratio
from orchestration.workers.answers import ROUNDING, Completion, EvaluatedSample
from rewards.yes_no import read_yes_no

MAX_CHARS = 256
_WORD = re.compile(r"[^\W_]+")


def _score(sample: EvaluatedSample, completion: Completion) -> RowScore | None:
    truth, _ = read_yes_no(sample.answer)
    if truth is None or completion.task_reward is None:
        return None
    answer = bare_answer(completion.text)
    label = read_yes_no(answer)[0] if len(answer) <= MAX_CHARS else None
    words = _WORD.findall(answer.lower())
    by_words = None if ("yes" in words) is ("no" in words) else "yes" in words
    return RowScore(
        official=float(by_words is truth),
        strict=float(completion.task_reward >= 1.0 - ROUNDING),
        columns={
            "correct": float(label is truth),
            "tp": float(truth and label is True),
            "fp": float(not truth and label is True),
            "fn": float(truth and label is not True),
            "yes": float(label is True),
            "unreadable": float(label is None),
        },
    )


def _groups(sample: EvaluatedSample) -> list[str]:
    """POPE's categories are random, popular and adversarial; a row may be of several, divided by commas."""
    return [f"category {name.strip()}" for name in sample.metadata.get("category", "").split(",") if name.strip()]


POPE = Preset(
    name="pope",
    summary="yes or no: accuracy, precision, recall and F1 of yes, and the yes-ratio, by category",
    tasks=frozenset({"match_yesno"}),
    score=_score,
    groups=_groups,
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
