"""All adapters by name, and the adapter of drawn tasks, which needs no download."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from conf.own_code import is_own
from conf.ranges import nearest
from orchestration.data.sources.base import Adapter, Licence, Part
from orchestration.data.sources.choices import AI2D, MMMU, Geometry3K, ScienceQA
from orchestration.data.sources.coco_detection import CocoDetection
from orchestration.data.sources.json_files import Llava, PlotQA, ShareGPT4V
from orchestration.data.sources.mapped import FormatAdapter, HuggingFace, Jsonl, Parquet, formats
from orchestration.data.sources.own import SIGNATURE, OwnSource
from orchestration.data.sources.refcoco import RefCOCO, RefCOCOTable
from orchestration.data.sources.rows import BadRow, RawBox, RawImage, RawRow
from orchestration.demo.drawn.questions import DemoSample
from orchestration.demo.drawn.tasks import generate_samples
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnOptions:
    """Options of drawn sources."""

    num_rows: int
    seed: int = 0
    """Seed of the drawings."""
    in_words: bool = False
    """Whether questions say in words what is drawn, for models that take no pictures; there are no boxes then."""


class Drawn(Adapter):
    """Draws pictures of 112 x 112 pixels with questions of four reward families; nothing to download.

    Raw: none; the generator of the demo.

    Conversion: options are answered by their text, boxes are in pixels. Splits are train and held_out; no drawing is
    in both. Ids: digests of drawing and question, which become the sample ids.

    Options: num_rows (required), seed, in_words (text in place of pictures, and no boxes).
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
            in_words=part.arguments["in_words"],
        )
        return map(_raw_row, drawn)


def _raw_row(sample: DemoSample) -> RawRow:
    is_box = sample.task == "iou"
    return RawRow(
        source_id=sample.sample_id,
        task=sample.task,
        question=sample.question,
        answer="" if is_box else sample.answer,
        images=() if sample.image_png is None else (RawImage(data=sample.image_png),),
        options=sample.options,
        answer_type="text" if sample.task == "match_mcq" else sample.answer_type,
        boxes=(RawBox(values=tuple(json.loads(sample.answer))),) if is_box else None,
        part=sample.source.removeprefix("demo/"),
        metadata={"sample_id": sample.sample_id},
    )


_WRITTEN: dict[str, Callable[[], Adapter]] = {
    "ai2d": AI2D,
    "coco_detection": CocoDetection,
    "drawn": Drawn,
    "geometry3k": Geometry3K,
    "huggingface": HuggingFace,
    "jsonl": Jsonl,
    "llava": Llava,
    "mmmu": MMMU,
    "parquet": Parquet,
    "plotqa": PlotQA,
    "refcoco": RefCOCO,
    "refcoco_table": RefCOCOTable,
    "scienceqa": ScienceQA,
    "sharegpt4v": ShareGPT4V,
}
_DESCRIBED: dict[str, Callable[[], Adapter]] = {name: partial(FormatAdapter, name) for name in formats()}

ADAPTERS: Mapping[str, Callable[[], Adapter]] = MappingProxyType(dict(sorted({**_WRITTEN, **_DESCRIBED}.items())))
"""Factory of each adapter by name."""


def find_adapter(name: str) -> Adapter:
    """Return a new adapter: one of ours by its name, or a function of the user's, `FILE.py:NAME`.

    Raises:
        ConfigError: No adapter has that name (the message names the nearest and lists all), or there is no such
            function.

    Example:
        >>> find_adapter("docci").licence.name
        'CC BY 4.0'
    """
    if is_own(name):
        return OwnSource(name)
    make = ADAPTERS.get(name)
    if make is None:
        near = nearest(name, ADAPTERS)
        hint = f"did you mean {near}? Known" if near else "known"
        raise ConfigError(
            f"no adapter is called {name!r}; {hint} adapters: {', '.join(ADAPTERS)}, or FILE.py:NAME, a function "
            f"{SIGNATURE}"
        )
    return make()


def describe() -> str:
    """Return all adapters as text: name, licence, first line of the description; last, a source of one's own."""
    lines = []
    for name in ADAPTERS:
        adapter = find_adapter(name)
        lines.append(f"{name:16} {adapter.licence.name:24} {adapter.description.splitlines()[0]}")
    lines.append(
        f"{'FILE.py:NAME':16} {'of your own':24} A function {SIGNATURE}: orchestration/data/sources/README.md."
    )
    return "\n".join(lines)
