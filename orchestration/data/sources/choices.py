"""Multiple-choice formats that need code: AI2D, ScienceQA, MMMU, and Geometry3K (also with free answers)."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from orchestration.data.sources.answers import LETTERS, from_index, from_letters, from_text, short_task
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, split_files
from orchestration.data.sources.fields import (
    Fields,
    RowError,
    as_fields,
    cell_image,
    cell_images,
    file_image,
    require_images,
    stem,
    with_numbers,
)
from orchestration.data.sources.markers import place_images
from orchestration.data.sources.option_lists import python_list
from orchestration.data.sources.rows import BadRow, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import (
    Record,
    Records,
    broken_file,
    json_members,
    of_split,
    parquet_rows,
    read_rows,
)
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig

AI2D_LAYOUT = "data/test-*.parquet (lmms-lab/ai2d), or questions/<image>.json, images/ and ai2d_test_ids.csv (ai2d-all)"
AI2D_TEST_IDS = "ai2d_test_ids.csv"
SCIENCEQA_LAYOUT = "data/train-*.parquet (derek-thomas/ScienceQA), or problems.json and images/<split>/<id>/image.png"
MMMU_LAYOUT = "<subject>/validation-*.parquet (MMMU/MMMU) or data/validation-*.parquet (lmms-lab/MMMU)"
GEOMETRY3K_LAYOUT = (
    "data/train-*.parquet (hiyouga/geometry3k), or <split>/<id>/data.json and <split>/<id>/img_diagram.png"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AI2DOptions:
    """Options of AI2D, for the authors' download only."""

    images: str = "images"
    letter_images: str = "abc_images"
    """Folder of the diagrams whose labels were replaced by letters, for questions that are about letters."""


class AI2D(Adapter):
    """Reads AI2D in either of its two downloads; Parquet is preferred if both exist.

    lmms-lab/ai2d:
        `data/test-*.parquet` with `question`, `options`, `answer` (index as text), `image`. Test only: role guard.
    The authors' download (`ai2d/` is the root):
        `questions/<image>.json` with `imageName` and `questions`: {text: {abcLabel, answerTexts, correctAnswer,
        questionId}}; `images/<image>`; `ai2d_test_ids.csv` with one image number a line. Split `test` is those images,
        `train` all others. The list of test images is a download of its own (`ai2d_test_ids.csv`). Questions with
        `abcLabel` are about letters in place of labels, which `images/` does not show: ai2d-all.zip has them as
        `replacementText` of `annotations/` alone. InternVL and others draw them into pictures in `abc_images/`; without
        such a folder these rows are rejected as image_missing. If it has another name, set letter_images.

    Conversion: match_mcq, index to letter. Ids: questionId, or a running number.

    Options: images, letter_images.
    """

    licence = Licence(
        name="unverified",
        note="terms of the diagrams were not found: check before sharing",
        url_hint="the authors' page (Allen Institute for AI)",
    )
    options = AI2DOptions

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        self.read_options(config)
        tables = split_files(root, config.split)
        if tables:
            return file_parts(root, tables)
        questions = sorted((root / "questions").glob("*.json"))
        if not questions:
            raise missing(root, f"{config.split}-*.parquet and no questions/*.json", AI2D_LAYOUT)
        if config.split not in ("train", "test"):
            raise ConfigError(f"AI2D's questions have the splits train and test; the source's split is {config.split}")
        if not (root / AI2D_TEST_IDS).is_file():
            raise missing(root, AI2D_TEST_IDS, AI2D_LAYOUT)
        test = set((root / AI2D_TEST_IDS).read_text(encoding="utf-8", errors="replace").split())
        wanted = [path for path in questions if (path.name.split(".")[0] in test) == (config.split == "test")]
        return [Part(name="questions", files=tuple(wanted))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)

        def of_table(record: Record, row: Fields) -> RawRow:
            found = _lettered(row, f"{part.name}/{record.place}", "options", "answer")
            return replace(found, images=(cell_image(row.raw("image"), "image"),))

        def of_question(record: Record, row: Fields) -> RawRow:
            name = row.text("imageName")
            folder = options.letter_images if row.raw("abcLabel") is True else options.images
            image = file_image(folder, name, f"ai2d/{stem(name)}")
            return _lettered(row, row.text("questionId"), "answerTexts", "correctAnswer", (image,))

        is_table = bool(part.files) and part.files[0].suffix == ".parquet"
        records = parquet_rows(part.files[0]) if is_table else _ai2d_questions(part.files)
        return _read(records, of_table if is_table else of_question, part)


