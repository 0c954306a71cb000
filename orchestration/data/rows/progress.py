"""Progress bars of a build: one a stage, counted in rows."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import TaskID

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
        self._bars: dict[str, TaskID] = {}

    def begin(self, stage: str, total: int | None) -> Advance:
        """Show the bar of a stage.

        Args:
            stage: A key of WORDS.
            total: Rows to come; None where nobody knows yet.
        """
        bar = self._bars[stage] = self._progress.add_task(WORDS[stage], total=total)
        return lambda rows: self._progress.update(bar, advance=rows)

    def end(self, stage: str) -> None:
        """Stop the clock of a stage at what is done."""
        bar = self._bars[stage]
        self._progress.update(bar, total=self._progress.tasks[bar].completed)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        self._progress.stop()
