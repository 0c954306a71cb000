"""Mixed-Reward as it is trained with, by task and by source: the preset for data that is no public benchmark."""

from orchestration.evaluate.presets.base import Preset, RowScore, mean_of
from orchestration.workers.answers import Completion, EvaluatedSample


def _score(sample: EvaluatedSample, completion: Completion) -> RowScore | None:
    if completion.task_reward is None or completion.reward is None:
        return None
    return RowScore(
        official=completion.task_reward,
        strict=completion.task_reward,
        columns={
            "reward": completion.reward,
            "format": completion.format_reward,
            "unreadable": float(completion.is_unreadable),
        },
    )


MIXED = Preset(
    name="mixed",
    summary="the training reward, its task part and its format part, by task and source",
    tasks=frozenset(),
    score=_score,
    groups=lambda sample: (f"task {sample.task}", f"source {sample.source}"),
    metrics={
        "task_reward": mean_of("official"),
        "reward": mean_of("reward"),
        "format": mean_of("format"),
        "unreadable_frac": mean_of("unreadable"),
    },
)
