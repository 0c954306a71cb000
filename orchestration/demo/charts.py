"""Charts: bars, curves and pies, with questions whose answer is a number or a colour."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from orchestration.demo.drawing import COLOURS, draw_bars, draw_line, draw_pie
from orchestration.demo.samples import Question, Solution

ChartKind = Literal["bar", "line", "pie"]
NUM_COLUMNS = 4
MAX_VALUE = 7
"""Highest bar or dot in grid lines; the eighth line stays free."""
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
    num_values = rng.choice((3, 4))
    values = _random_parts(rng) if kind == "pie" else rng.sample(range(1, MAX_VALUE + 1), num_values)
    columns = sorted(rng.sample(range(NUM_COLUMNS), num_values)) if kind != "pie" else range(len(values))
    return Chart(
        kind=kind,
        columns=tuple(columns),
        colours=tuple(rng.sample(sorted(COLOURS), len(values))),
        values=tuple(values),
    )


def _random_parts(rng: random.Random) -> list[int]:
    """Give two or three different numbers of eighths that sum to 8, in random order."""
    parts = rng.choice(((1, 7), (2, 6), (3, 5), (1, 2, 5), (1, 3, 4)))
    return rng.sample(parts, len(parts))


def ask_chart(chart: Chart, rng: random.Random) -> Question:
    """Ask for the value of a colour, or for the colour of the highest or lowest value."""
    if rng.random() < 0.5:
        return _ask_value(chart, rng)
    is_most = rng.random() < 0.5
    text = rng.choice((_MOST_TEXTS if is_most else _LEAST_TEXTS)[chart.kind])
    extreme = max(chart.values) if is_most else min(chart.values)
    answer = chart.colours[chart.values.index(extreme)]
    entries = [f"{colour} {value}" for colour, value in zip(chart.colours, chart.values, strict=True)]
    think = ", ".join(rng.sample(entries, len(entries)))
    others = [colour for colour in chart.colours if colour != answer]
    return Question(
        source=f"demo/{chart.kind}",
        task="chart",
        text=text,
        solution=Solution(think=think, answer=answer),
        slips=tuple(Solution(think=think, answer=other) for other in others),
        answer_type="text",
    )


def _ask_value(chart: Chart, rng: random.Random) -> Question:
    spot = rng.randrange(len(chart.values))
    colour, value = chart.colours[spot], chart.values[spot]
    near = [wrong for wrong in (value - 1, value + 1) if 1 <= wrong <= MAX_VALUE]
    others = [other for other in chart.values if other != value]
    slips = [Solution(think=f"{colour} {wrong}", answer=str(wrong)) for wrong in near]
    slips += [Solution(think=f"{colour} {value}", answer=str(other)) for other in others]
    return Question(
        source=f"demo/{chart.kind}",
        task="chart",
        text=rng.choice(_VALUE_TEXTS[chart.kind]).format(colour),
        solution=Solution(think=f"{colour} {value}", answer=str(value)),
        slips=tuple(slips),
        answer_type="number",
    )
