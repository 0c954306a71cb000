"""What is found in the columns of a user's rows: images, options and boxes; with the reason of each and its doubts."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.data.sources.column_kinds import (
    Column,
    Kind,
    boxes_of,
    is_absent,
    plain_name,
    shortened,
)
from orchestration.data.sources.fields import MAX_INTEGER, RowError, is_encoded
from orchestration.data.sources.option_lists import read_options, written_list
from orchestration.data.sources.references import filled

SETTING = "data.columns"
IMAGES = (
    "decoded_image", "images", "image", "img", "image_path", "img_path", "image_paths", "image_file", "img_filename",
    "image_filename", "file_name", "filename", "image_name", "picture", "pictures", "photo", "image_url",
    "image_base64", "figure", "figure_path", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
OPTIONS = (
    "options", "choices", "option", "choice", "mc_options", "multiple_choices", "answer_choices", "candidates",
    "option_list", "answer_texts",
)  # fmt: skip
BOXES = (
    "bbox", "bboxes", "boxes", "box", "bbox_2d", "gt_bbox", "gt_bboxes", "gt_box", "bounding_box", "bounding_boxes",
    "solution", "answer", "ground_truth", "label", "target",
)  # fmt: skip
SURE_IMAGES = ("images", "image", "img", "image_path", "img_path", "image_paths", "image_file", "image_url")
"""Names that mean pictures, whatever is in them: rows of other values are refused, and not asked without a picture."""
SURE_OPTIONS = ("options", "choices", "mc_options", "multiple_choices", "answer_choices", "option_list")
"""The same of options."""
LABELS = ("ref", "refs", "label", "labels", "category", "categories", "class_name", "name", "names")
NAMED = "named so"
_NUMBERED_IMAGE = re.compile(r"(?:image|img|picture)_?\d{1,2}")
_NUMBERED_OPTION = re.compile(r"(?:option|opt|choice)s?_?([a-z]|\d{1,2})")
_NAMES_OF_PICTURES = (
    "{%s:012d}.jpg", "COCO_train2014_{%s:012d}.jpg", "COCO_val2014_{%s:012d}.jpg", "{%s:d}.jpg", "{%s:d}.png",
)  # fmt: skip
MAX_FILES_TRIED = 20


@dataclass(slots=True, kw_only=True)
class Findings:
    """The columns of a file, and what was found in them so far."""

    columns: Sequence[Column]
    settings: Mapping[str, Any]
    """What the user says by key of the mapping."""
    mapping: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    uncertain: list[str] = field(default_factory=list)
    sources: dict[str, tuple[Column, ...]] = field(default_factory=dict)
    """By key of the mapping: the columns that it was found in; not of what the user says."""
    used: set[tuple[str, ...]] = field(default_factory=set)
    """Columns that are taken."""

    def find(self, names: Sequence[str], *kinds: Kind) -> Column | None:
        """Return the first column of one of these names, of the rows before those of objects in them."""
        for is_nested in (False, True):
            for name in names:
                for column in self.columns:
                    if (len(column.steps) > 1) == is_nested and self.is_free(column, *kinds):
                        own = plain_name(column.steps[-1])
                        if name in (own, plain_name(column.name)):
                            return column
        return None

    def is_free(self, column: Column, *kinds: Kind) -> bool:
        """Return whether a column is not taken, and mostly of these kinds."""
        return column.steps not in self.used and column.is_mostly(*kinds)

    def put(self, key: str, value: Any, why: str, *columns: Column) -> None:
        """Map a key, unless the user has."""
        self.used.update(column.steps for column in columns)
        if key not in self.mapping:
            self.mapping[key] = value
            self.reasons[key], self.sources[key] = why, columns

    def put_first(self, key: str, why: str, column: Column, others: Sequence[Column]) -> None:
        """Map a key to a column, and where rows lack that to others that these rows have."""
        lacking = [place for place, value in enumerate(column.values) if is_absent(value)]
        behind = [one for one in others if one is not column and any(not is_absent(one.values[at]) for at in lacking)]
        paths = [one.path(may_lack=bool(lacking)) for one in (column, *behind)]
        self.put(key, {"first": paths} if behind else paths[0], why, column, *behind)

    def doubt(self, what: str, setting: str, effect: str = "") -> None:
        """Note what was guessed, and the setting that says otherwise, in quotes where a shell needs them."""
        typed = f"'{SETTING}.{setting}'" if "{" in setting else f"{SETTING}.{setting}"
        self.uncertain.append(f"{what}; {typed} {effect}".rstrip())


def find_images(found: Findings, folders: Sequence[str], has_file: Callable[[str], bool]) -> str:
    """Find the images; return the folder that their paths start from."""
    if "images" not in found.mapping:
        numbered = [
            one
            for one in found.columns
            if len(one.steps) == 1 and _NUMBERED_IMAGE.fullmatch(plain_name(one.name)) and one.kinds.keys() <= {"image"}
        ]
        numbered.sort(key=_by_number)
        column = found.find(IMAGES, "image", "images")
        if column is None and len(numbered) > 1:
            found.put("images", {"columns": [one.name for one in numbered]}, "numbered so", *numbered)
        elif column is None:
            column = next((one for one in found.columns if found.is_free(one, "image", "images")), None)
        if column is not None:
            why = NAMED if plain_name(column.steps[-1]) in IMAGES else "holds pictures"
            others = [one for one in found.columns if found.is_free(one, "image", "images")]
            found.put_first("images", why, column, others)
        elif "images" not in found.mapping:
            folder = _images_by_id(found, folders, has_file)
            column = None if "images" in found.mapping else _of_name(found, SURE_IMAGES)
            if column is None:
                return folder
            found.put("images", column.path(may_lack=not column.is_whole), NAMED, column)
            what = f"{column.name} holds no pictures that are known, such as {shortened(column.present[0])}"
            found.doubt(what, "images=COLUMN", f"names pictures, '{SETTING}.images={{constant: []}}' asks without")
    _leave_others(found)
    if "images_from" in found.settings:
        return str(found.settings["images_from"])
    paths = _paths(found)
    if not paths:
        return ""
    counts = {folder: sum(has_file(f"{folder}/{path}" if folder else path) for path in paths) for folder in folders}
    best = max(counts, key=lambda folder: counts[folder]) if counts else ""
    if not counts.get(best):
        found.doubt(f"no picture such as {paths[0]!r} was found", "images_from=FOLDER names where they are")
        return ""
    if counts[best] < len(paths):
        where = best or "the folder of the file"
        found.doubt(f"{len(paths) - counts[best]} of {len(paths)} pictures are not in {where}", "images_from=FOLDER")
    return best


def _leave_others(found: Findings) -> None:
    """Take the other columns of pictures, which are not read."""
    others = [one for one in found.columns if found.is_free(one, "image", "images") and not _is_set(found, one)]
    found.used.update(one.steps for one in others)
    if others:
        names = ", ".join(one.name for one in others)
        found.doubt(f"pictures in {names} are not read", "images={columns: [FIRST, SECOND]}", "takes several")


def _of_name(found: Findings, names: Sequence[str]) -> Column | None:
    """Return the column of one of these names that has values, whatever they are."""
    free = [one for one in found.columns if len(one.steps) == 1 and one.steps not in found.used and one.present]
    return next((one for name in names for one in free if plain_name(one.name) == name), None)


def _paths(found: Findings) -> list[str]:
    """Return the first relative paths of pictures."""
    columns = [*found.sources.get("images", ()), *(one for one in found.columns if _is_set(found, one))]
    paths = []
    for column in columns:
        if column.is_mostly("image", "images"):
            for value in column.present[:MAX_FILES_TRIED]:
                written = written_list(value) if isinstance(value, str) else value
                for item in written if isinstance(written, (list, tuple)) else [value]:
                    path = item.get("path") if isinstance(item, Mapping) and not item.get("bytes") else item
                    if isinstance(path, str) and not is_encoded(path) and "://" not in path and path[:1] != "/":
                        paths.append(path)
        if paths:
            break
    return paths[:MAX_FILES_TRIED]


def _is_set(found: Findings, column: Column) -> bool:
    value = found.mapping.get("images")
    return isinstance(value, str) and value.removesuffix("?") == column.name


def _images_by_id(found: Findings, folders: Sequence[str], has_file: Callable[[str], bool]) -> str:
    """Find pictures that are named after the number in `image_id`, as those of COCO."""
    column = found.find(("image_id", "img_id"), "number", "text")
    if column is None or len(column.steps) > 1:
        return ""
    value = column.present[0]
    if not column.name.isidentifier() or not (isinstance(value, str) or is_whole_number(value)):
        return ""
    texts = (f"{{{column.name}}}.jpg", f"{{{column.name}}}.png")
    forms = texts if isinstance(value, str) else tuple(form % column.name for form in _NAMES_OF_PICTURES)
    for form in forms:
        for folder in folders:
            name = filled(form, {column.name: value})
            if has_file(f"{folder}/{name}" if folder else name):
                found.put("images", {"format": form}, "files are named so", column)
                return folder
    return ""


def is_whole_number(value: object) -> bool:
    """Return whether a value is a number as of an id."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_INTEGER


