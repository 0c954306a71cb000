"""A-OKVQA: multiple choice about COCO photographs that needs knowledge of the world."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.choices import from_index
from orchestration.data.sources.fields import as_fields
from orchestration.data.sources.files import file_parts, require_file
from orchestration.data.sources.pictures import coco_id, file_image
from orchestration.data.sources.streams import Record, json_array, read_rows
from orchestration.settings.recipe import Role, SourceConfig
from orchestration.settings.strict import build

LAYOUT = "aokvqa_v1p0_<split>.json and <split>2017/<12 digits>.jpg (COCO 2017); splits train, val"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What A-OKVQA understands."""

    images: str = "{split}2017"
    """Folder of the COCO images."""


class AOKVQA:
    """Reads A-OKVQA as its authors publish it.

    Raw: `aokvqa_v1p0_<split>.json`, an array of {question_id, image_id, question, choices, correct_choice_idx,
    direct_answers, difficult_direct_answer, rationales}; images are COCO 2017 by number.

    Conversion: match_mcq, index to letter; direct answers and rationales, which hold the answer, are dropped. The test
    split has no answers: with role guard its rows have an empty one, else they are rejected as missing_field.
    Ids: question_id.

    Options: images.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="terms of the questions were not found; the photographs are COCO's, under Flickr terms: check",
        url_hint="the authors' page and repository (allenai/aokvqa)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the question file of the split; see Adapter."""
        build(Options, config.options, "options")
        return file_parts(root, [require_file(root, f"aokvqa_v1p0_{config.split}.json", LAYOUT)])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the question file; see Adapter."""
        folder = build(Options, config.options, "options").images.replace("{split}", config.split)
        return read_rows(json_array(part.files[0]), lambda record: [_row(record, folder, config.role)], part.name)


def _row(record: Record, folder: str, role: Role) -> RawRow:
    row = as_fields(record.value)
    index = row.raw("correct_choice_idx")
    number = row.integer("image_id")
    return RawRow(
        source_id=row.text("question_id"),
        task="match_mcq",
        question=row.text("question"),
        options=row.texts("choices"),
        answer="" if role == "guard" and index is None else from_index(index, "correct_choice_idx"),
        images=(file_image(folder, f"{number:012d}.jpg", coco_id(number)),),
    )
