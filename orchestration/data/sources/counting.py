"""CLEVR and TallyQA: counting, and other short answers about drawn scenes and photographs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.fields import as_fields
from orchestration.data.sources.files import file_parts, require_file
from orchestration.data.sources.pictures import file_image, stem
from orchestration.data.sources.short_answers import short_task
from orchestration.data.sources.streams import Record, json_array, read_rows
from orchestration.settings.recipe import Role, SourceConfig
from orchestration.settings.strict import build

CLEVR_LAYOUT = "questions/CLEVR_<split>_questions.json and images/<split>/CLEVR_<split>_<number>.png (CLEVR_v1.0)"
TALLYQA_LAYOUT = "train.json, test.json, train2014/, val2014/ (COCO), VG_100K/, VG_100K_2/ (Visual Genome)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClevrOptions:
    """What CLEVR understands."""

    images: str = "images/{split}"
    """Folder of the images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyQAOptions:
    """What TallyQA understands."""

    images: str = ""
    """Folder under which train2014, val2014, VG_100K and VG_100K_2 lie; empty for the root."""


class Clevr:
    """Reads CLEVR as its authors publish it; CLEVR-CoGenT has the same form with the splits trainA, valA, valB.

    Raw (`CLEVR_v1.0/` is the root): `questions/CLEVR_<split>_questions.json`, {"info", "questions": [{image_filename,
    question, answer, question_index, question_family_index, program}]}; `images/<split>/<image_filename>`.

    Conversion: yes/no is match_yesno, a count is chart with answer_type number, the rest (colours, shapes, sizes,
    materials) is match_text. `question_family_index`, the template, goes into metadata; the program is dropped. The
    test split has no answers: with role guard its rows have an empty one, else they are rejected as missing_field.
    Ids are running numbers.

    Options: images.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="CC BY 4.0 in the features of HuggingFaceM4/clevr; compare with the authors' page",
        url_hint="the authors' page (Stanford)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the question file of the split; see Adapter."""
        build(ClevrOptions, config.options, "options")
        name = f"questions/CLEVR_{config.split}_questions.json"
        return file_parts(root, [require_file(root, name, CLEVR_LAYOUT)])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the question file; see Adapter."""
        folder = build(ClevrOptions, config.options, "options").images.replace("{split}", config.split)
        records = json_array(part.files[0], "questions")
        return read_rows(records, lambda record: [_clevr_row(record, part.name, folder, config.role)], part.name)


class TallyQA:
    """Reads TallyQA as its authors publish it.

    Raw: `train.json` and `test.json`, arrays of {image ("train2014/COCO_..." or "VG_100K_2/2410408.jpg"), answer (a
    whole number), question, question_id, image_id, data_source, issimple}; images are COCO 2014 and Visual Genome.

    Conversion: chart with answer_type number. `issimple` becomes the row's part (simple, complex), `data_source` goes
    into metadata. Images get the ids coco/<n> and vg/<n>; Visual Genome pictures that are also in COCO keep their
    Visual Genome name. Ids: question_id.

    Options: images.
    """

    licence: ClassVar[Licence] = Licence(
        name="unverified",
        note="terms of the questions were not found; photographs are COCO's and Visual Genome's: check",
        url_hint="repository of the authors (manoja328/TallyQA_dataset)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the question file of the split; see Adapter."""
        build(TallyQAOptions, config.options, "options")
        return file_parts(root, [require_file(root, f"{config.split}.json", TALLYQA_LAYOUT)])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the question file; see Adapter."""
        folder = build(TallyQAOptions, config.options, "options").images
        return read_rows(json_array(part.files[0]), lambda record: [_tallyqa_row(record, folder)], part.name)


def _clevr_row(record: Record, part: str, folder: str, role: Role) -> RawRow:
    row = as_fields(record.value)
    image = row.text("image_filename")
    answer = "" if role == "guard" and row.raw("answer") is None else row.answer("answer")
    task, answer_type = short_task(answer)
    return RawRow(
        source_id=f"{part}/{record.place}",
        task=task,
        question=row.text("question"),
        answer=answer,
        answer_type=answer_type,
        images=(file_image(folder, image, f"clevr/{stem(image)}"),),
        metadata={"template": row.label("question_family_index")},
    )


def _tallyqa_row(record: Record, folder: str) -> RawRow:
    row = as_fields(record.value)
    simple = row.raw("issimple")
    return RawRow(
        source_id=str(row.integer("question_id")),
        task="chart",
        question=row.text("question"),
        answer=str(row.integer("answer")),
        answer_type="number",
        images=(file_image(folder, row.text("image")),),
        part=("simple" if simple else "complex") if isinstance(simple, bool) else "",
        metadata={"data_source": row.label("data_source")},
    )
