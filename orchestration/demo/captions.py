"""Open-ended answers: a caption that names every shape of a scene in reading order."""

import random

from orchestration.demo.drawing import COLOURS
from orchestration.demo.samples import Question, Solution
from orchestration.demo.scenes import QUARTERS, SHAPES, SIZES, Scene


def ask_caption(scene: Scene, rng: random.Random) -> Question:
    """Ask for a description of the whole scene."""
    text = rng.choice(
        ("Describe the picture.", "What does the picture show?", "Write a caption.", "List all shapes that you see.")
    )
    phrases = [item.description for item in rng.sample(scene.shapes, len(scene.shapes))]
    return Question(
        source="demo/scene",
        task="open",
        text=text,
        solution=_solution(phrases),
        slips=tuple(_solution(wrong) for wrong in _careless(scene, rng)),
    )


def _solution(phrases: list[str]) -> Solution:
    return Solution(think=f"{len(phrases)} shapes", answer=", ".join(phrases))


def _careless(scene: Scene, rng: random.Random) -> list[list[str]]:
    """Give captions that stop after the first shape, swap a shape for one that is not there, or repeat one."""
    phrases = [item.description for item in scene.shapes]
    spot = rng.randrange(len(phrases))
    absent = sorted(set(COLOURS) - {item.colour for item in scene.shapes})
    stranger = f"{rng.choice(absent)} {rng.choice(QUARTERS)} {rng.choice(sorted(SIZES))} {rng.choice(SHAPES)}"
    swapped = [*phrases[:spot], stranger, *phrases[spot + 1 :]]
    return [phrases[:1], swapped, [phrases[spot]] * len(phrases)]
