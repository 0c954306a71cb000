"""DOCCI: long descriptions of photographs, written by people."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.conversations import without_opening
from orchestration.data.sources.fields import as_fields
from orchestration.data.sources.files import file_parts, require_file
from orchestration.data.sources.pictures import file_image
from orchestration.data.sources.streams import Record, json_lines, of_split, read_rows
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

LAYOUT = "docci_descriptions.jsonlines and images/<image_file>; splits train, test, qual_dev, qual_test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What DOCCI understands."""

    question: str = "Describe this image in detail."
    """DOCCI has no questions; this one is asked of every image."""
    images: str = "images"
    """Folder of the images."""
    strip_openings: bool = False
    """Take "The image shows" and the like off the descriptions."""


class Docci:
    """Reads DOCCI as its authors publish it.

    Raw: `docci_descriptions.jsonlines`, lines of {example_id, split, image_file, description}; `images/<image_file>`.

    Conversion: open; options.question is the question, the description the answer. Ids: example_id.

    Options: question, images, strip_openings.
    """

    licence: ClassVar[Licence] = Licence(
        name="CC BY 4.0", note="images and descriptions, as on the card of google/docci", url_hint="dataset card"
    )

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the file of descriptions; see Adapter."""
        build(Options, config.options, "options")
        return file_parts(root, [require_file(root, "docci_descriptions.jsonlines", LAYOUT)])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the descriptions of the split; see Adapter."""
        options = build(Options, config.options, "options")
        records = of_split(json_lines(part.files[0]), config.split)
        return read_rows(records, lambda record: [_row(record, options)], part.name)


def _row(record: Record, options: Options) -> RawRow:
    row = as_fields(record.value)
    row.text("split")
    name, description = row.text("example_id"), row.text("description")
    return RawRow(
        source_id=name,
        task="open",
        question=options.question,
        answer=without_opening(description) if options.strip_openings else description,
        images=(file_image(options.images, row.text("image_file"), f"docci/{name}"),),
    )
