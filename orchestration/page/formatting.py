"""Numbers and progress, formatted for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

GIB, MIB = 1 << 30, 1 << 20
THOUSAND, MILLION, BILLION = 10**3, 10**6, 10**9
NO_NAME = "''"
"""How an empty name of a task or source is shown."""
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0


def size(num_bytes: float) -> str:
    """Return a number of bytes as text.

    Example:
        >>> size(3 << 29), size(5 << 20)
        ('1.5 GiB', '5.0 MiB')
    """
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:,.1f} MiB"


def count(number: float) -> str:
    """Return a large number as text, to three figures.

    Example:
        >>> count(8_292_166_656), count(1_240_000), count(512)
        ('8.29 billion', '1.24 million', '512')
    """
    for unit, name in ((BILLION, "billion"), (MILLION, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{round(number):,}"


def seconds(duration_s: float) -> str:
    """Return a duration as text.

    Example:
        >>> seconds(0.0312), seconds(6.0), seconds(41.3), seconds(7_200), seconds(200_000)
        ('0.031 s', '6.0 s', '41 s', '2.0 h', '2.3 days')
    """
    if duration_s >= 2 * DAY_S:
        return f"{duration_s / DAY_S:.1f} days"
    if duration_s >= HOUR_S:
        return f"{duration_s / HOUR_S:.1f} h"
    if duration_s >= 2 * MINUTE_S:
        return f"{duration_s / MINUTE_S:.1f} min"
    if duration_s >= 1.0:
        return f"{duration_s:.0f} s" if duration_s >= 10.0 else f"{duration_s:.1f} s"
    return f"{duration_s:.2g} s"


def p_value(value: float) -> str:
    """Return a p-value with three decimals, or that it is smaller.

    Example:
        >>> p_value(0.0301), p_value(0.0001)
        ('0.030', '<0.001')
    """
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def span(first: int, last: int) -> str:
    """Return a range of numbers as text.

    Example:
        >>> span(0, 7), span(3, 3)
        ('0-7', '3')
    """
    return str(first) if first == last else f"{first}-{last}"


def some(number: float, noun: str) -> str:
    """Return a number with its noun, in the plural where due.

    Example:
        >>> some(1, "GPU"), some(8, "GPU")
        ('1 GPU', '8 GPUs')
    """
    return f"{number:,g} {noun}" if number == 1 else f"{number:,g} {noun}s"


def progress_bars(*, width: int = 0, disable: bool = False) -> "Progress":
    """Return bars with title, count and time, to be entered; what is no terminal gets each bar's last state once.

    Args:
        width: Characters that a title takes at least, so that the bars of several titles are aligned.
        disable: Whether nothing is shown.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    title = TextColumn(f"{{task.description:<{width}}}")
    return Progress(title, BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), disable=disable)
