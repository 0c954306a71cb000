"""Random scenes and charts of 112 x 112 pixels, with shapes on the grid of the model's image tokens."""

import hashlib
import io
import itertools
import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from orchestration.settings.demo import CELL, SIDE

COLOURS = {
    "red": (220, 30, 30),
    "orange": (255, 145, 0),
    "yellow": (250, 225, 20),
    "green": (20, 150, 50),
    "blue": (30, 60, 220),
    "purple": (150, 40, 190),
    "brown": (120, 70, 30),
    "black": (15, 15, 15),
}

RULING = ((255, 40, 160), (40, 220, 80), (40, 160, 255), (255, 190, 40))
"""Colours of the lines before the first, second, third, fourth row and column of cells."""

SHAPES = ("oval", "triangle", "diamond", "cross")
SIZES = {"small": 1, "big": 2}
"""Rows and columns of grid cells that a shape fills."""

QUARTERS = ("northwest", "northeast", "southwest", "southeast")
NUM_SHAPES = (2, 2, 3)
"""Values of a uniform draw: two shapes are twice as likely as three."""

COLUMN_NAMES = "abcd"

ChartKind = Literal["bar", "line", "pie"]
MAX_VALUE = 4
"""Highest bar or dot, in rows of cells."""
NUM_VALUES = 3
PIE_PARTS = 8

_CURVE = (90, 90, 90)
_CAP = (255, 255, 255)


def _paper() -> Image.Image:
    """Return an empty page whose cells have less red to the right and less blue downwards."""
    page = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(page)
    for row, column in itertools.product(range(SIDE // CELL), repeat=2):
        x, y = column * CELL, row * CELL
        draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), fill=(255 - 50 * column, 230, 255 - 50 * row))
    return page


def _rule(image: Image.Image) -> Image.Image:
    """Draw grid lines over the picture, with a colour per row and column.

    A vision tower with only rotary positions does not know where on the page a patch is; the lines show it. Their four
    colours are corners of a tetrahedron, so that a linear layer can separate each from the others.
    """
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(RULING):
        near = index * CELL
        draw.rectangle((near, 0, near + 2, SIDE - 1), fill=colour)
    for index, colour in enumerate(RULING):
        near = index * CELL
        draw.rectangle((0, near, SIDE - 1, near + 2), fill=colour)
    return image


