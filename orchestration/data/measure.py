"""Stage 5, measure: prompt and image tokens of each row under the model's own processor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from orchestration.data.chunks import Chunk, ChunkWriter
from orchestration.data.sources.rows import Candidate, Refused, RejectReason, candidate_from_json, candidate_to_json
from orchestration.data.stages import RowStage, RowStep, stage_code
from rollout.conversation import PromptSpec
from rollout.errors import RolloutError
from rollout.prompt import PromptBuilder

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Files of a model folder that determine prompt lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruler:
    """Settings that prompt lengths depend on."""

    model: Path
    """Hugging Face folder; only its processor is read."""
    spec: PromptSpec
    max_images: int
    max_prompt_tokens: int

    @property
    def settings(self) -> tuple[str, int, int]:
        """All settings but the folder, which counts by its content."""
        return self.spec.record, self.max_images, self.max_prompt_tokens


def processor_files(model: Path) -> Iterable[Path]:
    """Return the existing PROCESSOR_FILES of a model folder."""
    return [model / name for name in PROCESSOR_FILES if (model / name).is_file()]


@lru_cache(maxsize=1)
def prompt_builder(ruler: Ruler) -> PromptBuilder:
    """Load the processor; a worker caches the latest."""
    return PromptBuilder(ruler.model, spec=ruler.spec, max_images=ruler.max_images)


def measure(row: Candidate, ruler: Ruler) -> Candidate:
    """Return the row with its lengths.

    Raises:
        Refused: The prompt is too long, or the processor refuses it.
    """
    try:
        length = prompt_builder(ruler).measure(
            row.question,
            [image.size for image in row.images],
            row.sample_id,
            system=row.system,
            history=row.history,
            task=row.task,
        )
    except RolloutError as error:
        raise Refused(RejectReason.PROMPT_UNBUILDABLE, str(error)) from error
    if length.num_tokens > ruler.max_prompt_tokens:
        raise Refused(
            RejectReason.PROMPT_TOO_LONG,
            f"{length.num_tokens} tokens, {length.num_image_tokens} of images; {ruler.max_prompt_tokens} allowed",
        )
    return replace(row, prompt_tokens=length.num_tokens, image_tokens=length.num_image_tokens)


def measure_stage(ruler: Ruler, processor: str) -> RowStage:
    """Return stage 5; `processor` is the digest of the processor's files."""
    key = [ruler.settings, processor, stage_code("measure")]
    return RowStage(name="measure", key=key, opened=partial(_opened, ruler))


@contextmanager
def _opened(ruler: Ruler, chunk: Chunk, writer: ChunkWriter) -> Iterator[RowStep]:
    yield lambda values: candidate_to_json(measure(candidate_from_json(values), ruler))
