"""Typed access to the fields and images of a raw row; missing or mistyped values raise RowError."""

import ast
import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NoReturn

from orchestration.data.sources.rows import RawImage, RejectReason

MAX_INTEGER = 10**15
"""Larger than any id, index or year; longer integers are damage, and printing very long ones raises."""
SHOWN_CHARS = 80
_WHOLE = re.compile(r"([0-9]{1,16})(?:\.0)?")


class RowError(ValueError):
    """A raw row that cannot be read; becomes a BadRow."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fields:
    """One raw row by field name.

    Example:
        >>> Fields({"question": "How many?", "answer": 3.0}).answer("answer")
        '3'
    """

    values: Mapping[object, object]

    def raw(self, name: str) -> object:
        """Return the unconverted value; None if there is none."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        return as_text(self.raw(name), name)

    def text_or(self, name: str, default: str = "") -> str:
        """Return a text, or `default` where the field is absent or null."""
        return default if self.raw(name) is None else self.text(name)

    def answer(self, name: str) -> str:
        return as_answer(self.raw(name), name)

    def integer(self, name: str) -> int:
        return as_integer(self.raw(name), name)

    def texts(self, name: str) -> tuple[str, ...]:
        return as_texts(self.raw(name), name)

    def label(self, name: str) -> str:
        return as_label(self.raw(name))


def as_fields(value: object) -> Fields:
    """Return the fields of a raw row; raise RowError if it is not an object."""
    if not isinstance(value, Mapping):
        raise RowError(RejectReason.UNREADABLE_ROW, f"the row is {shown(value)}, no object with named fields")
    return Fields(value)


def as_text(value: object, name: str) -> str:
    """Read a text; numbers are refused."""
    return value if isinstance(value, str) else refuse(name, value, "a text")


def as_answer(value: object, name: str) -> str:
    """Write a text, number or truth value as an answer: 3.0 is 3, true is yes.

    Example:
        >>> as_answer(51.67, "answer"), as_answer(True, "answer")
        ('51.67', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < MAX_INTEGER:
        return str(value)
    if isinstance(value, float) and math.isinf(value):
        raise RowError(RejectReason.NOT_FINITE, f"{name} is {value}")
    if isinstance(value, float) and not math.isnan(value):
        return str(int(value)) if value.is_integer() and abs(value) < MAX_INTEGER else repr(value)
    return refuse(name, value, "a text or a number")


def as_label(value: object) -> str:
    """Return a metadata value as text; empty if it is not a plain value, which does not reject a row."""
    try:
        return as_answer(value, "metadata")
    except RowError:
        return ""


def as_integer(value: object, name: str) -> int:
    """Read a whole number, also one written as 3.0, "3" or "3.0", as pandas writes those of a column with gaps."""
    if isinstance(value, str) and len(value) <= 18 and (found := _WHOLE.fullmatch(value.strip())):
        value = int(found[1])
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_INTEGER:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INTEGER:
        return value
    return refuse(name, value, "a whole number")


def as_texts(value: object, name: str) -> tuple[str, ...]:
    """Read a list of texts; numbers in it become texts."""
    if not isinstance(value, (list, tuple)):
        return refuse(name, value, "a list of texts")
    return tuple(as_answer(item, f"{name}[{index}]") for index, item in enumerate(value))


def as_numbers(value: object, name: str) -> tuple[float, ...]:
    """Read a list of numbers of any length; NaN and infinity are checked by a later stage."""
    if not isinstance(value, (list, tuple)) or not all(is_number(item) for item in value):
        return refuse(name, value, "a list of numbers")
    return tuple(float(item) if abs(item) < MAX_INTEGER or isinstance(item, float) else float("inf") for item in value)


def is_number(value: object) -> bool:
    """Return whether a value is an int or float; truth values are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_missing(value: object) -> bool:
    """Return whether a value is none: null, or NaN, as tables write what is missing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def refuse(name: str, value: object, wanted: str) -> NoReturn:
    """Raise the error of a field that is missing or of another type.

    Raises:
        RowError: MISSING_FIELD for null, NaN or nothing, else UNREADABLE_ROW.
    """
    if is_missing(value):
        raise RowError(RejectReason.MISSING_FIELD, f"{name} is missing")
    raise RowError(RejectReason.UNREADABLE_ROW, f"{name} is {shown(value)}; it should be {wanted}")


def shown(value: object) -> str:
    """Return a value for messages: the beginning of a text, a small number, else the type."""
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARS])
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_INTEGER):
        return repr(value)
    return f"a {type(value).__name__}"


_COCO_NAME = re.compile(r"COCO_(?:train|val|test)(?:2014|2015)_([0-9]{12})(?![0-9])")
_COCO_FOLDER = re.compile(r"(?:^|/)(?:train|val|test|unlabeled)(?:2014|2015|2017)/(?:COCO_[a-z0-9]+_)?([0-9]{12})\.")
_GENOME_FOLDER = re.compile(r"(?:^|/)VG_100K(?:_2)?/([0-9]{1,9})\.")
_PATH_CHARS = 1_000
"""Characters of a path that are searched for a known image name."""
_IMAGE_NUMBER = re.compile(r"<image ([1-9][0-9]?)>")
_DATA_URL = re.compile(
    r"data:(?:image/[\w.+-]+|application/octet-stream)?(?:;[\w.=+-]+)*;base64,|base64(?:,|://)", re.IGNORECASE
)
_LINK = re.compile(r"(https?):/+", re.IGNORECASE)
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR", "Qk0", "SUkqA", "TU0AK")
"""How base64 of PNG, JPEG (in both alphabets), GIF, WebP, BMP and TIFF files begins."""
_SHORTEST_BASE64 = 64
_URL_SAFE = str.maketrans("-_", "+/")


def picture_id(path: str) -> str:
    """Return the common name of a COCO or Visual Genome image, or an empty text.

    COCO numbers its images over all years and splits, so 9 is the same image in train2014 and train2017.

    Example:
        >>> picture_id("coco/train2017/000000000009.jpg"), picture_id("VG_100K_2/2410408.jpg"), picture_id("1.png")
        ('coco/9', 'vg/2410408', '')
    """
    tail = path[-_PATH_CHARS:]
    coco = _COCO_NAME.search(tail) or _COCO_FOLDER.search(tail)
    if coco:
        return coco_id(int(coco.group(1)))
    genome = _GENOME_FOLDER.search(tail)
    return f"vg/{int(genome.group(1))}" if genome else ""


def coco_id(number: int) -> str:
    """Return the common name of COCO's image `number`."""
    return f"coco/{number}"


