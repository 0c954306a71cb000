"""ScienceQA: multiple choice from school science, half of it with an image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.data.rows import BadRow, RawImage, RawRow, RejectReason
from orchestration.data.sources.answers import from_index
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, split_files
from orchestration.data.sources.fields import Fields, RowError, as_fields, cell_images, file_image
from orchestration.data.sources.streams import Record, json_members, of_split, parquet_rows, read_rows
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "data/train-*.parquet (derek-thomas/ScienceQA), or problems.json and images/<split>/<id>/image.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of ScienceQA."""

    text_only: bool = False
    """Keep questions without an image; otherwise they are rejected as missing_field, and so counted."""
    hint: bool = True
    """Put the hint, the passage that many questions need, before the question."""
    images: str = "images"
    """Folder of the images beside problems.json."""


class ScienceQA(Adapter):
    """Reads ScienceQA in either of its two downloads; Parquet is taken where both are there.

    derek-thomas/ScienceQA and lmms-lab/ScienceQA:
        `data/{train,validation,test}-*.parquet` with `image` (or null), `question`, `choices`, `answer` (index),
        `hint`, `task`, `grade`, `subject`, `topic`, `category`, `skill`, `lecture`, `solution`.
    The authors' download:
        `problems.json`, an object {id: {question, choices, answer, hint, image ("image.png" or ""), split, ...}};
        `images/<split>/<id>/<image>`. Its splits are train, val, test.

    Conversion: match_mcq, index to letter; lecture and solution, which hold the answer, are dropped; subject, grade and
    topic go into metadata. Ids: the problem's number, or a running number in Parquet.

    Options: text_only, hint, images.
    """

    licence = Licence(
        name="cc-by-sa-4.0",
        note="as on the card of derek-thomas/ScienceQA; its loading script says CC BY-NC-SA 4.0: compare with the "
        "authors' page before commercial use",
        url_hint="dataset card; LICENSE-DATA of the authors' repository (lupantech/ScienceQA)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        build(Options, config.options, "options")
        files = split_files(root, config.split)
        if not files and (root / "problems.json").is_file():
            files = [root / "problems.json"]
        if not files:
            raise missing(root, f"{config.split}-*.parquet and no problems.json", LAYOUT)
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = build(Options, config.options, "options")
        path = part.files[0]
        if path.suffix == ".parquet":
            return read_rows(parquet_rows(path), lambda record: [_table_row(record, part.name, options)], part.name)
        problems = of_split(json_members(path), config.split)
        folder = f"{options.images}/{config.split}"
        return read_rows(problems, lambda record: [_problem_row(record, folder, options)], part.name)


def _table_row(record: Record, part: str, options: Options) -> RawRow:
    row = as_fields(record.value)
    return _row(row, f"{part}/{record.place}", cell_images(row.raw("image"), "image"), options)


def _problem_row(record: Record, folder: str, options: Options) -> RawRow:
    row = as_fields(record.value)
    row.text("split")
    name = row.text_or("image")
    images = (file_image(f"{folder}/{record.place}", name),) if name else ()
    return _row(row, record.place, images, options)


def _row(row: Fields, source_id: str, images: tuple[RawImage, ...], options: Options) -> RawRow:
    if not images and not options.text_only:
        raise RowError(RejectReason.MISSING_FIELD, "no image; options.text_only=true keeps such rows")
    hint = row.text_or("hint").strip() if options.hint else ""
    question = row.text("question")
    return RawRow(
        source_id=source_id,
        task="match_mcq",
        question=f"{hint}\n{question}" if hint else question,
        options=row.texts("choices"),
        answer=from_index(row.raw("answer"), "answer"),
        images=images,
        metadata={name: row.label(name) for name in ("subject", "grade", "topic")},
    )
