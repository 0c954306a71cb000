"""Charts: bars, curves and pies, with questions whose answer is a number or a colour."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from orchestration.demo.drawing import COLOURS, draw_bars, draw_line, draw_pie
from orchestration.demo.samples import Question, Solution

ChartKind = Literal["bar", "line", "pie"]
MAX_VALUE = 4
"""Highest bar or dot, in rows of cells."""
NUM_VALUES = 3
PIE_PARTS = 8

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
class Chart:
    """Coloured values in drawing order; highest and lowest are unique.

    Example:
        >>> Chart(kind="bar", columns=(0, 2), colours=("red", "blue"), values=(4, 7)).draw().size
        (112, 112)
    """

    kind: ChartKind
    columns: tuple[int, ...]
    """Column of each value, 0..3; not drawn for pies."""
    colours: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def description(self) -> str:
        """Every value in drawing order: the thought that starts every answer about a chart."""
        return ", ".join(f"{colour} {value}" for colour, value in zip(self.colours, self.values, strict=True))

    @property
    def digest(self) -> str:
        """Identity of what is drawn."""
        return hashlib.blake2b(repr(self).encode(), digest_size=10).hexdigest()

    def draw(self) -> Image.Image:
        """Give the picture."""
        if self.kind == "pie":
            return draw_pie(list(zip(self.colours, self.values, strict=True)))
        draw = draw_bars if self.kind == "bar" else draw_line
        return draw(list(zip(self.columns, self.colours, self.values, strict=True)))


def random_chart(rng: random.Random) -> Chart:
    """Draw a chart at random."""
    kind: ChartKind = rng.choice(("bar", "line", "pie"))
    values = _random_parts(rng) if kind == "pie" else rng.sample(range(1, MAX_VALUE + 1), NUM_VALUES)
    return Chart(
        kind=kind,
        columns=tuple(range(len(values))),
        colours=tuple(rng.sample(sorted(COLOURS), len(values))),
        values=tuple(values),
    )


def _random_parts(rng: random.Random) -> list[int]:
    """Give three different numbers of eighths that sum to 8, in random order."""
    parts = rng.choice(((1, 2, 5), (1, 3, 4)))
    return rng.sample(parts, len(parts))


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
        text=text,
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
        text=rng.choice(_VALUE_TEXTS[chart.kind]).format(colour),
        solution=Solution(think=f"{chart.description}; {colour} {value}", answer=str(value)),
        slips=tuple(
            Solution(think=f"{chart.description}; {colour} {wrong}", answer=str(wrong)) for wrong in wrong_values
        ),
        answer_type="number",
    )
