"""Checking one image of a row: what the header claims first, then every pixel, then the fingerprints.

Bytes come from strangers. Nothing is decoded before its claimed size is known to be sane, and whatever a decoder does
with hostile bytes ends as a refusal with a reason, never as an error of the data engine.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from orchestration.data.checking.containers import is_truncated
from orchestration.data.duplicates.fingerprints import dhash256, thumbnail
from orchestration.data.rows.reasons import Refused, RejectReason
from orchestration.data.rows.records import StoredImage
from orchestration.settings.recipe import LimitsConfig

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
BOMB_FACTOR = 4
"""A header that claims more than this multiple of max_pixels is no large photograph, it is an attack or garbage."""
JPEG_QUALITY = 95
_ORIENTATION = 0x0112
_TURNED = range(2, 9)
"""EXIF orientations that move pixels; 1 is upright, and viewers ignore any other value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage:
    """An image that decodes, in the bytes that the dataset will hold."""

    data: bytes
    """The source's own bytes, unless colours or orientation had to be changed."""
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
        """Give what a row keeps of the image once its bytes lie at place `index` of `chunk`."""
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
    """Decode an encoded image fully and give it with its size and fingerprints.

    Palettes, transparency, grey and 16-bit channels stay in the bytes: the model's own path converts to RGB, and here
    that conversion is proved to work. Files of several frames are refused, also photographs with an embedded preview
    (MPO), because nobody knows which one is meant.

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
        # Pillow warns of odd metadata and large sizes; what matters of it is decided below.
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
        pixels = upright.convert("RGB")
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
    """Refuse sizes outside of the limits; called for the header, and again for what was decoded."""
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
    """Encode changed pixels, without the metadata of the file that they came from."""
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