def _ai2d_questions(paths: tuple[Path, ...]) -> Records:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScienceQAOptions:
    """Options of ScienceQA."""

    text_only: bool = False
    """Keep questions without an image; otherwise they are rejected as missing_field, and so counted."""
    hint: bool = True
    """Put the hint, the passage that many questions need, before the question."""
    images: str = "images"
    """Folder of the images beside problems.json."""


class ScienceQA(Adapter):
    """Reads ScienceQA in either of its two downloads; Parquet is preferred if both exist.

    derek-thomas/ScienceQA and lmms-lab/ScienceQA:
        `data/{train,validation,test}-*.parquet` with `image` (or null), `question`, `choices`, `answer` (index),
        `hint`, `task`, `grade`, `subject`, `topic`, `category`, `skill`, `lecture`, `solution`. lmms-lab has two
        folders of the same rows, `ScienceQA-FULL` and `ScienceQA-IMG`: the source's path names one of them.
    The authors' download:
        `problems.json`, an object {id: {question, choices, answer, hint, image ("image.png" or ""), split, ...}};
        `images/<split>/<id>/<image>`. Its splits are train, val, test.

    Conversion: match_mcq, index to letter; lecture and solution, which hold the answer, are dropped; subject, grade and
    topic go into metadata. Ids: the problem's number, or a running number in Parquet.

    Options: text_only, hint, images.
    """

    licence = Licence(
        name="CC BY-NC-SA 4.0",
        note="as in LICENSE-DATA of the authors' repository; the card of derek-thomas/ScienceQA says cc-by-sa-4.0, "
        "without the clause on commercial use",
        url_hint="dataset card; LICENSE-DATA of the authors' repository (lupantech/ScienceQA)",
    )
    options = ScienceQAOptions

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        self.read_options(config)
        files = split_files(root, config.split)
        if not files and (root / "problems.json").is_file():
            files = [root / "problems.json"]
        if not files:
            raise missing(root, f"{config.split}-*.parquet and no problems.json", SCIENCEQA_LAYOUT)
        folders = sorted({path.parent.relative_to(root).as_posix() for path in files})
        if len(folders) > 1:
            raise ConfigError(
                f"{root} holds {config.split} in {', '.join(folders)}, which share their rows; set the source's path "
                f"to one of them, such as {root / folders[-1]}"
            )
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)

        def of_table(record: Record, row: Fields) -> RawRow:
            return convert(row, f"{part.name}/{record.place}", cell_images(row.raw("image"), "image"))

        def of_problem(record: Record, row: Fields) -> RawRow:
            row.text("split")
            name = row.text_or("image")
            folder = f"{options.images}/{config.split}/{record.place}"
            return convert(row, record.place, (file_image(folder, name),) if name else ())

        def convert(row: Fields, source_id: str, images: tuple[RawImage, ...]) -> RawRow:
            if not images and not options.text_only:
                raise RowError(RejectReason.TEXT_ONLY, "no image; options.text_only=true keeps such rows")
            hint = row.text_or("hint").strip() if options.hint else ""
            metadata = {name: row.label(name) for name in ("subject", "grade", "topic")}
            return _lettered(row, source_id, "choices", "answer", images, before=hint, metadata=metadata)

        path = part.files[0]
        if path.suffix == ".parquet":
            return _read(parquet_rows(path), of_table, part)
        return _read(of_split(json_members(path), config.split), of_problem, part)


