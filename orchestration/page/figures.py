"""HTML pages from the templates of this package, and their figures as SVG; all text but Markup is escaped.

Figures: images with boxes, values with intervals, histograms and stacked bars.
"""

from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rewards.core.config import FUNCTION_NAMES
from rollout.records import ImageBytes

MAX_CHARS = 4000
REFERENCE_COLOUR = "#1f7a4d"
MODEL_COLOUR = "#d0312d"
INK = "#6a6a75"
PALETTE = ("#3b6fb6", "#c8731b", "#2f8f6b", "#8a4fa3", "#a33b4a", "#5b8c2a", "#b08a1e", "#4a9bb5", "#77624b", "#c0608f")
COLOURS = dict(zip(FUNCTION_NAMES, PALETTE, strict=False))
"""By reward function of ours; see `colours_of`."""
MORE_COLOURS = ("#c0608f", "#77624b", "#2a9d8f", "#b5651d", "#6a5acd", "#808000", "#d1495b", "#00798c")
"""For functions of the user's and sums, in turn."""

INTERVAL_WIDTH, INTERVAL_HEIGHT = 96, 14
"""Pixels of a value with its interval, drawn in a cell of a table."""

WIDTH, HEIGHT, TOP, BOTTOM = 320, 130, 18, 22
"""Pixels of a histogram: the whole, and the strips of its title and its labels."""
BEFORE_COLOUR = "#d4d4dc"
BAND_COLOUR = "#eef6f1"
NUM_LABELS = 5

BAR_HEIGHT, BAR_GAP, NAME_WIDTH, COUNT_WIDTH, BARS_WIDTH = 22, 8, 130, 80, 1000
LEGEND_COLUMNS = 4
LEGEND_ROW = 20

Boxes = Sequence[Sequence[float]]


def colours_of(functions: Iterable[str]) -> dict[str, str]:
    """Return a colour for each reward function: ours have the same on every page, others in order of their names.

    Example:
        >>> colours_of(["chart", "mine"])["chart"] == COLOURS["chart"]
        True
    """
    others = sorted(set(functions) - COLOURS.keys())
    return COLOURS | {name: MORE_COLOURS[place % len(MORE_COLOURS)] for place, name in enumerate(others)}


def render(template: str, **values: object) -> str:
    """Return a whole page.

    Args:
        template: File name in `templates`; it extends base.html, which needs `title`.
        values: What the template names.
    """
    return _environment().get_template(template).render(values)


def cut(text: str) -> str:
    """Cut a long text to `MAX_CHARS` and state its length."""
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ... ({len(text)} characters)"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cut"] = cut
    return environment


def images_svg(
    images: Sequence[tuple[str, tuple[int, int]]], *, reference: Boxes = (), given: Boxes = ()
) -> list[Markup]:
    """Draw the images of a row; boxes are on the first, the reference in green and the model's in red.

    Args:
        images: Data URI of each, and its width and height in original pixels.
        reference: x1, y1, x2, y2 of each box in original pixels.
        given: The model's boxes, likewise.
    """
    boxes = _rectangles(reference, REFERENCE_COLOUR) + _rectangles(given, MODEL_COLOUR)
    return [
        Markup(
            f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
            f'<image href="{escape(data)}" width="{width}" height="{height}"/>{"" if number else boxes}</svg>'
        )
        for number, (data, (width, height)) in enumerate(images)
    ]


