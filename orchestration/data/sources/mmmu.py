"""MMMU: college questions of thirty subjects with up to seven images; a benchmark, so mostly a guard."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.data.rows import BadRow, RawRow, RejectReason
from orchestration.data.sources.answers import from_letters, short_task
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, split_files
from orchestration.data.sources.fields import Fields, RowError, as_fields, as_texts, cell_image, require_images, shown
from orchestration.data.sources.streams import Record, parquet_rows, read_rows
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "<subject>/validation-*.parquet (MMMU/MMMU) or data/validation-*.parquet (lmms-lab/MMMU)"
MAX_LIST_CHARS = 20_000
"""Of a list that is written as Python source; the longest real ones have a few thousand."""

_MARKER = re.compile(r"<image ([1-7])>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """No options."""


class MMMU(Adapter):
    """Reads MMMU, by subject or merged.

    Raw: `<subject>/{dev,validation,test}-*.parquet` with `id`, `question`, `options` (a list written as Python source:
    "['1', '2']"), `image_1` ... `image_7`, `answer`, `question_type` (multiple-choice or open), `subfield`,
    `topic_difficulty`, `explanation`. `<image 2>` in a question or an option refers to image_2.

    Conversion: multiple choice is match_mcq; an open answer is match_yesno, chart with answer_type number, or
    match_text, and of several accepted answers the first is taken. Images keep their order; `<image 2>` becomes
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
        build(Options, config.options, "options")
        files = split_files(root, config.split)
        if not files:
            raise missing(root, f"{config.split}-*.parquet", LAYOUT)
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        return read_rows(parquet_rows(part.files[0]), lambda record: [_row(record)], part.name)


def python_list(text: str, name: str) -> tuple[str, ...]:
    """Read a list of texts that is written as Python source, without running anything.

    Raises:
        RowError: UNREADABLE_ROW, also for lists longer than MAX_LIST_CHARS.
    """
    try:
        value = ast.literal_eval(text.strip()) if len(text) <= MAX_LIST_CHARS else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} is {shown(text)}; it should be a list of texts")
    return as_texts(value, name)


def _row(record: Record) -> RawRow:
    row = as_fields(record.value)
    present = [number for number in range(1, 8) if row.raw(f"image_{number}") is not None]
    images = tuple(cell_image(row.raw(f"image_{number}"), f"image_{number}") for number in present)
    open_ended = row.text_or("question_type") == "open"
    options = () if open_ended else python_list(row.text("options"), "options")
    answer = _open_answer(row) if open_ended else from_letters(row.raw("answer"), "answer")
    task, answer_type = short_task(answer) if open_ended else ("match_mcq", "")
    return RawRow(
        source_id=row.text("id"),
        task=task,
        question=_numbered(row.text("question"), present),
        options=tuple(_numbered(option, present) for option in options),
        answer=answer,
        answer_type=answer_type,
        images=require_images(images, "image_1 to image_7"),
        metadata={name: row.label(name) for name in ("subfield", "topic_difficulty")},
    )


def _open_answer(row: Fields) -> str:
    answer = row.answer("answer")
    several = python_list(answer, "answer") if answer.lstrip().startswith("['") else ()
    return several[0] if several else answer


def _numbered(text: str, present: list[int]) -> str:
    """Write `<image 2>` as [image n], n being the image's place in the row; a number without image stays."""

    def place(marker: re.Match[str]) -> str:
        number = int(marker.group(1))
        return f"[image {present.index(number) + 1 if number in present else number}]"

    return _MARKER.sub(place, text)