class MMMU(Adapter):
    """Reads MMMU, by subject or merged.

    Raw: `<subject>/{dev,validation,test}-*.parquet` with `id`, `question`, `options` (a list written as Python source:
    "['1', '2']"), `image_1` ... `image_7`, `answer`, `question_type` (multiple-choice or open), `subfield`,
    `topic_difficulty`, `explanation`. `<image 2>` in a question or an option refers to image_2.

    Conversion: multiple choice is match_mcq; an open answer is match_yesno, chart with answer_type number, or
    match_text, and the first of several accepted answers is used. Images keep their order; `<image 2>` becomes
    [image n] with the image's place among those of the row. Answers of the test split are "?": a later stage refuses
    them, which for role guard does not matter. Ids: id. Options: none.
    """

    licence = Licence(
        name="unverified",
        note="apache-2.0 was seen on copies and on MMMU_Pro; images come from textbooks and the web. A benchmark: use "
        "it as guard, not for training",
        url_hint="dataset card (MMMU/MMMU)",
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        self.read_options(config)
        files = split_files(root, config.split)
        if not files:
            raise missing(root, f"{config.split}-*.parquet", MMMU_LAYOUT)
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        return _read(parquet_rows(part.files[0]), _mmmu_row, part)


def _mmmu_row(record: Record, row: Fields) -> RawRow:
    present = [number for number in range(1, 8) if row.raw(f"image_{number}") is not None]
    images = tuple(cell_image(row.raw(f"image_{number}"), f"image_{number}") for number in present)
    open_ended = row.text_or("question_type") == "open"
    options = () if open_ended else python_list(row.text("options"), "options")
    answer = _mmmu_open_answer(row) if open_ended else from_letters(row.raw("answer"), "answer")
    task, answer_type = short_task(answer) if open_ended else ("match_mcq", "")

    return RawRow(
        source_id=row.text("id"),
        task=task,
        question=with_numbers(row.text("question"), present),
        options=tuple(with_numbers(option, present) for option in options),
        answer=answer,
        answer_type=answer_type,
        images=require_images(images, "image_1 to image_7"),
        metadata={name: row.label(name) for name in ("subfield", "topic_difficulty")},
    )


def _mmmu_open_answer(row: Fields) -> str:
    answer = row.answer("answer")
    several = python_list(answer, "answer") if answer.lstrip().startswith("['") else ()
    return several[0] if several else answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry3KOptions:
    """Options of Geometry3K."""

    form: Literal["free", "choices"] = "free"
    """free: the value is the answer, task math. choices: the letter is, task match_mcq."""


class Geometry3K(Adapter):
    """Reads Geometry3K in either of its two downloads; Parquet is preferred if both exist.

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
    options = Geometry3KOptions

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        self.read_options(config)
        tables = split_files(root, config.split)
        if tables:
            return file_parts(root, tables)
        problems = sorted((root / config.split).glob("*/data.json"))
        if not problems:
            expected = f"{config.split}-*.parquet and no {config.split}/<id>/data.json"
            raise missing(root, expected, GEOMETRY3K_LAYOUT)
        return [Part(name=config.split, files=tuple(problems))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        is_free = self.read_options(config).form == "free"

        def of_table(record: Record, row: Fields) -> RawRow:
            number = row.label("id")
            images = require_images(cell_images(row.raw("images"), "images"), "images")
            question, images = place_images(row.text("problem"), images)
            source_id = number or f"{part.name}/{record.place}"
            if is_free:
                return convert(source_id, question, row.answer("answer"), images)
            options = row.texts("choices")
            letter = from_letters(row.raw("ground_truth"), "ground_truth")
            answer = letter if letter in LETTERS else from_text(row.raw("answer"), options, "answer")
            return convert(source_id, question, answer, images, options)

        def of_problem(record: Record, row: Fields) -> RawRow:
            question = row.text_or("annotat_text") or row.text("problem_text")
            source_id = f"{part.name}/{record.place}"
            images = (file_image(source_id, "img_diagram.png", f"geometry3k/{record.place}"),)
            options = row.texts("choices")
            letter = from_letters(row.raw("answer"), "answer")
            if not is_free:
                return convert(source_id, question, letter, images, options)
            index = LETTERS.find(letter) if len(letter) == 1 else -1
            return convert(source_id, question, options[index] if 0 <= index < len(options) else "", images)

        def convert(
            source_id: str, question: str, answer: str, images: tuple[RawImage, ...], options: tuple[str, ...] = ()
        ) -> RawRow:
            task = "math" if is_free else "match_mcq"
            return RawRow(
                source_id=source_id, task=task, question=question, answer=answer, images=images, options=options
            )

        if part.files[0].suffix == ".parquet":
            return _read(parquet_rows(part.files[0]), of_table, part)
        return _read(_geometry_problems(part.files), of_problem, part)


def _geometry_problems(paths: tuple[Path, ...]) -> Records:
    for path in paths:
        try:
            yield Record(path.parent.name, json.loads(path.read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            yield broken_file(path, f"is no JSON: {error}", path.parent.name)


def _read(records: Records, convert: Callable[[Record, Fields], RawRow], part: Part) -> Iterator[RawRow | BadRow]:
    return read_rows(records, lambda record: [convert(record, as_fields(record.value))], part.name)


def _lettered(
    row: Fields,
    source_id: str,
    options: str,
    answer: str,
    images: tuple[RawImage, ...] = (),
    *,
    before: str = "",
    **more: Any,
) -> RawRow:
    """Return a row of multiple choice whose answer is the index of an option, given the names of both fields."""
    question = row.text("question")
    return RawRow(
        source_id=source_id,
        task="match_mcq",
        question=f"{before}\n{question}" if before else question,
        options=row.texts(options),
        answer=from_index(row.raw(answer), answer),
        images=images,
        **more,
    )
