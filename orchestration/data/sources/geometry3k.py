"""Geometry3K: geometry problems with a diagram, as free answers or multiple choice."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestration.data.rows import BadRow, RawImage, RawRow
from orchestration.data.sources.answers import LETTERS, from_letters, from_text
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, split_files
from orchestration.data.sources.fields import as_fields, cell_images, file_image, require_images, without_markers
from orchestration.data.sources.streams import Record, Records, broken_file, parquet_rows, read_rows
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "data/train-*.parquet (hiyouga/geometry3k), or <split>/<id>/data.json and <split>/<id>/img_diagram.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of Geometry3K."""

    form: Literal["free", "choices"] = "free"
    """free: the value is the answer, task math. choices: the letter is, task match_mcq."""


class Geometry3K(Adapter):
    """Reads Geometry3K in either of its two downloads; Parquet is taken where both are there.

    hiyouga/geometry3k:
        `data/{train,validation,test}-*.parquet` with `images`, `problem` ("<image>Find x."), `answer`, and in its later
        version `id`, `choices`, `ground_truth`.
    The authors' download:
        `<split>/<id>/data.json` with `annotat_text` or `problem_text`, `choices`, `answer` (a letter), `id`, and
        `<split>/<id>/img_diagram.png`. Splits train, val, test.

    Conversion: see options.form. Ids: the problem's number, or a running number where Parquet has none.

    Options: form.
    """

    licence = Licence(
        name="mit",
        note="as on the card of hiyouga/geometry3k; the problems come from textbooks: compare with the authors' page",
        url_hint="dataset card; repository of the authors (lupantech/InterGPS)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        build(Options, config.options, "options")
        tables = split_files(root, config.split)
        if tables:
            return file_parts(root, tables)
        problems = sorted((root / config.split).glob("*/data.json"))
        if not problems:
            raise missing(root, f"{config.split}-*.parquet and no {config.split}/<id>/data.json", LAYOUT)
        return [Part(name=config.split, files=tuple(problems))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        form = build(Options, config.options, "options").form
        if part.files[0].suffix == ".parquet":
            return read_rows(
                parquet_rows(part.files[0]), lambda record: [_table_row(record, part.name, form)], part.name
            )
        return read_rows(_problems(part.files), lambda record: [_problem_row(record, part.name, form)], part.name)


def _table_row(record: Record, part: str, form: str) -> RawRow:
    row = as_fields(record.value)
    number = row.label("id")
    images = require_images(cell_images(row.raw("images"), "images"), "images")
    question = without_markers(row.text("problem"))
    source_id = number or f"{part}/{record.place}"
    if form == "free":
        return _row(source_id, question, row.answer("answer"), images)
    options = row.texts("choices")
    letter = from_letters(row.raw("ground_truth"), "ground_truth")
    answer = letter if letter in LETTERS else from_text(row.raw("answer"), options, "answer")
    return _row(source_id, question, answer, images, options)


def _problem_row(record: Record, part: str, form: str) -> RawRow:
    row = as_fields(record.value)
    question = row.text_or("annotat_text") or row.text("problem_text")
    images = (file_image(f"{part}/{record.place}", "img_diagram.png", f"geometry3k/{record.place}"),)
    source_id = f"{part}/{record.place}"
    options = row.texts("choices")
    letter = from_letters(row.raw("answer"), "answer")
    if form == "choices":
        return _row(source_id, question, letter, images, options)
    index = LETTERS.find(letter) if len(letter) == 1 else -1
    return _row(source_id, question, options[index] if 0 <= index < len(options) else "", images)


def _row(
    source_id: str, question: str, answer: str, images: tuple[RawImage, ...], options: tuple[str, ...] | None = None
) -> RawRow:
    task = "math" if options is None else "match_mcq"
    return RawRow(
        source_id=source_id, task=task, question=question, answer=answer, images=images, options=options or ()
    )


def _problems(paths: tuple[Path, ...]) -> Records:
    for path in paths:
        try:
            yield Record(path.parent.name, json.loads(path.read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            yield broken_file(path, f"is no JSON: {error}", path.parent.name)
