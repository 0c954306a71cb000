"""The mixture: which task comes next, what is drawn for it, and which split the drawing belongs to."""

import random
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from orchestration.demo.captions import ask_caption
from orchestration.demo.charts import ask_chart, random_chart
from orchestration.demo.drawing import SIDE, encode_png
from orchestration.demo.grounding import ask_box
from orchestration.demo.matching import ask_choice, ask_yes_no
from orchestration.demo.samples import DemoSample, make_sample
from orchestration.demo.scenes import random_scene

Split = Literal["train", "held_out"]

TASK_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"match_yesno": 0.15, "match_mcq": 0.15, "chart": 0.3, "iou": 0.2, "open": 0.2}
)
"""Share of each task where the caller sets none."""

HELD_OUT_SHARE = 8
"""One drawing in so many is held out."""

_SCENE_QUESTIONS = {"match_yesno": ask_yes_no, "match_mcq": ask_choice, "iou": ask_box, "open": ask_caption}


def generate_samples(
    *, seed: int, split: Split, num_samples: int, weights: Mapping[str, float] = TASK_WEIGHTS
) -> Iterator[DemoSample]:
    """Draw samples, each a pure function of (seed, split, weights, position).

    The split of a drawing is decided by its digest alone, so that no seed puts it into both splits.

    Args:
        seed: Any integer; another seed draws other samples.
        split: `train` or `held_out`.
        num_samples: How many.
        weights: Relative share by task; tasks that are not named do not occur.

    Yields:
        Samples without repetition of picture and question.

    Raises:
        ValueError: If a task is unknown or no weight is positive.
    """
    known = {*_SCENE_QUESTIONS, "chart"}
    if not set(weights) <= known or min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"demo task weights are {dict(weights)}; name {', '.join(sorted(known))} with shares above 0")
    tasks, shares = list(weights), list(weights.values())
    seen: set[str] = set()
    attempt = 0
    while len(seen) < num_samples:
        rng = random.Random(f"mixed-r1/demo/{seed}/{split}/{attempt}")
        attempt += 1
        task = rng.choices(tasks, shares)[0]
        sample = _draw_sample(task, split, rng)
        if sample is not None and sample.sample_id not in seen:
            seen.add(sample.sample_id)
            yield sample


def split_of(scene_digest: str) -> Split:
    """Give the split that a drawing belongs to."""
    return "held_out" if int(scene_digest[:8], 16) % HELD_OUT_SHARE == 0 else "train"


def _draw_sample(task: str, split: Split, rng: random.Random) -> DemoSample | None:
    """Give one sample, or None where the drawing belongs to the other split."""
    drawing = random_chart(rng) if task == "chart" else random_scene(rng)
    if split_of(drawing.digest) != split:
        return None
    question = ask_chart(drawing, rng) if task == "chart" else _SCENE_QUESTIONS[task](drawing, rng)
    return make_sample(
        question, image_png=encode_png(drawing.draw()), image_size=(SIDE, SIDE), scene_digest=drawing.digest
    )
