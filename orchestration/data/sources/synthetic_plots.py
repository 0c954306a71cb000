"""PlotQA and DVQA: questions made from templates about drawn plots."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.fields import as_fields
from orchestration.data.sources.files import file_parts, missing, require_file
from orchestration.data.sources.pictures import file_image, stem
from orchestration.data.sources.short_answers import chart_type, is_yes_no
from orchestration.data.sources.streams import Record, json_array, read_rows
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

PLOTQA_LAYOUT = "<split>/qa_pairs_v1.json or qa_pairs_v2.json, and <split>/png/<image_index>.png"
DVQA_LAYOUT = "qa/<split>_qa.json and images/bar_<split>_<number>.png; splits train, val_easy, val_hard"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotQAOptions:
    """What PlotQA understands."""

    questions: str = ""
    """Name of the question file in the split's folder; empty takes the only qa_pairs*.json there."""
    images: str = "{split}/png"
    """Folder of the images."""
    decimals: int = 2
    """Places that answers are rounded to: they are computed from the plot's data to more than it can show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DVQAOptions:
    """What DVQA understands."""

    questions: str = "qa/{split}_qa.json"
    """The question file."""
    images: str = "images"
    """Folder of the images of all splits."""


class PlotQA:
    """Reads PlotQA's question files, 8 or 29 million rows: set max_rows and quota.

    Raw: `<split>/qa_pairs_v1.json` (or `_v2`), an array (in early copies inside {"qa_pairs": [...]}) of {image_index,
    question_string, answer, answer_bbox, template, type}; `<split>/png/<image_index>.png`.

    Conversion: yes/no becomes match_yesno; all else chart with answer_type number, year or text. `template` and the
    plot's `type` go into metadata, so that shares can be watched by template. Numbers are rounded to
    `options.decimals`, those that would round to 0 are kept as they are. Ids are running numbers.

    Options: questions, images, decimals.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="the repository's licence file is MIT; whether it means the images and questions is not said there: check",
        url_hint="repository of the authors (NiteshMethani/PlotQA)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the question file of the split; see Adapter."""
        options = build(PlotQAOptions, config.options, "options")
        folder = root / config.split
        if options.questions:
            return file_parts(root, [require_file(root, f"{config.split}/{options.questions}", PLOTQA_LAYOUT)])
        found = sorted(folder.glob("qa_pairs*.json"))
        if not found:
            raise missing(root, f"{config.split}/qa_pairs*.json", PLOTQA_LAYOUT)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ConfigError(f"{folder} holds {names}; v2 contains v1: set options.questions to one of them")
        return file_parts(root, found)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the question file; see Adapter."""
        options = build(PlotQAOptions, config.options, "options")
        folder = options.images.replace("{split}", config.split)
        array = "qa_pairs" if _starts_with_brace(part.files[0]) else ""
        return read_rows(
            json_array(part.files[0], array),
            lambda record: [_plotqa_row(record, part.name, folder, options.decimals)],
            part.name,
        )


class DVQA:
    """Reads DVQA's question files, 2.3 million rows for train: set max_rows and quota.

    Raw: `qa/<split>_qa.json`, an array of {image, question, answer, question_type, template_id, bbox_answer or
    answer_bbox, question_id}; `images/<image>`, all splits in one folder. Splits: train, val_easy, val_hard.

    Conversion: yes/no becomes match_yesno; all else chart with answer_type number, year or text. DVQA writes values as
    digits and counts as words (`two`): a count is text, as its authors grade it. `question_type` (structure, data,
    reasoning) and `template_id`, where the file has one, go into metadata. Ids are running numbers.

    Options: questions, images.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="check for a non-commercial clause before use",
        url_hint="repository of the authors (kushalkafle/DVQA_dataset)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the question file of the split; see Adapter."""
        options = build(DVQAOptions, config.options, "options")
        name = options.questions.replace("{split}", config.split)
        return file_parts(root, [require_file(root, name, DVQA_LAYOUT)])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the question file; see Adapter."""
        options = build(DVQAOptions, config.options, "options")
        return read_rows(
            json_array(part.files[0]), lambda record: [_dvqa_row(record, part.name, options.images)], part.name
        )


def _plotqa_row(record: Record, part: str, folder: str, decimals: int) -> RawRow:
    row = as_fields(record.value)
    question, number = row.text("question_string"), row.integer("image_index")
    return _template_row(
        RawRow(
            source_id=f"{part}/{record.place}",
            task="chart",
            question=question,
            answer=_rounded(row.raw("answer"), decimals) or row.answer("answer"),
            images=(file_image(folder, f"{number}.png", f"plotqa/{folder}/{number}"),),
            metadata={"template": row.label("template"), "plot": row.label("type")},
        )
    )


def _dvqa_row(record: Record, part: str, folder: str) -> RawRow:
    row = as_fields(record.value)
    image = row.text("image")
    return _template_row(
        RawRow(
            source_id=f"{part}/{record.place}",
            task="chart",
            question=row.text("question"),
            answer=row.answer("answer"),
            images=(file_image(folder, image, f"dvqa/{stem(image)}"),),
            metadata={
                "template": row.label("template_id") or row.label("question_type"),
                "question_id": row.label("question_id"),
            },
        )
    )


def _template_row(row: RawRow) -> RawRow:
    if is_yes_no(row.answer):
        return replace(row, task="match_yesno", answer=row.answer.strip().lower())
    return replace(row, answer_type=chart_type(row.question, row.answer))


def _rounded(value: object, decimals: int) -> str:
    """Round a number that is no integer; empty for everything else, and where nothing would be left of it."""
    if not isinstance(value, float) or value.is_integer() or value != value:
        return ""
    rounded = round(value, decimals)
    return repr(rounded) if rounded else ""


def _starts_with_brace(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1_000).lstrip()[:1] == b"{"
