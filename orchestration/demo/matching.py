"""Questions with one right word: yes or no, and multiple choice, both about scenes."""

import random
from collections.abc import Callable

from orchestration.demo.drawing import COLOURS
from orchestration.demo.samples import Question, Solution
from orchestration.demo.scenes import QUARTERS, SHAPES, SIZES, Scene, Shape

LABELS = "ABCD"


def ask_yes_no(scene: Scene, rng: random.Random) -> Question:
    """Ask whether something is there, lies on a side of another, or is more numerous; yes and no are equally likely."""
    kind, ask = rng.choice(
        (("exists", _ask_exists), ("exists", _ask_exists), ("relation", _ask_relation), ("more", _ask_more))
    )
    text, think, answer, wrong_think = ask(scene, rng, rng.random() < 0.5)
    opposite = "no" if answer == "yes" else "yes"
    return Question(
        source=f"demo/{kind}",
        task="match_yesno",
        text=text,
        solution=Solution(think=think, answer=answer),
        slips=(Solution(think=think, answer=opposite), Solution(think=wrong_think, answer=opposite)),
    )


def _ask_exists(scene: Scene, rng: random.Random, is_yes: bool) -> tuple[str, str, str, str]:
    item = rng.choice(scene.shapes)
    colour, shape = item.colour, item.shape
    if not is_yes and rng.random() < 0.5:
        colour = rng.choice(sorted(set(COLOURS) - {other.colour for other in scene.shapes}))
    elif not is_yes:
        shape = rng.choice(sorted(set(SHAPES) - {item.shape}))
    text = rng.choice(("Is there a {} {}?", "Do you see a {} {}?", "Does the picture show a {} {}?")).format(
        colour, shape
    )
    found = {other.colour: other.shape for other in scene.shapes}.get(colour)
    think = f"{colour} is a {found}" if found else f"{colour} is missing"
    wrong = f"{colour} is missing" if is_yes else f"{colour} is a {shape}"
    return text, think, "yes" if is_yes else "no", wrong


def _ask_relation(scene: Scene, rng: random.Random, is_yes: bool) -> tuple[str, str, str, str]:
    first, second = rng.sample(scene.shapes, 2)
    words = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
    sides = [
        (getattr(first, axis), getattr(second, axis))
        for axis in ("horizontal", "vertical")
        if getattr(first, axis) != getattr(second, axis)
    ]
    own, other = rng.choice(sides)
    relation = words[own if is_yes else other]
    text = rng.choice(("Is the {} {} {} the {} one?", "Is the {} {} drawn {} the {} one?")).format(
        first.colour, first.shape, relation, second.colour
    )
    think = f"{first.colour} is {own}, {second.colour} is {other}"
    wrong = f"{first.colour} is {other}, {second.colour} is {own}"
    return text, think, "yes" if is_yes else "no", wrong


def _ask_more(scene: Scene, rng: random.Random, is_yes: bool) -> tuple[str, str, str, str]:
    counts = {shape: sum(item.shape == shape for item in scene.shapes) for shape in SHAPES}
    pairs = [
        (a, b) for a in SHAPES for b in SHAPES if a != b and counts[a] + counts[b] and (counts[a] > counts[b]) == is_yes
    ]
    first, second = rng.choice(pairs)
    text = rng.choice(("Are there more {}s than {}s?", "Does it show more {}s than {}s?"))
    text = text.replace("crosss", "crosses").format(first, second).replace("crosss", "crosses")
    think = f"{first} {counts[first]}, {second} {counts[second]}"
    wrong = f"{first} {counts[second]}, {second} {counts[first]}"
    return text, think, "yes" if is_yes else "no", wrong


def ask_choice(scene: Scene, rng: random.Random) -> Question:
    """Ask for a property with four options; the answer is the letter of the right one."""
    item = rng.choice(scene.shapes)
    is_only_one = sum(other.shape == item.shape for other in scene.shapes) == 1
    kinds: list[Callable[[Scene, Shape, random.Random], tuple[str, str, str, list[str]]]] = [
        _ask_shape,
        _ask_quarter,
        _ask_size,
    ]
    if is_only_one:
        kinds += [_ask_colour, _ask_colour]
    text, think, right, wrong = rng.choice(kinds)(scene, item, rng)
    options = [right, *rng.sample(wrong, 3)]
    rng.shuffle(options)
    lines = "\n".join(f"{label}) {option}" for label, option in zip(LABELS, options, strict=True))
    answer = LABELS[options.index(right)]
    slips = [
        Solution(think=thought, answer=label)
        for label, option in zip(LABELS, options, strict=True)
        if option != right
        for thought in (f"{think} {right}", f"{think} {option}")
    ]
    return Question(
        source="demo/choice",
        task="match_mcq",
        text=f"{text}\n{lines}",
        solution=Solution(think=f"{think} {right}", answer=answer),
        slips=tuple(slips),
        options=tuple(options),
    )


def _ask_colour(scene: Scene, item: Shape, rng: random.Random) -> tuple[str, str, str, list[str]]:
    text = rng.choice(("Which colour is the {}?", "What colour does the {} have?")).format(item.shape)
    return text, f"the {item.shape} is", item.colour, sorted(set(COLOURS) - {item.colour})


def _ask_shape(scene: Scene, item: Shape, rng: random.Random) -> tuple[str, str, str, list[str]]:
    text = rng.choice(("Which shape is {}?", "What is the {} shape?")).format(item.colour)
    return text, f"{item.colour} is a", item.shape, sorted(set(SHAPES) - {item.shape})


def _ask_quarter(scene: Scene, item: Shape, rng: random.Random) -> tuple[str, str, str, list[str]]:
    text = rng.choice(("Where is the {} shape?", "In which corner is the {} one?")).format(item.colour)
    return text, f"{item.colour} is", item.quarter, sorted(set(QUARTERS) - {item.quarter})


def _ask_size(scene: Scene, item: Shape, rng: random.Random) -> tuple[str, str, str, list[str]]:
    text = rng.choice(("How large is the {} shape?", "Which size has the {} one?")).format(item.colour)
    return text, f"{item.colour} is", item.size, sorted(set(SIZES) - {item.size})
