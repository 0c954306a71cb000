"""Progress bars on the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bars(*, width: int = 0, disable: bool = False) -> "Progress":
    """Return bars with title, count and time, to be entered; what is no terminal gets each bar's last state once.

    Args:
        width: Characters that a title takes at least, so that the bars of several titles are aligned.
        disable: Whether nothing is shown.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    title = TextColumn(f"{{task.description:<{width}}}")
    return Progress(title, BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), disable=disable)
