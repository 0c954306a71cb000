"""Whether an image file ends before its format says that it does; nothing is decoded.

Decoders say of a cut file now that it is truncated, now that it is no image at all, and now nothing. The containers
know better: every block of a PNG, JPEG, GIF or WebP says how long it is, and there is a mark at the very end.
"""

import re

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Start of the next segment: stuffed zeros, restart marks and fill bytes are part of the pixels."""
_JPEG_END, _JPEG_SECOND_START, _JPEG_EMPTY = 0xD9, 0xD8, 0x01
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_HAS_COLOURS = 0x80


def is_truncated(data: bytes) -> bool:
    """Give whether a PNG, JPEG, GIF or WebP file lacks its end.

    False of files of any other kind, of files too short to say what they are, and of broken ones that have an end:
    these are for the decoder to refuse. Bytes behind the end are not looked at.
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
