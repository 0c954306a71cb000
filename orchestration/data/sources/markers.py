"""Markers of images in texts, as training frameworks write them, and the places that they become."""

import re
from collections.abc import Sequence

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.rows import RawImage, RejectReason
from rollout.records import IMAGE_PLACE

_NUMBERED = r"<image[ _-]?(?P<bare>[0-9]{1,3})>|<\|image[ _-]?(?P<barred>[0-9]{1,3})\|>"
"""MMMU, MathVision, MiniCPM-V (from 0), Phi-3-vision."""
_PLAIN = (
    r"<\|vision_start\|>\s*<\|image_pad\|>\s*<\|vision_end\|>",  # Qwen2-VL and later
    r"<\|(?:begin_of_image|image_start)\|>\s*<\|image\|>\s*<\|(?:end_of_image|image_end)\|>",  # GLM-4V, Llama 4
    r"<\|media_start\|>image<\|media_content\|><\|media_pad\|><\|media_end\|>",  # Kimi-VL
    r"<im_start>\s*<image>\s*<im_end>",  # LLaVA
    r"<fake_token_around_image>\s*<image>\s*<fake_token_around_image>",  # Idefics
    r"<img>\s*(?:<image>|<IMG_CONTEXT>|<ImageHere>)?\s*</img>",  # InternVL, MiniGPT-4
    r"\(<image>(?:\./)?</image>\)|<image>(?:\./)?</image>",  # MiniCPM-V
    r"<image>(?![^<]*</image>)|<img>(?![^<]*</img>)",  # what holds a path, as Qwen-VL's, is no marker
    r"<\|image\|>|<\|image_pad\|>|<\|img\|>|<IMG_CONTEXT>|<ImageHere>",
    r"<start_of_image>|<image_soft_token>|<image_placeholder>|\[IMG\]",  # Gemma 3, DeepSeek-VL and Janus, Pixtral
)
_MARKER = re.compile("|".join((_NUMBERED, *_PLAIN)), re.IGNORECASE)
_LEADING = re.compile(rf"(?:\s*{IMAGE_PLACE})+\s*")


def mark_places(texts: Sequence[str], num_images: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    r"""Put a place (U+FFFC) where each image of a row stands.

    There are no markers, or one for each image. Numbered ones (`<image 2>`) may come in any order and name each image
    of the row. An image that is named again, or beside markers without numbers, becomes `image 2` in words.

    Args:
        texts: Of the row's turns, oldest first.
        num_images: Of the row.

    Returns:
        The texts without white space around them, and the order of the images: their indices in the row, as they stand.

    Raises:
        RowError: Markers name other images than the row has, or words would name an image by a number that its place
            does not have.

    Example:
        >>> mark_places(["<image 2> or <image 1>?"], 2)
        (('\ufffc or \ufffc?',), (1, 0))
    """
    if any(IMAGE_PLACE in text for text in texts):
        raise RowError(RejectReason.TEXT_NOT_CLEAN, "a text holds U+FFFC, which stands for an image here")
    numbers = [_number(marker) for text in texts for marker in _MARKER.finditer(text)]
    order = _order(numbers, num_images)
    seen: set[int | None] = set()
    are_words = None in numbers

    def placed(marker: re.Match[str]) -> str:
        number = _number(marker)
        if number is None or not (are_words or number in seen):
            seen.add(number)
            return IMAGE_PLACE
        return f"image {number}"

    return tuple(_tidy(_MARKER.sub(placed, text)) for text in texts), order


def as_question(text: str) -> str:
    r"""Return a text without its places where all of them begin it: images without a place come first in a question.

    Example:
        >>> as_question("\ufffcWhat is this?")
        'What is this?'
    """
    leading = _LEADING.match(text)
    is_all = leading is not None and leading[0].count(IMAGE_PLACE) == text.count(IMAGE_PLACE)
    return text[leading.end() :] if leading and is_all else text


def place_images(question: str, images: tuple[RawImage, ...]) -> tuple[str, tuple[RawImage, ...]]:
    """Return a question with its images in their places, and the images in that order.

    Raises:
        RowError: As `mark_places` does.
    """
    (marked,), order = mark_places([question], len(images))
    return as_question(marked), tuple(images[index] for index in order)


def numbers_in_words(texts: Sequence[str], num_images: int) -> tuple[str, ...]:
    """Return texts whose numbered markers are words, for rows whose images come first, in their order.

    Raises:
        RowError: A number is none of an image.

    Example:
        >>> numbers_in_words(["Which is like <image 1>?"], 1)
        ('Which is like image 1?',)
    """
    numbers = [number for text in texts for number in map(_number, _MARKER.finditer(text)) if number is not None]
    first = 0 if 0 in numbers else 1
    if any(number - first >= num_images for number in numbers):
        raise _unequal("markers", [number - first for number in numbers], first, num_images)

    def word(marker: re.Match[str]) -> str:
        number = _number(marker)
        return marker[0] if number is None else f"image {number}"

    return tuple(_MARKER.sub(word, text) for text in texts)


def renumbered(text: str, present: Sequence[int]) -> str:
    """Return a text whose numbered markers count the images that a row has.

    Args:
        text: As in the row.
        present: Numbers of the images that it has: [1, 3] where the column image_2 is empty.

    Raises:
        RowError: A marker names an image that the row does not have.

    Example:
        >>> renumbered("Is <image 1> like <image_3>?", [1, 3])
        'Is <image 1> like <image 2>?'
    """

    def place(marker: re.Match[str]) -> str:
        number = _number(marker)
        if number is None:
            return marker[0]
        if number not in present:
            raise RowError(RejectReason.MARKERS_UNEQUAL, f"a text names image {number}, which the row does not have")
        return f"<image {present.index(number) + 1}>"

    return _MARKER.sub(place, text)


def names_by_number(text: str) -> bool:
    """Return whether a text names images by numbered markers."""
    return any(_number(marker) is not None for marker in _MARKER.finditer(text))


def has_marker(text: str) -> bool:
    """Return whether a text has a marker of an image."""
    return _MARKER.search(text) is not None


def _number(marker: re.Match[str]) -> int | None:
    digits = marker["bare"] or marker["barred"]
    return int(digits) if digits else None


def _order(numbers: Sequence[int | None], num_images: int) -> tuple[int, ...]:
    """Return the indices of the images in the order of their places."""
    natural = tuple(range(num_images))
    named = [number for number in numbers if number is not None]
    first = 0 if 0 in named else 1
    named = [number - first for number in named]
    num_plain = len(numbers) - len(named)
    if num_plain:
        if num_plain != num_images or any(index >= num_images for index in named):
            raise _unequal(f"{num_plain} markers of images", named, first, num_images)
        return natural
    order = tuple(dict.fromkeys(named))
    if order and set(order) != set(natural):
        raise _unequal("markers", named, first, num_images)
    if len(order) < len(named) and order != natural:
        raise RowError(
            RejectReason.MARKERS_UNEQUAL,
            f"images stand in the order {', '.join(str(index + first) for index in order)}, and one is named again",
        )
    return order or natural


def _unequal(what: str, named: Sequence[int], first: int, num_images: int) -> RowError:
    numbers = f" with the numbers {', '.join(str(index + first) for index in named)}" if named else ""
    return RowError(RejectReason.MARKERS_UNEQUAL, f"the texts have {what}{numbers}, the row has {num_images} images")


def _tidy(text: str) -> str:
    """Return a text without white space around it, and around places that come before all of it."""
    text = text.strip()
    rest = as_question(text)
    return IMAGE_PLACE * text.count(IMAGE_PLACE) + rest if rest != text else text
