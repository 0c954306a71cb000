"""Captions: mean BMAS, with the length against the reference and the repeated 4-grams that would betray its gaming.

There is no official scorer: `official` and `strict` are both the task reward. BMAS sees neither order nor facts, so a
mean that rises together with length ratio or repetition is a warning, not a success.
"""

from orchestration.evaluate.presets.answer_text import UNANSWERED, bare_answer
from orchestration.evaluate.presets.base import Preset, RowScore, mean_of
from orchestration.workers.answers import Completion, EvaluatedSample
from rewards.bmas import duplicate_frac


def _score(sample: EvaluatedSample, completion: Completion) -> RowScore | None:
    reference = sample.answer.split()
    if completion.task_reward is None or not reference:
        return None
    answer = bare_answer(completion.text)
    words = [] if answer == UNANSWERED else answer.casefold().split()
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return RowScore(
        official=completion.task_reward,
        strict=completion.task_reward,
        columns={
            "length_ratio": len(words) / len(reference),
            "duplicates": duplicate_frac([numbers[word] for word in words]),
            "unreadable": float(completion.is_unreadable),
        },
    )


CAPTIONS = Preset(
    name="captions",
    summary="mean BMAS with length ratio and share of repeated 4-grams, both in words",
    tasks=frozenset({"open"}),
    score=_score,
    metrics={
        "bmas": mean_of("official"),
        "length_ratio": mean_of("length_ratio", is_share=False),
        "duplicate_4gram_frac": mean_of("duplicates"),
        "unreadable_frac": mean_of("unreadable"),
    },
)
