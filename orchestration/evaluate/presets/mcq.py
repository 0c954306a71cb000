"""Multiple choice (MMMU, AI2D, MMBench and their like): accuracy, and how often each letter is chosen and right.

An answer that names no option is wrong; nothing is drawn at random for it, unlike in MMMU's own parser, which adds
about one in the number of options to such answers. `official` reads the answer without tags, also where the model
wrote none; `strict` is the reward, which wants the answer block. A model that always says A shows in the letters.
"""

from string import ascii_uppercase

from orchestration.evaluate.presets.answer_text import bare_answer
from orchestration.evaluate.presets.base import Preset, RowScore, mean_of
from orchestration.workers.answers import ROUNDING, Completion, EvaluatedSample
from rewards.base import GoldError, Reason
from rewards.choices import Choices

MAX_CHARS = 256
"""Longer answers are prose that names many things; they count as unreadable, as in the reward."""


def _score(sample: EvaluatedSample, completion: Completion) -> RowScore | None:
    if completion.task_reward is None:
        return None
    try:
        choices = Choices(sample.options, sample.answer)
    except GoldError:
        return None
    answer = bare_answer(completion.text)
    grade = choices.grade(answer) if len(answer) <= MAX_CHARS else None
    # A hedge (`B. 14` where 14 is C) chooses nothing: it counts as unreadable, as in the reward's reasons.
    chosen = [] if grade is None or grade.parsed is None or grade.reason is not Reason.OK else grade.parsed.split(", ")
    columns = {"unreadable": float(not chosen)}
    for letter in sorted({*chosen, *choices.gold}):
        columns[f"chosen_{letter}"] = float(letter in chosen)
        columns[f"right_{letter}"] = float(letter in choices.gold)
    return RowScore(
        official=0.0 if grade is None or grade.value is None else grade.value,
        strict=float(completion.task_reward >= 1.0 - ROUNDING),
        columns=columns,
    )


def _groups(sample: EvaluatedSample) -> list[str]:
    names = [f"{key} {sample.metadata[key]}" for key in ("split", "category") if key in sample.metadata]
    return [*names, f"answer {sample.answer}"] if len(sample.answer) == 1 else names


MCQ = Preset(
    name="mcq",
    summary="accuracy of multiple choice without random guesses, and the balance of letters",
    tasks=frozenset({"match_mcq"}),
    score=_score,
    groups=_groups,
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
