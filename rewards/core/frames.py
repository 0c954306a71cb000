"""Coordinate frames: a model's boxes and points in pixels of the original image."""

import math

from rewards.core.base import GoldError, RewardRequest

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""

PIXEL_BOUND = 1e6
"""Clip limit in pixels where the image size is unknown."""
UNITS = {
    "pixel": "in pixels of the original image",
    "pixel_resized": "in pixels of the image",
    "norm1000": "in thousandths of the image's width and height, from 0 to 1000",
    "norm1": "as fractions of the image's width and height, from 0 to 1",
}
"""Frame of RewardRequest.coord_mode -> the words that ask a model for it; what a model sees is the resized image."""
BOX_FRAME_PLACE = "{box_frame}"
"""Stands for the sentence about boxes in `rollout.task_prompts`."""
POINT_FRAME_PLACE = "{point_frame}"
"""Stands for the sentence about points."""


def fill_frame(text: str, coord_mode: str) -> str:
    """Return a text with the sentences that ask for a frame in their places; other braces stay.

    Example:
        >>> fill_frame("{box_frame}", "norm1000")
        "Write each box as [x1, y1, x2, y2] in thousandths of the image's width and height, from 0 to 1000."
    """
    units = UNITS[coord_mode]
    text = text.replace(BOX_FRAME_PLACE, f"Write each box as [x1, y1, x2, y2] {units}.")
    return text.replace(POINT_FRAME_PLACE, f"Write each point as [x, y] {units}.")


def to_pixels(box: Box, request: RewardRequest) -> Box | None:
    """Convert a model's box to original pixels and clip it to the image.

    Returns:
        The clipped box, or None if it is not finite, reversed or empty.

    Raises:
        GoldError: If the frame needs an image size that the request lacks.
    """
    if request.coord_mode == "pixel":
        return clip(box, request)
    scale_x, scale_y = frame_scale(request)
    return clip((box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y), request)


def clip(box: Box, request: RewardRequest) -> Box | None:
    """Clip a box in original pixels to the image; None if it is not finite, reversed or empty."""
    x1, y1, x2, y2 = box
    # Not below infinity is said of infinity and of no number alike.
    if not (abs(x1) < math.inf and abs(y1) < math.inf and abs(x2) < math.inf and abs(y2) < math.inf):
        return None
    width, height = request.image_sizes[0] if request.image_sizes else (PIXEL_BOUND, PIXEL_BOUND)
    x1, y1 = 0.0 if x1 < 0.0 else x1, 0.0 if y1 < 0.0 else y1
    x2, y2 = float(width) if x2 > width else x2, float(height) if y2 > height else y2
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def frame_scale(request: RewardRequest) -> tuple[float, float]:
    """Return original pixels per unit of the model's frame, along x and y.

    Raises:
        GoldError: If the frame needs an image size that the request lacks.
    """
    if request.coord_mode == "pixel":
        return 1.0, 1.0
    if not request.image_sizes:
        raise GoldError(f"coord_mode {request.coord_mode} needs image_sizes; the request has none")
    width, height = request.image_sizes[0]
    if request.coord_mode == "norm1":
        return float(width), float(height)
    if request.coord_mode == "norm1000":
        return width / 1000.0, height / 1000.0
    if not request.image_input_sizes:
        raise GoldError("coord_mode pixel_resized needs image_input_sizes; the request has none")
    input_width, input_height = request.image_input_sizes[0]
    return width / input_width, height / input_height