def find_options(found: Findings) -> None:
    """Find options: a list, an object by label, or columns of their own."""
    if "options" in found.mapping:
        return
    column = found.find(OPTIONS, "texts", "objects", "object", "text", "box")
    if column is not None and _can_be_options(column):
        others = [one for one in found.columns if plain_name(one.steps[-1]) in OPTIONS and one.steps not in found.used]
        found.put_first("options", NAMED, column, [one for one in others if _can_be_options(one)])
        return
    outer = [one for one in found.columns if len(one.steps) == 1 and not one.is_mostly("image", "images", "turns")]
    letters = sorted((one for one in outer if re.fullmatch("[A-Za-z]", one.name)), key=lambda one: one.name)
    letters = [one for one in letters if one.name.islower() == letters[0].name.islower()]
    numbered = sorted((one for one in outer if _NUMBERED_OPTION.fullmatch(plain_name(one.name))), key=_by_number)
    for columns in (letters, numbered):
        names = [one.name for one in columns]
        starts = columns is numbered or names[:2] in (["A", "B"], ["a", "b"])
        if starts and sum(bool(one.present) for one in columns) > 1:
            found.put("options", {"columns": names}, "one column each", *columns)
            return
    column = _of_name(found, SURE_OPTIONS)
    if column is not None and not column.is_mostly("texts", "box"):
        found.put("options", column.path(may_lack=not column.is_whole), NAMED, column)
        what = f"{column.name} holds no list of options, such as {shortened(column.present[0])}"
        found.doubt(what, "options={constant: []}", "does not read it")


