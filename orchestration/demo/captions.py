"""Open-ended answers: a caption that names every shape of a scene in reading order."""

import random

from orchestration.demo.drawing import COLOURS
from orchestration.demo.samples import Question, Solution
from orchestration.demo.scenes import QUARTERS, SHAPES, SIZES, Scene, Shape


def ask_caption(scene: Scene, rng: random.Random) -> Question:
    """Ask for a description of the whole scene."""
    text = rng.choice(
        ("Describe the picture.", "What does the picture show?", "Write a caption.", "List all shapes that you see.")
    )
    phrases = [_phrase(item) for item in scene.shapes]
    return Question(
        source="demo/scene",
        task="open",
        text=text,
        solution=_solution(scene, phrases),
        slips=tuple(_solution(scene, wrong) for wrong in _careless(scene, rng)),
    )


def _phrase(item: Shape) -> str:
    return f"a {item.size} {item.colour} {item.shape} {item.quarter}"


def _solution(scene: Scene, phrases: list[str]) -> Solution:
    return Solution(think=scene.description, answer=", ".join(phrases))


def _careless(scene: Scene, rng: random.Random) -> list[list[str]]:
    """Give captions that stop after the first shape, swap a shape for one that is not there, or repeat one."""
    phrases = [_phrase(item) for item in scene.shapes]
    spot = rng.randrange(len(phrases))
    absent = sorted(set(COLOURS) - {item.colour for item in scene.shapes})
    stranger = f"a {rng.choice(sorted(SIZES))} {rng.choice(absent)} {rng.choice(SHAPES)} {rng.choice(QUARTERS)}"
    swapped = [*phrases[:spot], stranger, *phrases[spot + 1 :]]
    return [phrases[:1], swapped, [phrases[spot]] * len(phrases)]