def encode_png(image: Image.Image) -> bytes:
    """Return a picture as PNG, compressed for speed, not size."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def draw_shapes(shapes: list[tuple[str, str, tuple[int, int, int, int]]]) -> Image.Image:
    """Draw (shape, colour, box) triples; each shape touches all four sides of its box [x1, y1, x2, y2]."""
    image = _paper()
    draw = ImageDraw.Draw(image)
    for shape, colour, (x1, y1, x2, y2) in shapes:
        fill = COLOURS[colour]
        right, bottom, middle_x, middle_y = x2 - 1, y2 - 1, (x1 + x2) // 2, (y1 + y2) // 2
        if shape == "block":
            draw.rectangle((x1, y1, right, bottom), fill=fill)
        elif shape == "oval":
            draw.ellipse((x1, y1, right, bottom), fill=fill)
        elif shape == "triangle":
            draw.polygon(((middle_x, y1), (right, bottom), (x1, bottom)), fill=fill)
        elif shape == "diamond":
            draw.polygon(((middle_x, y1), (right, middle_y), (middle_x, bottom), (x1, middle_y)), fill=fill)
        elif shape == "cross":
            third_x, third_y = (x2 - x1) // 3, (y2 - y1) // 3
            draw.rectangle((x1 + third_x, y1, right - third_x, bottom), fill=fill)
            draw.rectangle((x1, y1 + third_y, right, bottom - third_y), fill=fill)
        else:
            raise ValueError(f"no drawing for shape {shape!r}")
    return _rule(image)


def draw_bars(columns: list[tuple[int, str, int]]) -> Image.Image:
    """Draw (column, colour, value) bars with a white cap near the top; a unit of value is a row."""
    image = _paper()
    draw = ImageDraw.Draw(image)
    for column, colour, value in columns:
        left = column * CELL + 4
        top = SIDE - value * CELL + 3
        draw.rectangle((left, top, left + CELL - 7, SIDE - 1), fill=COLOURS[colour])
        draw.rectangle((left, top + 3, left + CELL - 7, top + 6), fill=_CAP)
    return _rule(image)


def draw_line(columns: list[tuple[int, str, int]]) -> Image.Image:
    """Draw a curve with a coloured dot at each (column, colour, value); a unit of value is a row."""
    image = _paper()
    draw = ImageDraw.Draw(image)
    centres = [(column * CELL + CELL // 2, SIDE - value * CELL + CELL // 2) for column, _, value in columns]
    draw.line(centres, fill=_CURVE, width=2)
    for (x, y), (_, colour, _) in zip(centres, columns, strict=True):
        draw.ellipse((x - 10, y - 10, x + 9, y + 9), fill=COLOURS[colour])
    return _rule(image)


def draw_pie(slices: list[tuple[str, int]]) -> Image.Image:
    """Draw (colour, eighths) slices, clockwise from the top; the eighths sum to 8."""
    image = _paper()
    draw = ImageDraw.Draw(image)
    start = -90.0
    for colour, eighths in slices:
        draw.pieslice((4, 4, SIDE - 5, SIDE - 5), start, start + 45.0 * eighths, fill=COLOURS[colour])
        start += 45.0 * eighths
    for eighth in range(4):
        across = ((4, 56, 107, 56), (56, 4, 56, 107), (20, 20, 91, 91), (20, 91, 91, 20))[eighth]
        draw.line(across, fill=(255, 255, 255), width=1)
    return _rule(image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One coloured shape on the grid of 4 x 4 cells.

    Example:
        >>> Shape(colour="red", shape="oval", size="small", quarter="northeast", column=2, row=1).box
        (56, 28, 84, 56)
    """

    colour: str
    shape: str
    size: str
    quarter: str
    column: int
    """Column of its left-most cell, 0..3."""
    row: int
    """Row of its top-most cell, 0..3."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """[x1, y1, x2, y2] in pixels; the right and lower edges are exclusive."""
        cells = SIZES[self.size]
        return (
            self.column * CELL,
            self.row * CELL,
            (self.column + cells) * CELL,
            (self.row + cells) * CELL,
        )

    @property
    def square(self) -> str:
        """Name of its upper left cell: columns a to d, rows 1 to 4 from the top."""
        return f"{COLUMN_NAMES[self.column]}{self.row + 1}"

    @property
    def description(self) -> str:
        """Colour, shape, size and cell."""
        return f"{self.colour} {self.shape} {self.size} {self.square}"

    @property
    def latitude(self) -> str:
        """`north` or `south`."""
        return self.quarter[:5]

    @property
    def longitude(self) -> str:
        """`west` or `east`."""
        return self.quarter[5:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Shapes in reading order of their quarters."""

    shapes: tuple[Shape, ...]

    @property
    def description(self) -> str:
        """Each shape in reading order: the beginning of each thought about a scene."""
        return ", ".join(item.description for item in self.shapes)

    @property
    def digest(self) -> str:
        """Digest of the drawing."""
        return hashlib.blake2b(repr(self.shapes).encode(), digest_size=10).hexdigest()

    def draw(self) -> Image.Image:
        return draw_shapes([(item.shape, item.colour, item.box) for item in self.shapes])


def random_scene(rng: random.Random) -> Scene:
    """Draw a scene at random."""
    num_shapes = rng.choice(NUM_SHAPES)
    quarters = sorted(rng.sample(range(4), num_shapes))
    colours = rng.sample(sorted(COLOURS), num_shapes)
    shapes = []
    for quarter, colour in zip(quarters, colours, strict=True):
        size = rng.choice(sorted(SIZES))
        spare = 2 - SIZES[size]
        shapes.append(
            Shape(
                colour=colour,
                shape=rng.choice(SHAPES),
                size=size,
                quarter=QUARTERS[quarter],
                column=quarter % 2 * 2 + rng.randint(0, spare),
                row=quarter // 2 * 2 + rng.randint(0, spare),
            )
        )
    return Scene(shapes=tuple(shapes))


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
        """Each value in drawing order: the beginning of each thought about a chart."""
        return ", ".join(f"{colour} {value}" for colour, value in zip(self.colours, self.values, strict=True))

    @property
    def digest(self) -> str:
        """Digest of the drawing."""
        return hashlib.blake2b(repr(self).encode(), digest_size=10).hexdigest()

    def draw(self) -> Image.Image:
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
    """Return three different numbers of eighths that sum to 8, in random order."""
    parts = rng.choice(((1, 2, 5), (1, 3, 4)))
    return rng.sample(parts, len(parts))
