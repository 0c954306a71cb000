"""Progress bars of a build: one a stage, counted in rows."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

Advance = Callable[[int], None]
"""Told how many more rows are done."""

WORDS = {
    "read": "reading sources",
    "validate": "checking images and texts",
    "normalise": "normalising and proving references",
    "deduplicate": "looking for duplicates and leaks",
    "measure": "measuring prompts",
    "sample": "sampling the policy",
    "select": "selecting",
    "write": "writing shards",
}


class StageBars:
    """Bars on the terminal; a log that is no terminal gets each stage's last state once."""

    def __init__(self) -> None:
        """Show nothing until a stage begins."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<34}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns)

    def begin(self, stage: str, total: int | None) -> Advance:
        """Show the bar of a stage.

        Args:
            stage: A key of WORDS.
            total: Rows to come; None where nobody knows yet.
        """
        bar = self._progress.add_task(WORDS[stage], total=total)
        return lambda rows: self._progress.update(bar, advance=rows)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        self._progress.stop()
