"""From scenes and charts to pictures: 112 x 112 pixels, shapes on the grid of the model's image tokens."""

import io
import itertools

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

_CURVE = (90, 90, 90)
_CAP = (255, 255, 255)


def _paper() -> Image.Image:
    """Give an empty page whose cells fade from red to the right and from blue downwards."""
    page = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(page)
    for row, column in itertools.product(range(SIDE // CELL), repeat=2):
        x, y = column * CELL, row * CELL
        draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), fill=(255 - 50 * column, 230, 255 - 50 * row))
    return page


def _rule(image: Image.Image) -> Image.Image:
    """Rule the page like graph paper, over everything, each row and column in a colour of its own.

    A vision tower with rotary positions alone cannot tell where on the page a patch lies; the ruling says so, as the
    axes of a map do. Its four colours are corners of a tetrahedron, so each is told from the rest by a linear layer.
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
    """Give the PNG file of a picture; fast rather than small."""
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
