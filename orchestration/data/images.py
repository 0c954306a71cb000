"""Checks of one image: the size in its header, then all pixels; and fingerprints to find near-duplicates.

Bytes are not trusted. Nothing is decoded before the size in the header is known to be acceptable, and any failure of a
decoder becomes a refusal with a reason, never an error of the data engine.

The fingerprints are a difference hash and a thumbnail. Both are means over a grid of cells, which change little with
the size, encoder or quality of an image. The hash compares neighbouring cells, the thumbnail has colours; two images
are near-duplicates if both are close.
"""

import base64
import hashlib
import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from conf.pictures import in_rgb
from orchestration.data.sources.rows import Refused, RejectReason, StoredImage
from orchestration.settings.recipe import LimitsConfig

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
BOMB_FACTOR = 4
"""A header with more than this multiple of max_pixels is treated as a decompression bomb."""
JPEG_QUALITY = 95
_ORIENTATION = 0x0112
_TURNED = range(2, 9)
"""EXIF orientations that move pixels; 1 is upright, other values are ignored by viewers."""
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Start of the next segment: stuffed zeros, restart marks and fill bytes are part of the pixels."""
_JPEG_END, _JPEG_SECOND_START, _JPEG_EMPTY = 0xD9, 0xD8, 0x01
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_HAS_COLOURS = 0x80
HASH_SIDE = 16
"""Rows of the hash, and bits in each: 256 in all."""
THUMBNAIL_SIDE = 16
MIN_STEP = 2
"""Grey levels by which a cell must be brighter than its left neighbour to set its bit. With 0, JPEG noise would set
random bits in white areas of a drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage:
    """An image that can be decoded, with the bytes that the dataset will hold."""

    data: bytes
    """Bytes of the source, unless colours or orientation were changed."""
    sha256: str
    """Of `data`."""
    width: int
    height: int
    dhash: str
    thumbnail: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def stored(self, *, image_id: str, chunk: str, index: int) -> StoredImage:
        """Return the record of the image, whose bytes are stored at `index` of `chunk`."""
        return StoredImage(
            sha256=self.sha256,
            size_bytes=len(self.data),
            width=self.width,
            height=self.height,
            dhash=self.dhash,
            thumbnail=self.thumbnail,
            image_id=image_id,
            chunk=chunk,
            index=index,
        )


def check_image(data: bytes, limits: LimitsConfig, *, has_boxes: bool) -> CheckedImage:
    """Decode an encoded image fully and return it with its size and fingerprints.

    Palettes, transparency and grey stay in the bytes: engine and learner convert to RGB, transparent pictures on white,
    which is done here for the fingerprints. Files of several frames are refused, also photographs with an embedded
    preview (MPO), because it is not known which frame is meant.

    Args:
        data: The encoded file.
        limits: Sizes, and what to do with print colours and EXIF orientation.
        has_boxes: Whether the row holds boxes; turned images are then refused whatever `limits.exif` says.

    Raises:
        Refused: The image cannot be used, with one of the IMAGE_ reasons.
    """
    if len(data) > limits.max_image_bytes:
        raise Refused(
            RejectReason.IMAGE_FILE_TOO_LARGE, f"{len(data)} bytes; limits.max_image_bytes is {limits.max_image_bytes}"
        )
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and large sizes; both are checked below.
        warnings.simplefilter("ignore")
        try:
            return _check(data, limits, has_boxes)
        except Refused:
            raise
        except Image.DecompressionBombError as error:
            raise Refused(RejectReason.IMAGE_BOMB, str(error)) from error
        except Exception as error:
            raise Refused(_reason_of(error, data), _detail_of(error, data)) from error


def _check(data: bytes, limits: LimitsConfig, has_boxes: bool) -> CheckedImage:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.size, limits)
        if is_truncated(data):
            raise Refused(RejectReason.IMAGE_TRUNCATED, f"{len(data)} bytes, and the end of the file is missing")
        if getattr(image, "is_animated", False):  # formats without frames lack the attribute
            raise Refused(RejectReason.IMAGE_ANIMATED, f"a {image.format} file of several frames")
        is_cmyk = image.mode == "CMYK"
        if is_cmyk and limits.cmyk == "quarantine":
            raise Refused(RejectReason.IMAGE_CMYK, f"a {image.format} file in CMYK; limits.cmyk is quarantine")
        if image.mode.startswith(("I", "F")):
            raise Refused(RejectReason.IMAGE_DEPTH, f"a {image.format} file of mode {image.mode}")
        # Pillow turns TIFF files while it loads them and then forgets the orientation: it is read before that.
        orientation = image.getexif().get(_ORIENTATION, 1)
        is_turned = orientation in _TURNED
        if is_turned and (has_boxes or limits.exif == "quarantine"):
            why = "its row has boxes" if has_boxes else "limits.exif is quarantine"
            raise Refused(RejectReason.IMAGE_ROTATED, f"EXIF orientation {orientation}, and {why}")
        image.load()
        upright = ImageOps.exif_transpose(image) if is_turned else image
        pixels = in_rgb(upright)
        if is_cmyk or is_turned:
            data = _encode(pixels, image.format)
    _check_size(pixels.size, limits)
    return CheckedImage(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        width=pixels.width,
        height=pixels.height,
        dhash=dhash256(pixels),
        thumbnail=thumbnail(pixels),
    )


