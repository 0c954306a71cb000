"""A dataset in memory, as the prompt stream reads it."""

from collections.abc import Mapping
from typing import Any

from rollout.prompt_stream import PromptStream
from rollout.records import Sample


class MemoryTable:
    """The part of SampleTable that a stream needs; row i has sample_id str(i)."""

    def __init__(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Hold `counts[task, source, stratum]` rows of each kind, kinds interleaved as in a shuffled dataset."""
        rows = [(i / count, kind) for kind, count in counts.items() for i in range(count)]
        self.rows = [kind for _, kind in sorted(rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        task, source, stratum = self.rows[index]
        return Sample(sample_id=str(index), source=source, task=task, stratum=stratum, question="?", answer="!")

    def columns(self, *names: str) -> list[tuple[Any, ...]]:
        numbers = [("task", "source", "stratum").index(name) for name in names]
        return [tuple(row[number] for number in numbers) for row in self.rows]


def stream_of(table: MemoryTable, **settings: Any) -> PromptStream:
    """A stream with seed 3, 8 groups a step and no staleness unless told."""
    return PromptStream(table, **{"seed": 3, "groups_per_step": 8, "max_staleness": 0, **settings})  # type: ignore[arg-type]


def met(stream: PromptStream, positions: range) -> list[tuple[int, str]]:
    """(epoch, sample_id) of some positions."""
    draws = [stream.draw(position) for position in positions]
    return [(draw.epoch, draw.sample.sample_id) for draw in draws]
