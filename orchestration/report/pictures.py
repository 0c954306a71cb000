"""One image of a sample as SVG, with the reference boxes and the boxes that the model gave."""

import html
import json
import re
from typing import Any

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
    boxes = ""
    if example["family"] == "grounding":
        boxes = _rectangles(_flat(json.loads(example["answer"])), REFERENCE_COLOUR, 1.0, 1.0)
        answer = example["greedy"].rpartition("<answer>")[2][:4000]
        given = [[float(v) for v in match.split(",")] for match in BOX.findall(answer)]
        frame_width, frame_height = _frame_size(image, coord_mode)
        boxes += _rectangles(given, MODEL_COLOUR, width / frame_width, height / frame_height)
    return (
        f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        f'<image href="{html.escape(image["data"])}" width="{width}" height="{height}"/>{boxes}</svg>'
    )


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


def _rectangles(boxes: list[list[float]], colour: str, scale_x: float, scale_y: float) -> str:
    return "".join(
        f'<rect x="{x1 * scale_x}" y="{y1 * scale_y}" width="{max(0.0, x2 - x1) * scale_x}" '
        f'height="{max(0.0, y2 - y1) * scale_y}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for x1, y1, x2, y2 in boxes
    )
