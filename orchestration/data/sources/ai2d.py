"""AI2D: multiple choice about science diagrams."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.data.rows import BadRow, RawRow
from orchestration.data.sources.answers import from_index
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, split_files
from orchestration.data.sources.fields import as_fields, cell_image, file_image, stem
from orchestration.data.sources.streams import Record, Records, broken_file, parquet_rows, read_rows
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "data/test-*.parquet (lmms-lab/ai2d), or questions/<image>.json, images/ and ai2d_test_ids.csv (ai2d-all)"
TEST_IDS = "ai2d_test_ids.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What AI2D understands; both options concern the authors' download alone."""

    images: str = "images"
    letter_images: str = "abc_images"
    """Folder of the diagrams whose labels were replaced by letters, for questions that are about letters."""


class AI2D(Adapter):
    """Reads AI2D in either of its two downloads; Parquet is taken where both are there.

    lmms-lab/ai2d:
        `data/test-*.parquet` with `question`, `options`, `answer` (index as text), `image`. Test only: role guard.
    The authors' download (`ai2d/` is the root):
        `questions/<image>.json` with `imageName` and `questions`: {text: {abcLabel, answerTexts, correctAnswer,
        questionId}}; `images/<image>`; `ai2d_test_ids.csv` with one image number a line. Split `test` is those images,
        `train` all others. Questions with `abcLabel` are about letters that stand in the images of `abc_images/` alone;
        the name of that folder was not seen in the download itself: if it differs, set letter_images.

    Conversion: match_mcq, index to letter. Ids: questionId, or a running number.

    Options: images, letter_images.
    """

    licence = Licence(
        name="unverified",
        note="terms of the diagrams were not found: check before sharing",
        url_hint="the authors' page (Allen Institute for AI)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        build(Options, config.options, "options")
        tables = split_files(root, config.split)
        if tables:
            return file_parts(root, tables)
        questions = sorted((root / "questions").glob("*.json"))
        if not questions:
            raise missing(root, f"{config.split}-*.parquet and no questions/*.json", LAYOUT)
        if config.split not in ("train", "test"):
            raise ConfigError(f"AI2D's questions have the splits train and test; the source's split is {config.split}")
        test = _test_images(root)
        wanted = [path for path in questions if (path.name.split(".")[0] in test) == (config.split == "test")]
        return [Part(name="questions", files=tuple(wanted))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = build(Options, config.options, "options")
        if part.files and part.files[0].suffix == ".parquet":
            return read_rows(parquet_rows(part.files[0]), lambda record: [_table_row(record, part.name)], part.name)
        return read_rows(_questions(part.files), lambda record: [_question_row(record, options)], part.name)


def _table_row(record: Record, part: str) -> RawRow:
    row = as_fields(record.value)
    return RawRow(
        source_id=f"{part}/{record.place}",
        task="match_mcq",
        question=row.text("question"),
        options=row.texts("options"),
        answer=from_index(row.raw("answer"), "answer"),
        images=(cell_image(row.raw("image"), "image"),),
    )


def _question_row(record: Record, options: Options) -> RawRow:
    row = as_fields(record.value)
    image = row.text("imageName")
    folder = options.letter_images if row.raw("abcLabel") is True else options.images
    return RawRow(
        source_id=row.text("questionId"),
        task="match_mcq",
        question=row.text("question"),
        options=row.texts("answerTexts"),
        answer=from_index(row.raw("correctAnswer"), "correctAnswer"),
        images=(file_image(folder, image, f"ai2d/{stem(image)}"),),
    )


def _questions(paths: tuple[Path, ...]) -> Records:
    """Return the questions of small files, one image each, with the image's name added to each question's fields."""
    for path in paths:
        try:
            content = json.loads(path.read_bytes())
            questions = content["questions"].items()
        except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
            yield broken_file(path, f"holds no questions: {error}")
            continue
        for index, (text, fields) in enumerate(questions):
            known = fields if isinstance(fields, dict) else {}
            yield Record(f"{path.name}/{index}", {**known, "question": text, "imageName": content.get("imageName")})


def _test_images(root: Path) -> set[str]:
    path = root / TEST_IDS
    if not path.is_file():
        raise missing(root, TEST_IDS, LAYOUT)
    return set(path.read_text(encoding="utf-8", errors="replace").split())
