"""Scenes: two or three coloured shapes, one in each quarter of the page, no colour twice."""

import hashlib
import random
from dataclasses import dataclass

from PIL import Image

from orchestration.demo.drawing import COLOURS, draw_shapes
from orchestration.settings.demo import CELL

SHAPES = ("oval", "triangle", "diamond", "cross")
SIZES = {"small": 1, "big": 2}
"""Rows and columns of grid cells that a shape fills."""

QUARTERS = ("northwest", "northeast", "southwest", "southeast")
NUM_SHAPES = (2, 2, 3)
"""Drawn from uniformly."""

COLUMN_NAMES = "abcd"


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
    """Of its left-most cell, 0..3."""
    row: int
    """Of its top-most cell, 0..3."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """[x1, y1, x2, y2] in pixels; the right and lower edges lie just outside."""
        cells = SIZES[self.size]
        return (
            self.column * CELL,
            self.row * CELL,
            (self.column + cells) * CELL,
            (self.row + cells) * CELL,
        )

    @property
    def square(self) -> str:
        """Its upper left cell, named as on a chess board: columns a to d, rows 1 to 4 from the top."""
        return f"{COLUMN_NAMES[self.column]}{self.row + 1}"

    @property
    def description(self) -> str:
        """What it is and where."""
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
        """Every shape in reading order: the thought that starts every answer about a scene."""
        return ", ".join(item.description for item in self.shapes)

    @property
    def digest(self) -> str:
        """Identity of what is drawn."""
        return hashlib.blake2b(repr(self.shapes).encode(), digest_size=10).hexdigest()

    def draw(self) -> Image.Image:
        """Give the picture."""
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
