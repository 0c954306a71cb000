"""Drawn tasks: charts and scenes made by the demo's generator; nothing to download."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestration.data.rows import BadRow, RawBox, RawImage, RawRow
from orchestration.data.sources.base import Adapter, Licence, Part
from orchestration.demo.drawn.samples import DemoSample
from orchestration.demo.drawn.tasks import generate_samples
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnOptions:
    """Which rows are drawn."""

    num_rows: int
    seed: int = 0
    """Another seed draws others."""


class Drawn(Adapter):
    """Draws pictures of 112 x 112 pixels with questions of four reward families; nothing to download.

    Raw: none; the generator of the demo.

    Conversion: options are answered by their text, boxes are in pixels. Splits are train and held_out; no drawing is
    in both. Ids: digests of drawing and question, which become the sample ids.

    Options: num_rows (required), seed.
    """

    licence = Licence(name="Apache-2.0", note="drawn by this project, so its own licence holds")
    options = DrawnOptions

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        if config.split not in ("train", "held_out"):
            raise ConfigError(f"split is {config.split!r}; drawn sources have train and held_out")
        return [Part(name=config.split, arguments=asdict(options))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        drawn = generate_samples(
            seed=part.arguments["seed"],
            split=part.name,  # type: ignore[arg-type]
            num_samples=part.arguments["num_rows"],
        )
        return map(_raw_row, drawn)


def _raw_row(sample: DemoSample) -> RawRow:
    is_box = sample.task == "iou"
    return RawRow(
        source_id=sample.sample_id,
        task=sample.task,
        question=sample.question,
        answer="" if is_box else sample.answer,
        images=(RawImage(data=sample.image_png),),
        options=sample.options,
        answer_type="text" if sample.task == "match_mcq" else sample.answer_type,
        boxes=(RawBox(values=tuple(json.loads(sample.answer))),) if is_box else None,
        part=sample.source.removeprefix("demo/"),
        metadata={"sample_id": sample.sample_id},
    )