def _check_size(size: tuple[int, int], limits: LimitsConfig) -> None:
    """Refuse sizes outside of the limits; called for the header, and again for the decoded image."""
    width, height = size
    spelled = f"{width} x {height} pixels"
    if width * height > BOMB_FACTOR * limits.max_pixels:
        raise Refused(
            RejectReason.IMAGE_BOMB, f"{spelled}; more than {BOMB_FACTOR} times limits.max_pixels {limits.max_pixels}"
        )
    if width * height > limits.max_pixels:
        raise Refused(RejectReason.IMAGE_TOO_LARGE, f"{spelled}; limits.max_pixels is {limits.max_pixels}")
    if min(size) < limits.min_side:
        raise Refused(RejectReason.IMAGE_TOO_SMALL, f"{spelled}; limits.min_side is {limits.min_side}")
    if max(size) > limits.max_aspect * min(size):
        raise Refused(RejectReason.IMAGE_TOO_NARROW, f"{spelled}; limits.max_aspect is {limits.max_aspect:g}")


def _encode(pixels: Image.Image, source_format: str | None) -> bytes:
    """Encode changed pixels, without the metadata of their file."""
    pixels.info = {}
    buffer = io.BytesIO()
    if source_format == "JPEG":
        pixels.save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        pixels.save(buffer, "PNG")
    return buffer.getvalue()


def _reason_of(error: Exception, data: bytes) -> RejectReason:
    # PNG text and colour profiles are unpacked by the header's reader, which stops at a limit with these words.
    if "too large for" in str(error) or "Too much memory used in text chunks" in str(error):
        return RejectReason.IMAGE_BOMB
    if is_truncated(data) or "truncated" in str(error).casefold():
        return RejectReason.IMAGE_TRUNCATED
    return RejectReason.IMAGE_CORRUPT


def _detail_of(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"{len(data)} bytes that begin with {data[:12].hex(' ') or 'nothing'}: none of {', '.join(FORMATS)}"
    return f"{type(error).__name__}: {error}"


def dhash256(image: Image.Image) -> str:
    """Return the difference hash of an RGB image: 64 hexadecimal digits, row by row, leftmost pair of cells first.

    Bit (y, x) is set where cell (y, x + 1) of a 16 x 17 grid of grey means is brighter than cell (y, x) by more than
    MIN_STEP.

    Source:
        N. Krawetz, "Kind of Like That" (2013), with 17 x 16 instead of 9 x 8 cells and a least step.
    """
    cells = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grid = np.asarray(cells, np.int16)
    return np.packbits(grid[:, 1:] - grid[:, :-1] > MIN_STEP).tobytes().hex()


def thumbnail(image: Image.Image) -> str:
    """Return the means of an RGB image over 16 x 16 cells as base64 of 768 bytes, row by row."""
    cells = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return base64.b64encode(cells.tobytes()).decode("ascii")


def is_truncated(data: bytes) -> bool:
    """Return whether a PNG, JPEG, GIF or WebP file lacks its end.

    Decoders report a truncated file as truncated, as no image, or not at all. The containers are reliable: each block
    states its length, and an end marker follows. Nothing is decoded.

    Returns False for files of any other kind, for files too short to have a known kind, and for broken ones that have
    an end, which the decoder refuses. Bytes after the end are ignored.
    """
    if data.startswith(_PNG_MAGIC):
        return _is_png_truncated(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _is_jpeg_truncated(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _is_gif_truncated(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _is_png_truncated(data: bytes) -> bool:
    at = len(_PNG_MAGIC)
    while at + 8 <= len(data):
        is_last = data.startswith(b"IEND", at + 4)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if is_last:
            return at > len(data)
    return True


def _is_jpeg_truncated(data: bytes) -> bool:
    at = 2
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        at = marker.end()
        kind = data[at - 1]
        if kind == _JPEG_END:
            return False
        if kind not in (_JPEG_SECOND_START, _JPEG_EMPTY):
            if at + 2 > len(data):
                return True
            at += int.from_bytes(data[at : at + 2], "big")
    return True


def _is_gif_truncated(data: bytes) -> bool:
    if len(data) < 13:
        return True
    at = 13 + _gif_colours_bytes(data[10])
    while at < len(data):
        kind = data[at]
        if kind == _GIF_END:
            return False
        if kind == _GIF_EXTENSION:
            at += 2
        elif kind == _GIF_IMAGE:
            if at + 10 > len(data):
                return True
            at += 11 + _gif_colours_bytes(data[at + 9])
        else:
            return False
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return True


def _gif_colours_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & _GIF_HAS_COLOURS else 0
