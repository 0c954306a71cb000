"""ChartQA: questions about charts, by people (human) and by a model (augmented)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from orchestration.data.rows.records import BadRow, RawImage, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.fields import Fields, as_answer, as_fields, as_texts
from orchestration.data.sources.files import file_parts, missing, split_files
from orchestration.data.sources.pictures import cell_image, file_image
from orchestration.data.sources.short_answers import as_list, chart_type
from orchestration.data.sources.streams import Record, json_array, parquet_rows, read_rows
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "data/train-*.parquet (HuggingFaceM4/ChartQA), or train/train_human.json and train/png/ (ChartQA Dataset)"
_PARTS = {0: "human", 1: "augmented", "human": "human", "machine": "augmented"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """ChartQA has no options."""


class ChartQA:
    """Reads ChartQA in either of its two downloads; Parquet is taken where both are there.

    HuggingFaceM4/ChartQA:
        `data/{train,val,test}-*.parquet` with `image` {bytes, path}, `query`, `label` (list of texts),
        `human_or_machine` (0 human, 1 machine).
    The authors' repository (`ChartQA Dataset/` is the root):
        `<split>/<split>_human.json` and `<split>/<split>_augmented.json`, arrays of {imgname, query, label};
        `<split>/png/<imgname>`.

    Conversion: task chart; one label is the answer, several are a list; answer_type is number, year, text or list
    (`short_answers.chart_type` has the rule for years). `human` and `augmented` become the row's part.
    Ids are running numbers. Options: none.
    """

    licence: ClassVar[Licence] = Licence(
        name="gpl-3.0",
        note="as on the card of HuggingFaceM4/ChartQA; the charts come from Statista, Pew, OWID and OECD with terms of "
        "their own: check before sharing",
        url_hint="dataset card; repository of the authors (vis-nlp/ChartQA)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the files of the split; see Adapter."""
        build(Options, config.options, "options")
        tables = split_files(root, config.split)
        if tables:
            return file_parts(root, tables)
        files = [root / config.split / f"{config.split}_{kind}.json" for kind in ("human", "augmented")]
        found = [path for path in files if path.is_file()]
        if not found:
            raise missing(root, f"{config.split}-*.parquet and no {config.split}/{config.split}_human.json", LAYOUT)
        return file_parts(root, found)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read one file; see Adapter."""
        path = part.files[0]
        if path.suffix == ".parquet":
            return read_rows(parquet_rows(path), lambda record: [_table_row(record, part.name)], part.name)
        kind = path.stem.rpartition("_")[2]
        folder = f"{config.split}/png"
        return read_rows(json_array(path), lambda record: [_json_row(record, part.name, kind, folder)], part.name)


def _table_row(record: Record, part: str) -> RawRow:
    row = as_fields(record.value)
    maker = row.raw("human_or_machine")
    kind = _PARTS.get(maker, "") if isinstance(maker, (int, str)) else ""
    return _row(row, f"{part}/{record.place}", kind, cell_image(row.raw("image"), "image"))


def _json_row(record: Record, part: str, kind: str, folder: str) -> RawRow:
    row = as_fields(record.value)
    return _row(row, f"{part}/{record.place}", kind, file_image(folder, row.text("imgname")))


def _row(row: Fields, source_id: str, kind: str, image: RawImage) -> RawRow:
    question, label = row.text("query"), row.raw("label")
    labels = as_texts(label, "label") if isinstance(label, list) else (as_answer(label, "label"),)
    answer = "".join(labels) if len(labels) < 2 else as_list(labels)
    return RawRow(
        source_id=source_id,
        task="chart",
        question=question,
        answer=answer,
        answer_type=chart_type(question, answer),
        images=(image,),
        part=kind,
    )