def _by_number(column: Column) -> tuple[int, str]:
    """Return what sorts columns by the number or letter at the end of their names."""
    end = re.search("[0-9]*$", column.name)
    return int(end[0]) if end and end[0] else 0, column.name


def _can_be_options(column: Column) -> bool:
    """Return whether most values that are not empty are two options or more."""
    sizes = []
    for value in column.present:
        try:
            sizes.append(len(read_options(value, column.name).texts))
        except RowError:
            sizes.append(1)
    filled = [size for size in sizes if size]
    return 2 * sum(size > 1 for size in filled) > len(filled)


def find_boxes(found: Findings) -> Column | None:
    """Find the column of boxes, and map their labels, form and frame; whether they are the reference is not said."""
    if "boxes" in found.mapping:
        return None
    column = found.find(BOXES, "box", "boxes")
    if column is None:
        return None
    boxes = [box for value in column.present for box in boxes_of(value)]
    if not boxes:
        return None
    above = column.steps[:-1]
    beside = {one.steps[-1]: one for one in found.columns if above and one.steps[:-1] == above}
    labels = next((beside[name] for name in LABELS if name in beside and beside[name].is_mostly("texts", "text")), None)
    if labels is not None:
        found.put("box_labels", labels.path(may_lack=True), "beside the boxes", labels)
    if "image_id" in beside:
        found.put("box_image", beside["image_id"].path(may_lack=True), "beside the boxes", beside["image_id"])
    if "bbox_type" in beside:
        kinds = {"real": "pixel", "norm1": "norm1", "norm1000": "norm1000"}
        frame = {"field": beside["bbox_type"].path(may_lack=True), "values": kinds}
        found.put("box_frame", frame, "as ms-swift writes it", beside["bbox_type"])
    elif all(0 <= number <= 1 for box in boxes for number in box):
        found.put("box_frame", {"constant": "norm1"}, "no number over 1")
    elif "box_frame" not in found.mapping:
        what = f"boxes such as {boxes[0]} are taken in pixels"
        found.doubt(what, "box_frame=norm1000 where 1000 is the whole side")
    if "box_form" not in found.mapping:
        reversed_boxes = sum(box[2] <= box[0] or box[3] <= box[1] for box in boxes)
        if reversed_boxes * 5 > len(boxes):
            why = f"{reversed_boxes} of {len(boxes)} boxes are no corners: the third number is less than the first"
            found.put("box_form", {"constant": "xywh"}, why)
        else:
            found.doubt("boxes are taken as x1, y1, x2, y2", "box_form=xywh where they are x, y, width, height")
    return column
