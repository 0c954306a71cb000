"""Images as raw rows name them, and the name that other datasets use for the same picture."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from orchestration.data.rows.reasons import RejectReason
from orchestration.data.rows.records import RawImage
from orchestration.data.sources.fields import RowError, refuse

_COCO_NAME = re.compile(r"COCO_(?:train|val|test)(?:2014|2015)_([0-9]{12})(?![0-9])")
_COCO_FOLDER = re.compile(r"(?:^|/)(?:train|val|test|unlabeled)(?:2014|2015|2017)/(?:COCO_[a-z0-9]+_)?([0-9]{12})\.")
_GENOME_FOLDER = re.compile(r"(?:^|/)VG_100K(?:_2)?/([0-9]{1,9})\.")
_PATH_CHARS = 1_000
"""Of a path that is looked at for a known picture; longer ones are damage."""
_MARKER = re.compile(r"<image>[ \t]*\n?")


def picture_id(path: str) -> str:
    """Return the common name of a COCO or Visual Genome picture, or an empty text.

    COCO numbers its pictures over all years and splits, so 9 is one picture in train2014 and train2017.

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
    """Return the common name of COCO's picture `number`."""
    return f"coco/{number}"


def file_image(folder: str, path: str, image_id: str = "") -> RawImage:
    """Return an image by its file.

    Args:
        folder: Where the source keeps its images, relative to its root; empty for the root.
        path: As the row names it. Absolute paths are passed on as they are, so that they are seen and refused.
        image_id: Common name of the picture; found from the path if empty.
    """
    joined = f"{folder}/{path}" if folder and not path.startswith("/") else path
    return RawImage(path=joined, image_id=image_id or picture_id(joined))


def cell_image(value: object, name: str, folder: str = "") -> RawImage:
    """Read the image of a table cell: a struct of bytes and path, bare bytes, or a path.

    Raises:
        RowError: There is no image in it.
    """
    path: object = None
    if isinstance(value, Mapping):
        path, value = value.get("path"), value.get("bytes")
    elif isinstance(value, str):
        path, value = value, None
    known = picture_id(path) if isinstance(path, str) else ""
    if isinstance(value, bytes) and value:
        return RawImage(data=value, image_id=known)
    if isinstance(path, str) and path:
        return file_image(folder, path)
    return refuse(name, value, "an image: bytes, a path, or both")


def cell_images(value: object, name: str, folder: str = "") -> tuple[RawImage, ...]:
    """Read one image or a list of images; null and an empty list are no images."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(cell_image(item, f"{name}[{index}]", folder) for index, item in enumerate(value))
    return (cell_image(value, name, folder),)


def require_images(images: tuple[RawImage, ...], name: str) -> tuple[RawImage, ...]:
    """Refuse a row without an image.

    Raises:
        RowError: MISSING_FIELD.
    """
    if not images:
        raise RowError(RejectReason.MISSING_FIELD, f"{name} holds no image")
    return images


def without_markers(text: str) -> str:
    """Return a question without `<image>` markers; the prompt template places images, the same way for all sources.

    Example:
        >>> without_markers("<image> What is this?"), without_markers("What is this? <image>")
        ('What is this?', 'What is this?')
    """
    return _MARKER.sub("", text).strip()


def stem(path: str) -> str:
    """Return the name of a file without folder and suffix."""
    return PurePosixPath(path[-_PATH_CHARS:]).stem
