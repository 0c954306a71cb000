"""GeoQA and CLEVR-CoGenT as R1-style sets: an image, a problem, and a solution with the answer between tags."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.fields import Fields, as_fields
from orchestration.data.sources.files import file_parts, missing, split_files
from orchestration.data.sources.pictures import cell_images, require_images, without_markers
from orchestration.data.sources.short_answers import short_task
from orchestration.data.sources.streams import Record, parquet_rows, read_rows
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "data/<split>-*.parquet with image or images, problem, and solution or answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """R1-style sets have no options."""


class GeoQA:
    """Reads GeoQA in its Parquet forms.

    leonardPKU/GEOQA_8K_R1V and GEOQA_R1V_Train_8K:
        `data/train-*.parquet` with `image`, `problem`, `solution` ("<answer> 145 </answer>").
    Forms with `images` (a list), `problem`, `answer` (such as Yuting6/geoqa_plus) are read too.

    The authors' pickles (`train.pk`) hold images as NumPy arrays and are not read: loading them runs code.

    Conversion: math; the text between the answer tags, or all of it where there are none; `<image>` markers are
    dropped. Ids are running numbers. Options: none.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="neither the cards of the Parquet forms nor the authors' repository state terms that were seen: check",
        url_hint="dataset card; repository of the authors (chen-judge/GeoQA)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the tables of the split; see Adapter."""
        return _parts(root, config)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read one table; see Adapter."""
        return read_rows(parquet_rows(part.files[0]), lambda record: [_math_row(record, part.name)], part.name)


class ClevrCogent:
    """Reads CLEVR-CoGenT as R1-style sets.

    leonardPKU/clevr_cogent_a_train, MMInstruction/Clevr_CoGenT_TrainA_R1:
        `data/train-*.parquet` with `image`, `problem`, `solution` ("<answer> 3 </answer>"), and `thinking` in some.

    Conversion: by the answer, as for CLEVR: match_yesno, chart with answer_type number, or match_text. `thinking` is
    dropped. Ids are running numbers. Options: none.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="made from CLEVR, which is said to be CC BY 4.0; cards of the derived sets state nothing that was seen",
        url_hint="dataset card; CLEVR's page (Stanford)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the tables of the split; see Adapter."""
        return _parts(root, config)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read one table; see Adapter."""
        return read_rows(parquet_rows(part.files[0]), lambda record: [_short_row(record, part.name)], part.name)


def between_tags(text: str) -> str:
    """Give what stands between the last pair of answer tags, or the whole text.

    Example:
        >>> between_tags("<answer> 145 </answer>"), between_tags("145")
        ('145', '145')
    """
    start, end = text.rfind("<answer>"), text.rfind("</answer>")
    return text[start + len("<answer>") : end].strip() if 0 <= start < end else text.strip()


def _parts(root: Path, config: SourceConfig) -> list[Part]:
    build(Options, config.options, "options")
    files = split_files(root, config.split)
    if not files:
        raise missing(root, f"{config.split}-*.parquet", LAYOUT)
    return file_parts(root, files)


def _math_row(record: Record, part: str) -> RawRow:
    return _row(as_fields(record.value), f"{part}/{record.place}", "math", "")


def _short_row(record: Record, part: str) -> RawRow:
    row = as_fields(record.value)
    task, answer_type = short_task(_answer(row))
    return _row(row, f"{part}/{record.place}", task, answer_type)


def _row(row: Fields, source_id: str, task: str, answer_type: str) -> RawRow:
    name = "images" if row.raw("image") is None else "image"
    return RawRow(
        source_id=source_id,
        task=task,
        question=without_markers(row.text("problem")),
        answer=_answer(row),
        answer_type=answer_type,
        images=require_images(cell_images(row.raw(name), name), name),
    )


def _answer(row: Fields) -> str:
    return between_tags(row.answer("answer" if row.raw("solution") is None else "solution"))