def file_image(folder: str, path: str, image_id: str = "") -> RawImage:
    """Return an image by its file, or by its http(s) link.

    Args:
        folder: Image folder relative to the source's root; empty for the root.
        path: As in the row. Absolute paths and links are kept; stage read decides whether they may be read.
        image_id: Common name of the image; derived from the path if empty.
    """
    is_whole = not folder or path.startswith("/") or _LINK.match(path)
    joined = path if is_whole else f"{folder}/{path}"
    known = image_id or picture_id(joined)
    if _LINK.match(joined):
        return RawImage(link=_LINK.sub(r"\1://", joined), image_id=known)
    return RawImage(path=joined, image_id=known)


def cell_image(value: object, name: str, folder: str = "") -> RawImage:
    """Read the image of a table cell: a struct of bytes and path (or url), bare bytes, a path, or a link.

    Raises:
        RowError: There is no image in it.
    """
    path: object = None
    if isinstance(value, Mapping):
        path, value = value.get("path") or value.get("url"), value.get("bytes")
        if isinstance(value, str) and value:  # bytes in JSON
            path, value = value, None
    elif isinstance(value, str):
        path, value = value, None
    if value is None and isinstance(path, str):
        value = _encoded(path, name)
        path = None if value else path.removeprefix("file://")
    known = picture_id(path) if isinstance(path, str) else ""
    if isinstance(value, bytes) and value:
        return RawImage(data=value, image_id=known)
    if isinstance(path, str) and path:
        return file_image(folder, path)
    return refuse(name, value, "an image: bytes, a path, or both")


def is_encoded(text: str) -> bool:
    """Return whether a text begins like an image in base64, with or without `data:image/png;base64,` before it."""
    return _DATA_URL.match(text) is not None or (text.startswith(_BASE64_STARTS) and len(text) >= _SHORTEST_BASE64)


def _encoded(text: str, name: str) -> bytes | None:
    """Return the bytes of an image that a text holds as base64, in either alphabet, padded or not."""
    if not is_encoded(text):
        return None
    start = _DATA_URL.match(text)
    try:
        digits = "".join(text[start.end() if start else 0 :].split()).translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        if start is None:
            return None  # a path that begins like base64
        raise RowError(RejectReason.IMAGE_CORRUPT, f"{name} is no base64: {error}") from error


def cell_images(value: object, name: str, folder: str = "") -> tuple[RawImage, ...]:
    """Read one image or a list of images, which a text may hold as JSON or Python source; null and [] are no images."""
    if value is None or value == "":
        return ()
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        value = _written_list(value)
    if isinstance(value, (list, tuple)):
        return tuple(cell_image(item, f"{name}[{index}]", folder) for index, item in enumerate(value))
    return (cell_image(value, name, folder),)


def _written_list(text: str) -> object:
    """Return the list that a text holds, as tables of texts have them; the text itself if it holds none."""
    for read in (json.loads, ast.literal_eval):
        try:
            found: object = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else text
    return text


def require_images(images: tuple[RawImage, ...], name: str) -> tuple[RawImage, ...]:
    """Refuse a row without an image.

    Raises:
        RowError: MISSING_FIELD.
    """
    if not images:
        raise RowError(RejectReason.MISSING_FIELD, f"{name} holds no image")
    return images


def with_numbers(text: str, present: Sequence[int]) -> str:
    """Return a text whose `<image 2>` is [image n], with the place of image 2 among those that the row has.

    Example:
        >>> with_numbers("Compare <image 1> with <image 3>.", [1, 3])
        'Compare [image 1] with [image 2].'
    """

    def place(marker: re.Match[str]) -> str:
        number = int(marker[1])
        return f"[image {present.index(number) + 1 if number in present else number}]"

    return _IMAGE_NUMBER.sub(place, text)


def is_link(path: str) -> bool:
    """Return whether a text begins as an http(s) link."""
    return _LINK.match(path) is not None


def file_name(path: str) -> str:
    """Return the name of a file without its folder."""
    return PurePosixPath(path[-_PATH_CHARS:]).name


def stem(path: str) -> str:
    """Return the name of a file without folder and suffix."""
    return PurePosixPath(path[-_PATH_CHARS:]).stem
