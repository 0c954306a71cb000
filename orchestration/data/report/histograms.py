"""Histograms and stacked bars of a manifest as small SVG pictures."""

import html
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, TOP, BOTTOM = 320, 130, 18, 22
BEFORE_COLOUR = "#d4d4dc"
BAND_COLOUR = "#eef6f1"
INK = "#6a6a75"
NUM_LABELS = 5
BAR_HEIGHT, BAR_GAP, NAME_WIDTH, COUNT_WIDTH, BARS_WIDTH = 22, 8, 130, 80, 1000
PALETTE = ("#3b6fb6", "#c8731b", "#2f8f6b", "#8a4fa3", "#a33b4a", "#5b8c2a", "#b08a1e", "#4a9bb5", "#77624b", "#c0608f")


def histogram_svg(
    title: str,
    histogram: Mapping[str, Any],
    *,
    colour: str = PALETTE[0],
    before: Mapping[str, Any] | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """Draw one histogram; every bar says its bin and count when pointed at.

    Args:
        title: Above the bars.
        histogram: `edges` and `counts` of the manifest; bins are drawn equally wide, whatever they span.
        colour: Of its bars.
        before: Drawn in grey behind it; same edges.
        band: Values between which the ground is shaded.
    """
    edges, counts = histogram["edges"], histogram["counts"]
    most = max([1, *counts, *(before["counts"] if before else ())])
    step = WIDTH / len(edges)
    ground = ""
    if band:
        left, right = (_place(value, edges) * step for value in band)
        ground = (
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
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" font-size="10" fill="{INK}">'
        f'<text x="0" y="11" font-weight="600">{html.escape(title)}</text>{ground}{bars}'
        f'<line x1="0" y1="{HEIGHT - BOTTOM}" x2="{WIDTH}" y2="{HEIGHT - BOTTOM}" stroke="{INK}"/>{labels}</svg>'
    )


def stacked_bars_svg(rows: Mapping[str, Mapping[str, int]]) -> str:
    """Draw one bar per row, made of its parts; one part has one colour in all rows.

    Example:
        >>> stacked_bars_svg({"chart": {"chartqa": 3}}).count("<rect")
        2
    """
    parts = sorted({part for row in rows.values() for part in row})
    colours = {part: PALETTE[i % len(PALETTE)] for i, part in enumerate(parts)}
    most = max([1, *(sum(row.values()) for row in rows.values())])
    scale = (BARS_WIDTH - NAME_WIDTH - COUNT_WIDTH) / most
    drawn = []
    for number, (name, row) in enumerate(sorted(rows.items())):
        y, x = number * (BAR_HEIGHT + BAR_GAP), float(NAME_WIDTH)
        drawn.append(f'<text x="0" y="{y + 15}">{html.escape(name)}</text>')
        for part in parts:
            width = row.get(part, 0) * scale
            if width:
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{colours[part]}">'
                    f"<title>{html.escape(part)}: {row[part]}</title></rect>"
                )
            x += width
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{sum(row.values())}</text>')
    top = len(rows) * (BAR_HEIGHT + BAR_GAP)
    return (
        f'<svg viewBox="0 0 {BARS_WIDTH} {top + _legend_height(parts)}" role="img" font-size="12" fill="{INK}">'
        f"{''.join(drawn)}{_legend(parts, colours, top)}</svg>"
    )


LEGEND_COLUMNS = 4
LEGEND_ROW = 20


def _legend_height(parts: Sequence[str]) -> int:
    return -(-len(parts) // LEGEND_COLUMNS) * LEGEND_ROW


def _legend(parts: Sequence[str], colours: Mapping[str, str], top: int) -> str:
    entries = []
    for number, part in enumerate(parts):
        x = number % LEGEND_COLUMNS * (BARS_WIDTH // LEGEND_COLUMNS)
        y = top + number // LEGEND_COLUMNS * LEGEND_ROW
        entries.append(
            f'<rect x="{x}" y="{y + 4}" width="10" height="10" fill="{colours[part]}"/>'
            f'<text x="{x + 16}" y="{y + 13}">{html.escape(part)}</text>'
        )
    return "".join(entries)


def _bars(histogram: Mapping[str, Any], most: int, colour: str, note: str) -> str:
    edges, counts = histogram["edges"], histogram["counts"]
    step, room = WIDTH / len(edges), HEIGHT - TOP - BOTTOM
    bars = []
    for place, (edge, count) in enumerate(zip(edges, counts, strict=True)):
        height = room * count / most
        span = f"{edge:g} to {edges[place + 1]:g}" if place + 1 < len(edges) else f"from {edge:g}"
        if count:
            bars.append(
                f'<rect x="{place * step + 1:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{step - 2:.1f}" '
                f'height="{height:.1f}" fill="{colour}"><title>{span}: {note}{count}</title></rect>'
            )
    return "".join(bars)


def _place(value: float, edges: Sequence[float]) -> float:
    """Give where a value lies, in bins from the left; the last bin ends with all values that are larger."""
    place = max(0, bisect_right(edges, value) - 1)
    if place + 1 >= len(edges):
        return float(place if value <= edges[-1] else place + 1)
    return place + max(0.0, value - edges[place]) / (edges[place + 1] - edges[place])
