"""Questions with one right word: yes or no, and multiple choice, both about scenes."""

import random

from orchestration.demo.drawing import COLOURS
from orchestration.demo.samples import Question, Solution
from orchestration.demo.scenes import QUARTERS, SHAPES, Scene

NUM_OPTIONS = 4

_CHOICES = {"colour": COLOURS, "shape": SHAPES, "quarter": QUARTERS}
_CHOICE_TEXTS = {
    "colour": ("Which colour is the {}?", "What colour does the {} have?"),
    "shape": ("Which shape is {}?", "What is the {} shape?"),
    "quarter": ("Where is the {} shape?", "In which corner is the {} one?"),
}


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
        slips=(Solution(think=wrong_think, answer=opposite),),
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
    named = {other.colour: other.shape for other in scene.shapes}
    think = f"{scene.description}; {colour} {named.get(colour, 'missing')}"
    wrong = f"{scene.description}; {colour} {'missing' if is_yes else shape}"
    return text, think, "yes" if is_yes else "no", wrong


def _ask_relation(scene: Scene, rng: random.Random, is_yes: bool) -> tuple[str, str, str, str]:
    first, second = rng.sample(scene.shapes, 2)
    sides = [
        (getattr(first, axis), getattr(second, axis))
        for axis in ("latitude", "longitude")
        if getattr(first, axis) != getattr(second, axis)
    ]
    own, other = rng.choice(sides)
    text = rng.choice(("Is the {} {} {} of the {} one?", "Is the {} {} drawn {} of the {} one?"))
    text = text.format(first.colour, first.shape, own if is_yes else other, second.colour)
    think = f"{scene.description}; {first.colour} {first.square}, {second.colour} {second.square}"
    return text, think, "yes" if is_yes else "no", think


def _ask_more(scene: Scene, rng: random.Random, is_yes: bool) -> tuple[str, str, str, str]:
    counts = {shape: sum(item.shape == shape for item in scene.shapes) for shape in SHAPES}
    pairs = [(a, b) for a in SHAPES for b in SHAPES if a != b and counts[a] + counts[b]]
    # Where every kind occurs once nothing is more numerous: such a scene is asked about with "no" alone.
    fitting = [(a, b) for a, b in pairs if (counts[a] > counts[b]) == is_yes] or pairs
    first, second = rng.choice(fitting)
    text = rng.choice(("Are there more {}s than {}s?", "Does it show more {}s than {}s?"))
    text = text.replace("crosss", "crosses").format(first, second).replace("crosss", "crosses")
    think = f"{scene.description}; {first} {counts[first]}, {second} {counts[second]}"
    wrong = f"{scene.description}; {first} {counts[second]}, {second} {counts[first]}"
    return text, think, "yes" if counts[first] > counts[second] else "no", wrong


def ask_choice(scene: Scene, rng: random.Random) -> Question:
    """Ask for a property with four options; the answer is the text of the right one."""
    item = rng.choice(scene.shapes)
    kinds = ["shape", "shape", "quarter"]
    if sum(other.shape == item.shape for other in scene.shapes) == 1:
        kinds.append("colour")
    kind = rng.choice(kinds)
    right = getattr(item, kind)
    options = [right, *rng.sample(sorted(set(_CHOICES[kind]) - {right}), NUM_OPTIONS - 1)]
    rng.shuffle(options)
    named = item.shape if kind == "colour" else item.colour
    # Located first where the place is asked for: "yellow oval big c1" leads to "northeast", "yellow" alone does not.
    found = item.description if kind == "quarter" else named

    def choose(option: str) -> Solution:
        return Solution(think=f"{scene.description}; {found} {option}", answer=option)

    return Question(
        source=f"demo/{kind}",
        task="match_mcq",
        text=f"{rng.choice(_CHOICE_TEXTS[kind]).format(named)} {', '.join(options[:-1])} or {options[-1]}",
        solution=choose(right),
        slips=tuple(choose(option) for option in options if option != right),
        options=tuple(options),
    )
