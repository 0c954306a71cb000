"""Pictures that the tests of the data engine encode, break and look at."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def picture(width: int = 64, height: int = 48, *, seed: int = 0) -> Image.Image:
    """Smooth colours with a little noise, no two alike, and a mark in the upper left that shows which way is up."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 60 * np.sin(x / (6 + 2 * k) + seed + k) + 40 * np.cos(y / (5 + k) - seed) for k in range(3)]
    pixels = (np.stack(waves, -1) + rng.normal(0, 4, (height, width, 3))).clip(0, 255).astype(np.uint8)
    pixels[: height // 3, : width // 3] = 0
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Give the image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Image.Image:
    """Give the pixels as the model sees them."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Give one chunk of a PNG with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, *, idat: bytes = b"", extra: bytes = b"") -> bytes:
    """Give a whole grey PNG whose header claims a size; `idat` is its compressed pixels, `extra` chunks before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", idat or zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


FILES: dict[str, Callable[[], bytes]] = {
    "png": lambda: encoded(picture()),
    "palette png": lambda: encoded(picture().quantize(16)),
    "jpeg": lambda: encoded(picture(), "JPEG"),
    "progressive jpeg": lambda: encoded(picture(), "JPEG", progressive=True),
    "jpeg with a preview": lambda: encoded(picture(), "JPEG", exif=exif_bytes(1), comment=b"\xff\xd9 no end"),
    "webp": lambda: encoded(picture(), "WEBP"),
    "lossless webp": lambda: encoded(picture(), "WEBP", lossless=True),
    "gif": lambda: encoded(picture(), "GIF"),
    "gif with colours of its frame": lambda: encoded(picture(), "GIF", include_color_table=True),
    "bmp": lambda: encoded(picture(), "BMP"),
    "tiff": lambda: encoded(picture(), "TIFF"),
    "compressed tiff": lambda: encoded(picture(), "TIFF", compression="tiff_lzw"),
}
WITH_AN_END = [name for name in FILES if "bmp" not in name and "tiff" not in name]


@cache
def file(name: str) -> bytes:
    return FILES[name]()
