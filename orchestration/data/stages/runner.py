"""Runs stages over chunks: one chunk in, one chunk out, in a worker; rows that a stage refuses are quarantined."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from orchestration.data.rows.chunks import Chunk, ChunkWriter, digest_of
from orchestration.data.rows.reasons import Refused
from orchestration.data.rows.records import EXCERPT_CHARS, Rejected

if TYPE_CHECKING:
    from rich.progress import TaskID

Advance = Callable[[int], None]
"""Called with the number of rows that were finished since the last call."""
RowStep = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the values of a row into those of the next stage, or raises Refused."""
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Applies a function to items in worker processes, results in order; at most a few items are taken ahead."""

TITLES = {
    "read": "reading sources",
    "validate": "checking images and texts",
    "normalise": "normalising and proving references",
    "deduplicate": "looking for duplicates and leaks",
    "measure": "measuring prompts",
    "sample": "sampling the policy",
    "select": "selecting",
    "write": "writing shards",
}


class RowStage(Protocol):
    """A stage that takes one row at a time: settings, pickled to the workers, and a function that is made there."""

    name: ClassVar[str]

    def key(self) -> Any:
        """JSON values of everything that shapes the result, beside the rows themselves."""
        ...

    def opened(self, chunk: Chunk, writer: ChunkWriter) -> AbstractContextManager[RowStep]:
        """Return the function that is applied to each row of a chunk."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTask:
    """One stage over one chunk."""

    stage: RowStage
    source: Path
    target: Path


def run_chunk(task: ChunkTask) -> Chunk:
    """Return the chunk that the stage makes of another one; a finished one is reused."""
    done = Chunk.open(task.target)
    if done is not None:
        return done
    source = Chunk.open(task.source)
    assert source is not None, task.source
    writer = ChunkWriter(task.target)
    with task.stage.opened(source, writer) as step:
        for values in source.rows():
            try:
                writer.add(step(values))
            except Refused as refusal:
                writer.reject(rejected(task.stage.name, values, refusal))
    return writer.finish(source.origin)


def rejected(stage: str, values: dict[str, Any], refusal: Refused) -> Rejected:
    """Return the quarantine entry of a row, raw or canonical."""
    row = values.get("row", values)
    return Rejected(
        stage=stage,
        source=values["source"],
        source_id=row["source_id"][:EXCERPT_CHARS],
        role=values["role"],
        reason=refusal.reason,
        detail=refusal.detail[:EXCERPT_CHARS],
        question=row["question"][:EXCERPT_CHARS],
    )


def run_stage(stage: RowStage, chunks: Sequence[Chunk], store: Path, run: Map, advance: Advance) -> list[Chunk]:
    """Run a stage over all chunks, several at a time, and return the results in order."""
    key = stage.key()
    tasks = [
        ChunkTask(stage=stage, source=chunk.folder, target=result_folder(store, stage.name, key, chunk))
        for chunk in chunks
    ]
    results = []
    for chunk, result in zip(chunks, run(run_chunk, tasks), strict=True):
        advance(chunk.num_rows)
        results.append(result)
    return results


def result_folder(store: Path, stage: str, key: Any, chunk: Chunk) -> Path:
    """Return the folder of the result of a stage over a chunk."""
    return store / stage / digest_of(key, chunk.folder.parent.name, chunk.folder.name, chunk.digest)


def rows_in_order(chunks: Iterable[Chunk]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of all chunks from 0."""
    number = 0
    for chunk in chunks:
        for values in chunk.rows():
            yield number, values
            number += 1


Verdict = Refused | dict[str, Any]
"""Why a row is rejected, or which of its values change; rows without a verdict stay unchanged."""


def sift(
    stage: str, key: Any, chunks: Sequence[Chunk], store: Path, verdicts: Callable[[], Iterator[tuple[int, Verdict]]]
) -> list[Chunk]:
    """Run a stage that must see all rows before it can decide on one.

    Args:
        stage: Name of the stage.
        key: JSON values of its settings and code.
        chunks: In the order in which rows are numbered.
        store: Folder of all chunks.
        verdicts: Returns (number, verdict) in ascending order of number; called only if a result is missing.
    """
    whole = digest_of(key, *((chunk.folder.name, chunk.digest) for chunk in chunks))
    folders = [store / stage / f"{whole}-{number:06d}" for number in range(len(chunks))]
    found = [Chunk.open(folder) for folder in folders]
    if all(found):
        return [chunk for chunk in found if chunk is not None]
    coming = verdicts()
    upcoming = next(coming, None)
    number, results = 0, []
    for chunk, folder, done in zip(chunks, folders, found, strict=True):
        if done is not None:
            number += chunk.num_rows
            while upcoming is not None and upcoming[0] < number:
                upcoming = next(coming, None)
            results.append(done)
            continue
        writer = ChunkWriter(folder)
        for values in chunk.rows():
            verdict: Verdict = {}
            if upcoming is not None and upcoming[0] == number:
                verdict = upcoming[1]
                upcoming = next(coming, None)
            if isinstance(verdict, Refused):
                writer.reject(rejected(stage, values, verdict))
            else:
                writer.add({**values, **verdict})
            number += 1
        results.append(writer.finish(chunk.origin))
    return results


class StageBars:
    """Progress bars, one for each stage; a log that is not a terminal gets each stage's last state once."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<34}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns)
        self._bars: dict[str, TaskID] = {}

    def begin(self, stage: str, total: int | None) -> Advance:
        """Show the bar of a stage.

        Args:
            stage: A key of TITLES.
            total: Rows to come; None where that is not known yet.
        """
        bar = self._bars[stage] = self._progress.add_task(TITLES[stage], total=total)
        return lambda rows: self._progress.update(bar, advance=rows)

    def end(self, stage: str) -> None:
        """Stop the clock of a stage at what is done."""
        bar = self._bars[stage]
        self._progress.update(bar, total=self._progress.tasks[bar].completed)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