def data_uri(image: ImageBytes) -> str:
    """Return an encoded image as a data URI; anything but JPEG, WebP and GIF is taken for PNG."""
    starts = {b"\xff\xd8": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
    kind = next((kind for start, kind in starts.items() if image.data.startswith(start)), "png")
    return f"data:image/{kind};base64,{b64encode(image.data).decode()}"


def _rectangles(boxes: Boxes, colour: str) -> str:
    return "".join(
        f'<rect x="{x1:g}" y="{y1:g}" width="{max(0.0, x2 - x1):g}" height="{max(0.0, y2 - y1):g}" fill="none" '
        f'stroke="{colour}" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
        for x1, y1, x2, y2 in boxes
    )


def share_svg(value: float, low: float, high: float) -> Markup:
    """Draw a value of [0, 1] as a bar from the left, and its interval as a whisker."""
    value, low, high = (min(max(number, 0.0), 1.0) * INTERVAL_WIDTH for number in (value, low, high))
    return _interval(f'<rect x="0" y="3" width="{value:.1f}" height="8" fill="#b9cbe8"/>', low, high)


def change_svg(value: float, low: float, high: float, limit: float) -> Markup:
    """Draw a change of at most `limit` from the middle to its side, green for a gain and red for a loss."""
    value, low, high = ((number / limit + 1.0) / 2.0 * INTERVAL_WIDTH for number in (value, low, high))
    middle = INTERVAL_WIDTH / 2.0
    colour = "#a9d5bd" if value >= middle else "#e6b3b8"
    bar = (
        f'<rect x="{min(value, middle):.1f}" y="3" width="{abs(value - middle):.1f}" height="8" fill="{colour}"/>'
        f'<line x1="{middle}" y1="0" x2="{middle}" y2="{INTERVAL_HEIGHT}" stroke="{INK}" stroke-width="0.5"/>'
    )
    return _interval(bar, low, high)


def _interval(bar: str, low: float, high: float) -> Markup:
    middle = INTERVAL_HEIGHT / 2.0
    ends = "".join(
        f'<line x1="{x:.1f}" y1="{middle - 3}" x2="{x:.1f}" y2="{middle + 3}" stroke="#22222a"/>' for x in (low, high)
    )
    whisker = f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#22222a"/>{ends}'
    return Markup(
        f'<svg width="{INTERVAL_WIDTH}" height="{INTERVAL_HEIGHT}" '
        f'viewBox="-1 0 {INTERVAL_WIDTH + 2} {INTERVAL_HEIGHT}">{bar}{whisker}</svg>'
    )


def histogram_svg(
    title: str,
    histogram: Mapping[str, Any],
    *,
    colour: str = PALETTE[0],
    before: Mapping[str, Any] | None = None,
    band: tuple[float, float] | None = None,
) -> Markup:
    """Draw one histogram; every bar shows its bin and count when pointed at.

    Args:
        title: Above the bars.
        histogram: `edges` and `counts` of the manifest; bins are drawn equally wide, whatever they span.
        colour: Of its bars.
        before: Drawn in grey behind it; same edges.
        band: Values between which the background is shaded.
    """
    edges, counts = histogram["edges"], histogram["counts"]
    most = max([1, *counts, *(before["counts"] if before else ())])
    step = WIDTH / len(edges)
    background = ""
    if band:
        left, right = (_bins_from_left(value, edges) * step for value in band)
        background = (
            f'<rect x="{left:.1f}" y="{TOP}" width="{max(0.0, right - left):.1f}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="{BAND_COLOUR}"><title>kept: {band[0]:g} to {band[1]:g}</title></rect>'
        )
    bars = _bars(before, most, BEFORE_COLOUR, "before selection ") if before else ""
    bars += _bars(histogram, most, colour, "after selection " if before else "")
    every = -(-len(edges) // NUM_LABELS)
    labels = "".join(
        f'<text x="{place * step:.1f}" y="{HEIGHT - 8}">{edge:g}</text>'
        for place, edge in enumerate(edges)
        if place % every == 0
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" font-size="10" fill="{INK}">'
        f'<text x="0" y="11" font-weight="600">{escape(title)}</text>{background}{bars}'
        f'<line x1="0" y1="{HEIGHT - BOTTOM}" x2="{WIDTH}" y2="{HEIGHT - BOTTOM}" stroke="{INK}"/>{labels}</svg>'
    )


def _bars(histogram: Mapping[str, Any], most: int, colour: str, note: str) -> str:
    edges, counts = histogram["edges"], histogram["counts"]
    step, full_height = WIDTH / len(edges), HEIGHT - TOP - BOTTOM
    bars = []
    for place, (edge, count) in enumerate(zip(edges, counts, strict=True)):
        height = full_height * count / most
        span = f"{edge:g} to {edges[place + 1]:g}" if place + 1 < len(edges) else f"from {edge:g}"
        if count:
            bars.append(
                f'<rect x="{place * step + 1:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{step - 2:.1f}" '
                f'height="{height:.1f}" fill="{colour}"><title>{span}: {note}{count}</title></rect>'
            )
    return "".join(bars)


def _bins_from_left(value: float, edges: Sequence[float]) -> float:
    """Return where a value lies, in bins from the left; the last bin ends with all values that are larger."""
    place = max(0, bisect_right(edges, value) - 1)
    if place + 1 >= len(edges):
        return float(place if value <= edges[-1] else place + 1)
    return place + max(0.0, value - edges[place]) / (edges[place + 1] - edges[place])


def stacked_bars_svg(rows: Mapping[str, Mapping[str, int]]) -> Markup:
    """Draw one bar per row, made of its parts; one part has one colour in all rows.

    Example:
        >>> stacked_bars_svg({"chart": {"chartqa": 3}}).count("<rect")
        2
    """
    parts = sorted({part for row in rows.values() for part in row})
    colours = {part: PALETTE[i % len(PALETTE)] for i, part in enumerate(parts)}
    scale = (BARS_WIDTH - NAME_WIDTH - COUNT_WIDTH) / max([1, *(sum(row.values()) for row in rows.values())])
    drawn = []
    for number, (name, row) in enumerate(sorted(rows.items())):
        y, x = number * (BAR_HEIGHT + BAR_GAP), float(NAME_WIDTH)
        drawn.append(f'<text x="0" y="{y + 15}">{escape(name)}</text>')
        for part in parts:
            width = row.get(part, 0) * scale
            if width:
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{colours[part]}">'
                    f"<title>{escape(part)}: {row[part]}</title></rect>"
                )
            x += width
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{sum(row.values())}</text>')
    top = len(rows) * (BAR_HEIGHT + BAR_GAP)
    for number, part in enumerate(parts):
        x = number % LEGEND_COLUMNS * (BARS_WIDTH // LEGEND_COLUMNS)
        y = top + number // LEGEND_COLUMNS * LEGEND_ROW
        drawn.append(
            f'<rect x="{x}" y="{y + 4}" width="10" height="10" fill="{colours[part]}"/>'
            f'<text x="{x + 16}" y="{y + 13}">{escape(part)}</text>'
        )
    height = top + -(-len(parts) // LEGEND_COLUMNS) * LEGEND_ROW
    return Markup(
        f'<svg viewBox="0 0 {BARS_WIDTH} {height}" role="img" font-size="12" fill="{INK}">{"".join(drawn)}</svg>'
    )
