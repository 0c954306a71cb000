"""Small drawings of a value with its interval, to stand in a cell of a table."""

from orchestration.evaluate.presets.statistics import Estimate

WIDTH, HEIGHT = 96, 14
"""Pixels of one drawing."""


def share_svg(estimate: Estimate) -> str:
    """Draw a value of [0, 1] as a bar from the left, its interval as a whisker."""
    value, low, high = (min(max(number, 0.0), 1.0) * WIDTH for number in (estimate.value, estimate.low, estimate.high))
    bar = f'<rect x="0" y="3" width="{value:.1f}" height="8" fill="#b9cbe8"/>'
    return _svg(bar + _whisker(low, high))


def change_svg(estimate: Estimate, limit: float) -> str:
    """Draw a change of at most `limit` from the middle to its side, green for a gain and red for a loss."""
    value, low, high = (
        (number / limit + 1.0) / 2.0 * WIDTH for number in (estimate.value, estimate.low, estimate.high)
    )
    middle = WIDTH / 2.0
    colour = "#a9d5bd" if value >= middle else "#e6b3b8"
    bar = (
        f'<rect x="{min(value, middle):.1f}" y="3" width="{abs(value - middle):.1f}" height="8" fill="{colour}"/>'
        f'<line x1="{middle}" y1="0" x2="{middle}" y2="{HEIGHT}" stroke="#6a6a75" stroke-width="0.5"/>'
    )
    return _svg(bar + _whisker(low, high))


def _whisker(low: float, high: float) -> str:
    middle = HEIGHT / 2.0
    ends = "".join(
        f'<line x1="{x:.1f}" y1="{middle - 3}" x2="{x:.1f}" y2="{middle + 3}" stroke="#22222a"/>' for x in (low, high)
    )
    return f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#22222a"/>{ends}'


def _svg(content: str) -> str:
    return f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="-1 0 {WIDTH + 2} {HEIGHT}">{content}</svg>'
