"""Referring expressions: which shape is meant, and the box around it in pixels."""

import dataclasses
import json
import random

from orchestration.demo.samples import DemoSample, Question, Solution
from orchestration.demo.scenes import Scene, Shape
from orchestration.settings.demo import CELL, SIDE, FrameName


def ask_box(scene: Scene, rng: random.Random) -> Question:
    """Ask for the box of one shape, named so that no other shape fits."""
    item = rng.choice(scene.shapes)
    text = rng.choice(("Where is {}? Give its box.", "Find {}.", "Give the box of {}.", "Locate {}."))
    others = [other for other in scene.shapes if other is not item]
    think = f"{scene.description}; {item.description}"
    slips = [Solution(think=think, answer=as_json(_shift(item.box, rng)))]
    slips += [Solution(think=f"{scene.description}; {o.description}", answer=as_json(o.box)) for o in others]
    return Question(
        source="demo/refer",
        task="iou",
        text=text.format(rng.choice(expressions(scene, item))),
        solution=Solution(think=think, answer=as_json(item.box)),
        slips=tuple(slips),
    )


def as_json(box: tuple[int, int, int, int]) -> str:
    """Give a box as the JSON list that the grounding reward reads.

    Example:
        >>> as_json((0, 28, 56, 84))
        '[0, 28, 56, 84]'
    """
    return json.dumps(list(box))


def with_boxes_in(frame: FrameName, sample: DemoSample) -> DemoSample:
    """Give the sample with demonstrations that write boxes in `frame`; its reference stays in pixels."""
    if sample.task != "iou" or frame == "pixel_resized":  # drawings are never resized
        return sample
    return dataclasses.replace(
        sample,
        solution=_in_thousandths(sample.solution),
        slips=tuple(_in_thousandths(slip) for slip in sample.slips),
    )


def _in_thousandths(solution: Solution) -> Solution:
    """Write a box in thousandths of the drawing's side; a cell is 250."""
    x1, y1, x2, y2 = (round(1000 * edge / SIDE) for edge in json.loads(solution.answer))
    return dataclasses.replace(solution, answer=as_json((x1, y1, x2, y2)))


def expressions(scene: Scene, item: Shape) -> list[str]:
    """Give the names of a shape that fit no other shape of the scene."""
    same_shape = [other for other in scene.shapes if other.shape == item.shape and other is not item]
    found = [f"the {item.colour} {item.shape}", f"the {item.colour} shape"]
    if not same_shape:
        found.append(f"the {item.shape}")
    if same_shape and all(other.size != item.size for other in same_shape):
        found.append(f"the {item.size} {item.shape}")
    if same_shape and all(other.longitude != item.longitude for other in same_shape):
        found.append(f"the {item.longitude} {item.shape}")
    if same_shape and all(other.latitude != item.latitude for other in same_shape):
        found.append(f"the {item.latitude} {item.shape}")
    return found


def _shift(box: tuple[int, int, int, int], rng: random.Random) -> tuple[int, int, int, int]:
    """Move or stretch a box by one cell, as a careless hand does; never returns the same box."""
    x1, y1, x2, y2 = box
    moved = [
        (x1 + dx, y1 + dy, x2 + dx + stretch_x, y2 + dy + stretch_y)
        for dx in (-CELL, 0, CELL)
        for dy in (-CELL, 0, CELL)
        for stretch_x, stretch_y in ((0, 0), (CELL, 0), (0, CELL))
    ]
    inside = [
        (a, b, c, d) for a, b, c, d in moved if a >= 0 and b >= 0 and c <= SIDE and d <= SIDE and (a, b, c, d) != box
    ]
    return rng.choice(inside)
