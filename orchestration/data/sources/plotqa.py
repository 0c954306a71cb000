"""PlotQA: questions made from templates about drawn plots."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.data.sources.answers import TASKS
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, require_file
from orchestration.data.sources.fields import as_fields, file_image
from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.data.sources.streams import Record, json_array, read_rows
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig

LAYOUT = "<split>/qa_pairs_v1.json or qa_pairs_v2.json, and <split>/png/<image_index>.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of PlotQA."""

    questions: str = ""
    """Name of the question file in the split's folder; empty takes the only qa_pairs*.json there."""
    images: str = "{split}/png"
    """Folder of the images."""
    decimals: int = 2
    """Places that answers are rounded to: they are computed from the plot's data to more than it can show."""


class PlotQA(Adapter):
    """Reads PlotQA's question files, 8 or 29 million rows: set max_rows and quota.

    Raw: `<split>/qa_pairs_v1.json` (or `_v2`), an array (in early copies inside {"qa_pairs": [...]}) of {image_index,
    question_string, answer, answer_bbox, template, type}; `<split>/png/<image_index>.png`.

    Conversion: yes/no becomes match_yesno; all else chart with answer_type number, year or text. `template` and the
    plot's `type` go into metadata, so that shares can be watched by template. Numbers are rounded to
    `options.decimals`, those that would round to 0 are kept as they are. Ids are running numbers.

    Options: questions, images, decimals.
    """

    licence = Licence(
        name="unverified",
        note="the repository's licence file is MIT; whether it means the images and questions is not said there: check",
        url_hint="repository of the authors (NiteshMethani/PlotQA)",
    )
    options = Options

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        folder = root / config.split
        if options.questions:
            return file_parts(root, [require_file(root, f"{config.split}/{options.questions}", LAYOUT)])
        found = sorted(folder.glob("qa_pairs*.json"))
        if not found:
            raise missing(root, f"{config.split}/qa_pairs*.json", LAYOUT)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ConfigError(f"{folder} holds {names}; v2 contains v1: set options.questions to one of them")
        return file_parts(root, found)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)
        folder = options.images.replace("{split}", config.split)
        array = "qa_pairs" if _starts_with_brace(part.files[0]) else ""
        return read_rows(
            json_array(part.files[0], array),
            lambda record: [_row(record, part.name, folder, options.decimals)],
            part.name,
        )


def _row(record: Record, part: str, folder: str, decimals: int) -> RawRow:
    row = as_fields(record.value)
    question, number = row.text("question_string"), row.integer("image_index")
    answer = _rounded(row.raw("answer"), decimals) or row.answer("answer")
    task, answer, answer_type = TASKS["plot"](question, answer)
    return RawRow(
        source_id=f"{part}/{record.place}",
        task=task,
        question=question,
        answer=answer,
        answer_type=answer_type,
        images=(file_image(folder, f"{number}.png", f"plotqa/{folder}/{number}"),),
        metadata={"template": row.label("template"), "plot": row.label("type")},
    )


def _rounded(value: object, decimals: int) -> str:
    """Round a number that is no integer; empty for everything else, and where nothing would be left of it."""
    if not isinstance(value, float) or value.is_integer() or value != value:
        return ""
    rounded = round(value, decimals)
    return repr(rounded) if rounded else ""


def _starts_with_brace(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1_000).lstrip()[:1] == b"{"
