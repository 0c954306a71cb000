"""Detection sets in COCO form: all objects of a category in an image."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, require_file
from orchestration.data.sources.fields import Fields, RowError, as_fields, as_numbers, file_image
from orchestration.data.sources.rows import BadRow, RawBox, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import Record, json_array
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.seeds import derive_seed

LAYOUT = "annotations/instances_<split>.json and <split>/<file_name>; split as in train2017"
_WIDTH = 5
"""Numbers stored per annotation: category, x, y, width, height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of COCO-form detection."""

    annotations: str = "annotations/instances_{split}.json"
    """The annotation file."""
    images: str = "{split}"
    """Folder of the images."""
    image_ids: str = "coco"
    """Prefix of common image names; empty for datasets whose images occur nowhere else."""
    rows: Literal["category", "image"] = "category"
    """One row for each category of an image, or one for the image with all its categories."""
    question: str = "every {category}"
    """Wording; {category} is a category, or with rows=image the list of categories in the image."""
    crowds: Literal["skip", "leave_out"] = "skip"
    """skip: crowd regions are ignored. leave_out: a category with a crowd region is not asked for in its image."""
    negatives: int = 0
    """Rows per image that ask for a category without an object in it, drawn by the seed; the reference is empty. Only
    for datasets in which all categories were annotated in all images."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the wording and the count."""
        if "{category}" not in self.question or self.negatives < 0:
            raise ConfigError(
                f"options.question is {self.question!r} and options.negatives {self.negatives}; use a text with "
                "{category} and a number from 0"
            )


@dataclass(slots=True)
class CocoTables:
    """Categories and images by number; of annotations five doubles each, in one array an image."""

    categories: dict[int, str] = field(default_factory=dict)
    images: dict[int, str] = field(default_factory=dict)
    """File names."""
    crowds: dict[int, set[int]] = field(default_factory=dict)
    """By image: categories with a crowd region, which covers many objects."""
    broken: dict[int, dict[int, str]] = field(default_factory=dict)
    """By image and category: why an annotation cannot be read, so that the reference is incomplete."""
    _boxes: "dict[int, array[float]]" = field(default_factory=dict)

    def read(self, path: Path, part: str) -> Iterator[BadRow]:
        """Fill the tables; yield entries that cannot be read and belong to no image."""
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
        """Return (category, box) of an image in the order of the file; the label of an unknown category is empty."""
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


class CocoDetection(Adapter):
    """Reads COCO, and sets in its form: Objects365, V3Det, ODinW.

    Raw: `annotations/instances_<split>.json` with `images` [{id, file_name, width, height}], `annotations` [{id,
    image_id, category_id, bbox (xywh in pixels), iscrowd, area, segmentation}], `categories` [{id, name}];
    `<split>/<file_name>`. A row needs all annotations of its image, which may be anywhere in the file: the three tables
    are streamed into compact arrays (about 100 MB for COCO train).

    Conversion: iou with labelled boxes, xywh in pixels, in the order of the file. Crowd regions are skipped. A category
    of an image with an unreadable annotation is rejected, because its reference is incomplete. Negatives are the part
    `negative`. Ids: image-category; image with rows=image; image-no-category for negatives.

    Options: annotations, images, image_ids, rows, question, crowds, negatives, seed.
    """

    licence = Licence(
        name="unverified",
        note="COCO's page is said to give annotations under CC BY 4.0 and photographs under Flickr terms; other "
        "sets in this form have terms of their own: set the source's license",
        url_hint="the page of the set",
    )
    options = Options

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        return file_parts(root, [require_file(root, options.annotations.replace("{split}", config.split), LAYOUT)])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)
        tables = CocoTables()
        yield from tables.read(part.files[0], part.name)
        folder = options.images.replace("{split}", config.split)
        for number, name in tables.images.items():
            image_id = f"{options.image_ids}/{number}" if options.image_ids else ""
            image = file_image(folder, name, image_id)
            if options.rows == "image":
                yield from _whole_image(number, image, tables, options)
                continue
            yield from _by_category(number, image, tables, options)
            yield from _negatives(number, image, tables, options)


def _by_category(number: int, image: RawImage, tables: CocoTables, options: Options) -> Iterator[RawRow | BadRow]:
    boxes: dict[int, list[RawBox]] = {category: [] for category in tables.broken.get(number, ())}
    for category, box in tables.boxes_of(number):
        boxes.setdefault(category, []).append(box)
    for category, found in boxes.items():
        source_id = f"{number}-{category}"
        broken = tables.broken.get(number, {}).get(category)
        if broken or category not in tables.categories:
            yield _bad(source_id, broken or f"category {category} is not among the categories")
        elif options.crowds == "skip" or category not in tables.crowds.get(number, ()):
            yield _row(source_id, tables.categories[category], image, found, options)


def _whole_image(number: int, image: RawImage, tables: CocoTables, options: Options) -> Iterator[RawRow | BadRow]:
    left_out = tables.crowds.get(number, set()) if options.crowds == "leave_out" else set()
    boxes = [(category, box) for category, box in tables.boxes_of(number) if category not in left_out]
    unknown = [f"category {category} is not among the categories" for category, box in boxes if not box.label]
    broken = [*tables.broken.get(number, {}).values(), *unknown]
    if broken:
        yield _bad(str(number), broken[0])
    elif boxes:
        names = dict.fromkeys(box.label for _, box in boxes)
        yield _row(str(number), ", ".join(names), image, [box for _, box in boxes], options)


def _negatives(number: int, image: RawImage, tables: CocoTables, options: Options) -> Iterator[RawRow]:
    if not options.negatives:
        return
    there = {category for category, _ in tables.boxes_of(number)}.union(
        tables.broken.get(number, ()), tables.crowds.get(number, ())
    )
    absent = [category for category in sorted(tables.categories) if category not in there]
    drawn = Random(derive_seed(options.seed, "negatives", number))
    for category in drawn.sample(absent, min(options.negatives, len(absent))):
        yield _row(f"{number}-no-{category}", tables.categories[category], image, [], options)


def _row(source_id: str, category: str, image: RawImage, boxes: list[RawBox], options: Options) -> RawRow:
    return RawRow(
        source_id=source_id,
        task="iou",
        question=options.question.replace("{category}", category),
        images=(image,),
        boxes=tuple(boxes),
        box_form="xywh",
        part="" if boxes else "negative",
    )


def _bad(source_id: str, detail: str) -> BadRow:
    return BadRow(source_id=source_id, reason=RejectReason.UNREADABLE_ROW, detail=detail)


def _kept(record: Record, keep: Callable[[Fields], None], place: str) -> BadRow | None:
    try:
        keep(as_fields(record.value))
    except RowError as error:
        return BadRow(source_id=f"{place}/{record.place}", reason=error.reason, detail=str(error))
    return None
