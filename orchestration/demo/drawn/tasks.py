"""Samples of a mixture of tasks, and the split of each drawing."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from orchestration.demo.drawn.pictures import Chart, Scene, encode_png, random_chart, random_scene
from orchestration.demo.drawn.questions import (
    DemoSample,
    Question,
    ask_box,
    ask_caption,
    ask_chart,
    ask_choice,
    ask_yes_no,
    make_sample,
)
from orchestration.settings.demo import SIDE

Split = Literal["train", "held_out"]

TASK_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"match_yesno": 0.15, "match_mcq": 0.15, "chart": 0.3, "iou": 0.2, "open": 0.2}
)
"""Default share of each task."""

WARM_START_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"match_yesno": 0.2, "match_mcq": 0.2, "chart": 0.3, "iou": 0.25, "open": 0.05}
)
"""Share of each task in the warm start: less of what is learned quickly, so that no task is solved before training."""

HELD_OUT_SHARE = 8
"""One of this many drawings is held out."""

MAX_QUESTION_DRAWS = 16
"""Extra attempts to find different questions about a picture."""

_SCENE_QUESTIONS = {"match_yesno": ask_yes_no, "match_mcq": ask_choice, "iou": ask_box, "open": ask_caption}


def generate_samples(
    *,
    seed: int,
    split: Split,
    num_samples: int,
    weights: Mapping[str, float] = TASK_WEIGHTS,
    questions_per_picture: int = 1,
    in_words: bool = False,
) -> Iterator[DemoSample]:
    """Draw samples, which depend on the arguments alone.

    The split of a drawing depends on its digest, so that no drawing is in both splits, whatever the seed.

    Args:
        seed: Seed of the drawings and questions.
        split: Split of the drawings.
        num_samples: Number of samples.
        weights: Relative share by task; other tasks do not occur.
        questions_per_picture: Consecutive samples that share one picture, if it allows so many questions.
        in_words: Begin each question with a description of the drawing, in place of its picture; there are no boxes
            then.

    Yields:
        Samples without repetition of picture and question.

    Raises:
        ValueError: If a task is unknown or no weight is positive.
    """
    known = {*_SCENE_QUESTIONS, "chart"}
    if not set(weights) <= known or min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"demo task weights are {dict(weights)}; name {', '.join(sorted(known))} with shares above 0")
    if in_words:
        weights = {task: share for task, share in weights.items() if task != "iou"}
    seen: set[str] = set()
    attempt = 0
    while len(seen) < num_samples:
        rng = random.Random(f"mixed-r1/demo/{seed}/{split}/{attempt}")
        attempt += 1
        drawing, questions = _draw(weights, questions_per_picture, rng)
        if split_of(drawing.digest) != split:
            continue
        image_png = None if in_words else encode_png(drawing.draw())
        for question in questions[: num_samples - len(seen)]:
            if in_words:
                question = replace(question, question=f"{drawing.description}. {question.question}")
            sample = make_sample(question, image_png=image_png, image_size=(SIDE, SIDE), scene_digest=drawing.digest)
            if sample.sample_id not in seen:
                seen.add(sample.sample_id)
                yield sample


def split_of(scene_digest: str) -> Split:
    """Return the split of a drawing."""
    return "held_out" if int(scene_digest[:8], 16) % HELD_OUT_SHARE == 0 else "train"


def _draw(weights: Mapping[str, float], num_questions: int, rng: random.Random) -> tuple[Scene | Chart, list[Question]]:
    """Return one drawing and different questions about it; the task of the first decides what is drawn."""
    first = rng.choices(list(weights), list(weights.values()))[0]
    if first == "chart":
        chart = random_chart(rng)
        return chart, _different(lambda: ask_chart(chart, rng), num_questions)
    scene = random_scene(rng)
    tasks = [task for task in weights if task != "chart"]
    shares = [weights[task] for task in tasks]
    upcoming = iter([first])

    def ask() -> Question:
        return _SCENE_QUESTIONS[next(upcoming, None) or rng.choices(tasks, shares)[0]](scene, rng)

    return scene, _different(ask, num_questions)


def _different(ask: Callable[[], Question], num_questions: int) -> list[Question]:
    """Ask until there are enough questions of different text."""
    found: dict[str, Question] = {}
    for _ in range(num_questions + MAX_QUESTION_DRAWS):
        if len(found) == num_questions:
            break
        asked = ask()
        found.setdefault(asked.question, asked)
    return list(found.values())
