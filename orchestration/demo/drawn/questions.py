"""Questions about drawn pictures: yes or no, multiple choice, boxes, captions, charts; demonstrations of answers."""

import hashlib
import json
import random
from dataclasses import dataclass, field, fields, replace

from orchestration.demo.drawn.pictures import COLOURS, MAX_VALUE, QUARTERS, SHAPES, SIZES, Chart, Scene, Shape
from orchestration.settings.demo import CELL, SIDE
from rewards.core.config import DEFAULT_FORMAT, FormatConfig
from rewards.core.envelope import write_response

END_OF_TURN = "<|im_end|>"
"""End of each turn of the chat, including the completion."""

FORMAT_FAULT_SHARE = 0.25
"""Share of faulty demonstrations whose fault is in the format; the others have a wrong answer."""

NUM_OPTIONS = 4

_CHOICES = {"colour": COLOURS, "shape": SHAPES, "quarter": QUARTERS}
_CHOICE_TEXTS = {
    "colour": ("Which colour is the {}?", "What colour does the {} have?"),
    "shape": ("Which shape is {}?", "What is the {} shape?"),
    "quarter": ("Where is the {} shape?", "In which corner is the {} one?"),
}
_VALUE_TEXTS = {
    "bar": ("How high is the {} bar?", "What is the value of {}?"),
    "line": ("How high is the {} dot?", "What is the value of {}?"),
    "pie": ("How many eighths are {}?", "What is the size of the {} slice in eighths?"),
}
_MOST_TEXTS = {
    "bar": ("Which bar is the highest?", "Which colour has the most?"),
    "line": ("Which dot is the highest?", "Which colour has the most?"),
    "pie": ("Which slice is the largest?", "Which colour has the most?"),
}
_LEAST_TEXTS = {
    "bar": ("Which bar is the lowest?", "Which colour has the least?"),
    "line": ("Which dot is the lowest?", "Which colour has the least?"),
    "pie": ("Which slice is the smallest?", "Which colour has the least?"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A thought and the answer that follows from it.

    Example:
        >>> Solution(think="red is 4", answer="4").written(DEFAULT_FORMAT)
        '<think>red is 4</think><answer>4</answer>'
    """

    think: str
    answer: str

    def written(self, form: FormatConfig) -> str:
        """Return the completion in a form, without its end-of-turn token."""
        return write_response(self.answer, form, think=self.think)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a picture, the right solution, and plausible wrong ones (slips)."""

    source: str
    """Source of the row: `demo/` and the kind of picture or question."""
    task: str
    """Task, which selects the reward: match_yesno | match_mcq | chart | iou | open."""
    question: str
    """The user turn, options included."""
    solution: Solution
    slips: tuple[Solution, ...]
    """At least one; each is well-formed and wrong."""
    options: tuple[str, ...] = ()
    answer_type: str = ""
    """number | text for charts, empty elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSample(Question):
    """A question with its picture and reference."""

    image_png: bytes | None = field(repr=False)
    """None where the question says in words what is drawn."""
    image_size: tuple[int, int]
    """(width, height) in pixels."""
    scene_digest: str
    """Digest of the drawing; no digest occurs in both splits."""
    answer: str
    """The reference; boxes as JSON in pixels, whatever the frame of the demonstrations."""

    @property
    def sample_id(self) -> str:
        """Digest of picture and question, independent of the seed."""
        return hashlib.blake2b(f"{self.scene_digest}/{self.question}".encode(), digest_size=10).hexdigest()

    def demonstration(self, rng: random.Random, *, fault_frac: float = 0.0, form: FormatConfig = DEFAULT_FORMAT) -> str:
        """Return the text of a completion to imitate, end-of-turn token included.

        Args:
            rng: Decides whether there is a fault, and which.
            fault_frac: Probability of a fault, in [0, 1].
            form: Form of the answer; with style=none every fault is a wrong answer.
        """
        if rng.random() >= fault_frac:
            return self.solution.written(form) + END_OF_TURN
        if rng.random() < FORMAT_FAULT_SHARE and form.style != "none":
            return break_format(self.solution, rng, form) + END_OF_TURN
        return rng.choice(self.slips).written(form) + END_OF_TURN


def make_sample(
    asked: Question, *, image_png: bytes | None, image_size: tuple[int, int], scene_digest: str
) -> DemoSample:
    """Join a question with its picture."""
    return DemoSample(
        **{item.name: getattr(asked, item.name) for item in fields(asked)},
        image_png=image_png,
        image_size=image_size,
        scene_digest=scene_digest,
        answer=asked.solution.answer,
    )


def tags_of(form: FormatConfig) -> tuple[str, str, str, str]:
    """Return the tags of a form; each is one token of the tiny model."""
    return form.think_open, form.think_close, form.answer_open, form.answer_close


def break_format(solution: Solution, rng: random.Random, form: FormatConfig) -> str:
    """Return the right solution in a form that the format reward refuses; style=none refuses nothing.

    Of tags one is missing or out of order; a box or JSON object is missing, not closed, or there twice.
    """
    whole = solution.written(form)
    broken: tuple[str, ...] = (f"{solution.think} {solution.answer}", whole[:-1], f"{whole} {whole}")
    if form.style == "tags":
        opening = "" if form.think_prefilled else form.think_open
        think, answer = f"{solution.think}{form.think_close}", f"{form.answer_open}{solution.answer}{form.answer_close}"
        broken = (
            f"{opening}{think}{form.answer_open}{solution.answer}",
            f"{opening}{solution.think}{answer}",
            f"{opening}{think}{solution.answer}",
            f"{answer}{opening}{think}",
            answer,
        )
    return rng.choice(broken)


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
        question=text,
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
    # If each kind occurs once, nothing is more numerous, and the answer can only be no.
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
    # For questions about the place, the thought names it first: "yellow oval big c1" leads to "northeast".
    found = item.description if kind == "quarter" else named

    def choose(option: str) -> Solution:
        return Solution(think=f"{scene.description}; {found} {option}", answer=option)

    return Question(
        source=f"demo/{kind}",
        task="match_mcq",
        question=f"{rng.choice(_CHOICE_TEXTS[kind]).format(named)} {', '.join(options[:-1])} or {options[-1]}",
        solution=choose(right),
        slips=tuple(choose(option) for option in options if option != right),
        options=tuple(options),
    )


def ask_box(scene: Scene, rng: random.Random) -> Question:
    """Ask for the box of one shape by an expression that fits no other."""
    item = rng.choice(scene.shapes)
    text = rng.choice(("Where is {}? Give its box.", "Find {}.", "Give the box of {}.", "Locate {}."))
    others = [other for other in scene.shapes if other is not item]
    think = f"{scene.description}; {item.description}"
    slips = [Solution(think=think, answer=as_json(_shift(item.box, rng)))]
    slips += [Solution(think=f"{scene.description}; {o.description}", answer=as_json(o.box)) for o in others]
    return Question(
        source="demo/refer",
        task="iou",
        question=text.format(rng.choice(expressions(scene, item))),
        solution=Solution(think=think, answer=as_json(item.box)),
        slips=tuple(slips),
    )


def as_json(box: tuple[int, int, int, int]) -> str:
    """Return a box as the JSON list that the grounding reward reads.

    Example:
        >>> as_json((0, 28, 56, 84))
        '[0, 28, 56, 84]'
    """
    return json.dumps(list(box))


def with_boxes_in(frame: str, sample: DemoSample) -> DemoSample:
    """Return the sample with boxes of its demonstrations in `frame`, a model.coord_mode; its reference is in pixels."""
    if sample.task != "iou" or frame in ("pixel", "pixel_resized"):  # drawings are never resized
        return sample
    return replace(
        sample,
        solution=_in_shares(sample.solution, frame),
        slips=tuple(_in_shares(slip, frame) for slip in sample.slips),
    )


def _in_shares(solution: Solution, frame: str) -> Solution:
    """Return the solution with its box in shares of the drawing's side; a cell is 250 in norm1000 and 0.25 in norm1."""
    shares = (edge / SIDE for edge in json.loads(solution.answer))
    box = [round(1000 * share) if frame == "norm1000" else round(share, 3) for share in shares]
    return replace(solution, answer=json.dumps(box))


def expressions(scene: Scene, item: Shape) -> list[str]:
    """Return the referring expressions of a shape that fit no other shape of the scene."""
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
    """Return the box moved or stretched by one cell; never the same box."""
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


def ask_caption(scene: Scene, rng: random.Random) -> Question:
    """Ask for a description of the whole scene."""
    text = rng.choice(
        ("Describe the picture.", "What does the picture show?", "Write a caption.", "List all shapes that you see.")
    )
    phrases = [_phrase(item) for item in scene.shapes]
    return Question(
        source="demo/scene",
        task="open",
        question=text,
        solution=_solution(scene, phrases),
        slips=tuple(_solution(scene, wrong) for wrong in _careless(scene, rng)),
    )


def _phrase(item: Shape) -> str:
    return f"a {item.size} {item.colour} {item.shape} {item.quarter}"


def _solution(scene: Scene, phrases: list[str]) -> Solution:
    return Solution(think=scene.description, answer=", ".join(phrases))


def _careless(scene: Scene, rng: random.Random) -> list[list[str]]:
    """Return three wrong captions: only the first shape, a shape replaced by an absent one, a shape repeated."""
    phrases = [_phrase(item) for item in scene.shapes]
    spot = rng.randrange(len(phrases))
    absent = sorted(set(COLOURS) - {item.colour for item in scene.shapes})
    stranger = f"a {rng.choice(sorted(SIZES))} {rng.choice(absent)} {rng.choice(SHAPES)} {rng.choice(QUARTERS)}"
    swapped = [*phrases[:spot], stranger, *phrases[spot + 1 :]]
    return [phrases[:1], swapped, [phrases[spot]] * len(phrases)]


def ask_chart(chart: Chart, rng: random.Random) -> Question:
    """Ask for the value of a colour, or for the colour of the highest or lowest value."""
    if rng.random() < 0.5:
        return _ask_value(chart, rng)
    is_most = rng.random() < 0.5
    text = rng.choice((_MOST_TEXTS if is_most else _LEAST_TEXTS)[chart.kind])
    extreme = max(chart.values) if is_most else min(chart.values)
    answer = chart.colours[chart.values.index(extreme)]
    entries = list(zip(chart.colours, chart.values, strict=True))
    return Question(
        source=f"demo/{chart.kind}",
        task="chart",
        question=text,
        solution=Solution(think=f"{chart.description}; {extreme} {answer}", answer=answer),
        slips=tuple(
            Solution(think=f"{chart.description}; {value} {colour}", answer=colour)
            for colour, value in entries
            if colour != answer
        ),
        answer_type="text",
    )


def _ask_value(chart: Chart, rng: random.Random) -> Question:
    spot = rng.randrange(len(chart.values))
    colour, value = chart.colours[spot], chart.values[spot]
    near = [wrong for wrong in (value - 1, value + 1) if 1 <= wrong <= MAX_VALUE]
    others = [other for other in chart.values if other != value]
    wrong_values = sorted({*near, *others})
    return Question(
        source=f"demo/{chart.kind}",
        task="chart",
        question=rng.choice(_VALUE_TEXTS[chart.kind]).format(colour),
        solution=Solution(think=f"{chart.description}; {colour} {value}", answer=str(value)),
        slips=tuple(
            Solution(think=f"{chart.description}; {colour} {wrong}", answer=str(wrong)) for wrong in wrong_values
        ),
        answer_type="number",
    )
