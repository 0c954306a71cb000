"""The stages that take one row at a time, each as settings that travel to a worker and a function made there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestration.data import measure
from orchestration.data.chunks import Chunk, ChunkWriter
from orchestration.data.code import stage_code
from orchestration.data.measure import Ruler
from orchestration.data.rows import candidate_from_json, candidate_to_json

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MeasureStage:
    """Stage 5: how long every prompt is."""

    name: ClassVar[str] = "measure"
    ruler: Ruler
    processor: str
    """Digest of the processor's files."""

    def key(self) -> Any:
        """See RowStage."""
        return [self.ruler.settings, self.processor, stage_code(self.name)]

    def open(self, chunk: Chunk, writer: ChunkWriter) -> Callable[[Values], Values]:
        """See RowStage."""
        return lambda values: candidate_to_json(measure.measure(candidate_from_json(values), self.ruler))
