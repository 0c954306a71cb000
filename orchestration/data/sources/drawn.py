"""Drawn tasks: charts and scenes made by the demo's generator; nothing to download."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from orchestration.data.config import SourceConfig
from orchestration.data.records import BadRow, RawBox, RawImage, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.demo.samples import DemoSample
from orchestration.demo.tasks import generate_samples
from orchestration.errors import ConfigError


class DrawnAdapter:
    """Pictures of 112 x 112 with questions of all reward families, drawn from a seed.

    Options: `num_rows`, how many; `seed`, another seed draws others. The split is `train` or `held_out`; no drawing is
    in both.
    """

    licence: ClassVar[Licence] = Licence(name="Apache-2.0", note="drawn by this project; its own licence holds")

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """One part: all rows of the split."""
        if set(config.options) != {"num_rows", "seed"}:
            raise ConfigError(
                f"drawn sources have the options num_rows and seed; got {', '.join(sorted(config.options)) or 'none'}"
            )
        if config.split not in ("train", "held_out"):
            raise ConfigError(f"drawn sources have the splits train and held_out, not {config.split!r}")
        return [Part(name=config.split, arguments=dict(config.options))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Draw them."""
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
