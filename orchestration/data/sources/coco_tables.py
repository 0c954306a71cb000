"""Annotation files in COCO form, streamed into compact tables: a COCO train file takes some 100 MB."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.data.rows.reasons import RejectReason
from orchestration.data.rows.records import BadRow, RawBox
from orchestration.data.sources.fields import Fields, RowError, as_fields, as_numbers
from orchestration.data.sources.streams import Record, json_array

_WIDTH = 5
"""Numbers that are kept of an annotation: category, x, y, width, height."""


@dataclass(slots=True)
class CocoTables:
    """Categories and images by number; of annotations five doubles each, in one array an image."""

    categories: dict[int, str] = field(default_factory=dict)
    images: dict[int, str] = field(default_factory=dict)
    """File names."""
    crowds: dict[int, set[int]] = field(default_factory=dict)
    """By image: categories with a region that stands for many objects."""
    broken: dict[int, dict[int, str]] = field(default_factory=dict)
    """By image and category: why an annotation cannot be read; the truth of that category is not known."""
    _boxes: "dict[int, array[float]]" = field(default_factory=dict)

    def read(self, path: Path, part: str) -> Iterator[BadRow]:
        """Fill the tables; gives what cannot be read and belongs to no image."""
        keepers: dict[str, Callable[[Fields], None]] = {
            "categories": self._keep_category,
            "images": self._keep_image,
            "annotations": self._keep_annotation,
        }
        for name, keep in keepers.items():
            for record in json_array(path, name):
                bad = record if isinstance(record, BadRow) else _kept(record, keep, f"{part}/{name}")
                if bad is not None:
                    yield bad

    def boxes_of(self, image: int) -> list[tuple[int, RawBox]]:
        """Give (category, box) of an image in the order of the file; the label of an unknown category is empty."""
        flat = self._boxes.get(image, array("d"))
        found = []
        for start in range(0, len(flat), _WIDTH):
            category = int(flat[start])
            values = tuple(flat[start + 1 : start + _WIDTH])
            found.append((category, RawBox(values=values, label=self.categories.get(category, ""))))
        return found

    def _keep_category(self, row: Fields) -> None:
        self.categories[row.integer("id")] = row.text("name")

    def _keep_image(self, row: Fields) -> None:
        self.images[row.integer("id")] = row.text("file_name")

    def _keep_annotation(self, row: Fields) -> None:
        image, category = row.integer("image_id"), row.integer("category_id")
        if image not in self.images:
            raise RowError(RejectReason.MISSING_FIELD, f"image {image} is not among the images")
        if row.raw("iscrowd") in (1, True):
            self.crowds.setdefault(image, set()).add(category)
            return
        try:
            values = as_numbers(row.raw("bbox"), "bbox")
        except RowError as error:
            self.broken.setdefault(image, {})[category] = f"annotation {row.label('id')}: {error}"
            return
        if len(values) != _WIDTH - 1:
            detail = f"annotation {row.label('id')}: bbox has {len(values)} numbers; it should have 4"
            self.broken.setdefault(image, {})[category] = detail
            return
        self._boxes.setdefault(image, array("d")).extend((float(category), *values))


def _kept(record: Record, keep: Callable[[Fields], None], place: str) -> BadRow | None:
    try:
        keep(as_fields(record.value))
    except RowError as error:
        return BadRow(source_id=f"{place}/{record.place}", reason=error.reason, detail=str(error))
    return None
