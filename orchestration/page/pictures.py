"""One image of a sample as SVG, with the reference boxes and the boxes that the model gave."""

import html
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from rollout.records import ImageBytes

REFERENCE_COLOUR = "#1f7a4d"
MODEL_COLOUR = "#d0312d"
BOX = re.compile(r"\[\s*(-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?){3})\s*\]")


def picture_svg(image: dict[str, Any], example: dict[str, Any], *, coord_mode: str) -> str:
    """Draw the image; grounding samples get reference boxes (green) and the greedy completion's boxes (red).

    Args:
        image: width, height (original pixels), input_width, input_height (as the model saw it), data (data URI).
        example: the evaluated sample; its `greedy` completion is read for boxes.
        coord_mode: frame in which the model writes boxes.
    """
    width, height = image["width"], image["height"]
    reference: list[list[float]] = []
    given: list[list[float]] = []
    if example["family"] == "grounding":
        reference = _flat(json.loads(example["answer"]))
        answer = example["greedy"].rpartition("<answer>")[2][:4000]
        frame_width, frame_height = _frame_size(image, coord_mode)
        scales = (width / frame_width, height / frame_height) * 2
        boxes = [[float(value) for value in match.split(",")] for match in BOX.findall(answer)]
        given = [[value * scale for value, scale in zip(box, scales, strict=True)] for box in boxes]
    return boxes_svg(image["data"], (width, height), reference=reference, given=given)


def boxes_svg(
    data: str, size: tuple[int, int], *, reference: Sequence[Sequence[float]], given: Sequence[Sequence[float]]
) -> str:
    """Draw an image with reference boxes in green and the model's in red.

    Args:
        data: The image as a data URI.
        size: Its width and height in original pixels.
        reference: x1, y1, x2, y2 of each box in original pixels.
        given: The model's boxes, likewise.
    """
    width, height = size
    boxes = _rectangles(reference, REFERENCE_COLOUR) + _rectangles(given, MODEL_COLOUR)
    return (
        f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        f'<image href="{html.escape(data)}" width="{width}" height="{height}"/>{boxes}</svg>'
    )


def data_uri(image: ImageBytes) -> str:
    """Give an encoded image as a data URI; anything but JPEG, WebP and GIF is taken for PNG."""
    starts = {b"\xff\xd8": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
    kind = next((kind for start, kind in starts.items() if image.data.startswith(start)), "png")
    return f"data:image/{kind};base64,{b64encode(image.data).decode()}"


def _frame_size(image: dict[str, Any], coord_mode: str) -> tuple[float, float]:
    """Give the image's width and height in units of the model's frame."""
    sizes = {
        "pixel": (image["width"], image["height"]),
        "pixel_resized": (image["input_width"], image["input_height"]),
        "norm1000": (1000, 1000),
        "norm1": (1, 1),
    }
    return sizes[coord_mode]


def _flat(boxes: list[Any]) -> list[list[float]]:
    return boxes if not boxes or isinstance(boxes[0], list) else [boxes]


def _rectangles(boxes: Sequence[Sequence[float]], colour: str) -> str:
    return "".join(
        f'<rect x="{x1}" y="{y1}" width="{max(0.0, x2 - x1)}" height="{max(0.0, y2 - y1)}" fill="none" '
        f'stroke="{colour}" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
        for x1, y1, x2, y2 in boxes
    )
