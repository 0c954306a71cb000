"""The stages that take one row at a time: each is its settings, which travel to a worker, and a function made there."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestration.data.checking.normalise import guard, normalise
from orchestration.data.checking.validate import validate
from orchestration.data.checking.verify import ReferenceCheck
from orchestration.data.rows.chunks import Chunk, ChunkWriter, ImageReader
from orchestration.data.rows.code import stage_code
from orchestration.data.rows.records import StoredImage
from orchestration.data.rows.tables import candidate_from_json, candidate_to_json, raw_from_json
from orchestration.data.stages.measure import Ruler, measure
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig
from rewards.config import RewardConfig

Values = dict[str, Any]
Step = Callable[[Values], Values]


@dataclass(frozen=True, slots=True)
class ValidateStage:
    """Stage 2: images decode, texts are clean; images that had to be changed are stored anew, the others stay."""

    name: ClassVar[str] = "validate"
    limits: LimitsConfig
    store: Path

    def key(self) -> Any:
        """See RowStage."""
        return [asdict(self.limits), stage_code(self.name)]

    @contextmanager
    def opened(self, chunk: Chunk, writer: ChunkWriter) -> Iterator[Step]:
        """See RowStage."""
        reader = ImageReader(self.store)

        def step(values: Values) -> Values:
            row, places = raw_from_json(values["row"])
            raw = [reader.read(chunk.address, place) for place in places]
            is_graded = values["role"] != "guard"
            images = []
            for image, checked, data, place in zip(
                row.images, validate(row, raw, self.limits, needs_reference=is_graded), raw, places, strict=True
            ):
                is_same = checked.sha256 == hashlib.sha256(data).hexdigest()
                address = chunk.address if is_same else writer.address
                index = place if is_same else writer.add_image(checked.data)
                images.append(asdict(checked.stored(image_id=image.image_id, chunk=address, index=index)))
            return {**values, "images": images}

        yield step


@dataclass(frozen=True, slots=True)
class NormaliseStage:
    """Stage 3: one form for options, letters, boxes and prompts; each reference is tried on its own reward."""

    name: ClassVar[str] = "normalise"
    config: NormaliseConfig
    limits: LimitsConfig
    reward: RewardConfig
    seed: int

    def key(self) -> Any:
        """See RowStage."""
        return [asdict(self.config), asdict(self.limits), asdict(self.reward), self.seed, stage_code(self.name)]

    @contextmanager
    def opened(self, chunk: Chunk, writer: ChunkWriter) -> Iterator[Step]:
        """See RowStage."""
        with ReferenceCheck(self.reward) as references:

            def step(values: Values) -> Values:
                row, _ = raw_from_json(values["row"])
                images = [StoredImage(**image) for image in values["images"]]
                if values["role"] == "guard":
                    return candidate_to_json(guard(row, images, source=values["source"], license=values["license"]))
                candidate = normalise(
                    row,
                    images,
                    source=values["source"],
                    role=values["role"],
                    license=values["license"],
                    config=self.config,
                    limits=self.limits,
                    seed=self.seed,
                )
                references.check(candidate)
                return candidate_to_json(candidate)

            yield step


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

    @contextmanager
    def opened(self, chunk: Chunk, writer: ChunkWriter) -> Iterator[Step]:
        """See RowStage."""
        yield lambda values: candidate_to_json(measure(candidate_from_json(values), self.ruler))
