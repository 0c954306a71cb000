"""Reference boxes: from the form and frame of their source to the JSON that the grounding reward reads."""

import json
from collections.abc import Sequence

from orchestration.data.rows.reasons import Refused, RejectReason
from orchestration.data.rows.records import BoxForm, BoxFrame, RawBox, RawRow
from orchestration.settings.recipe import LimitsConfig
from rewards.boxes import Box, parse_boxes

DECIMALS = 2
"""Of a pixel; finer than anybody draws boxes."""


def box_answer(row: RawRow, size: tuple[int, int], limits: LimitsConfig) -> str:
    """Return the reference of a grounding row.

    One box is `[x1, y1, x2, y2]`, several are a list of such lists, none is `[]`. Where the boxes are of several
    categories each is `{"bbox_2d": [...], "label": ...}`; one category alone is named by the question.

    Args:
        row: With `boxes`, or with boxes as text in `answer`; form and frame are the row's.
        size: (width, height) in pixels of the image that the boxes belong to.
        limits: Slack, largest share and number of boxes.

    Raises:
        Refused: BOX_MALFORMED, BOX_OUTSIDE_IMAGE, BOX_TOO_LARGE or TOO_MANY_BOXES.
    """
    boxes = _boxes_in_text(row.answer) if row.boxes is None else row.boxes
    if len(boxes) > limits.max_boxes:
        raise Refused(RejectReason.TOO_MANY_BOXES, f"{len(boxes)}; limits.max_boxes is {limits.max_boxes}")
    corners = [_corners(box, row.box_form, row.box_frame, size, limits) for box in boxes]
    if len({box.label for box in boxes}) > 1:
        entries: list[object] = [_labelled(numbers, box.label) for numbers, box in zip(corners, boxes, strict=True)]
        return json.dumps(entries, ensure_ascii=False)
    return json.dumps(corners[0] if len(corners) == 1 else corners)


def _boxes_in_text(text: str) -> Sequence[RawBox]:
    entries = parse_boxes(text)
    if entries is None or any(entry.box is None for entry in entries):
        raise Refused(RejectReason.BOX_MALFORMED, f"the answer {text[:80]!r} holds no boxes, or a malformed one")
    return [RawBox(values=entry.box or (), label=entry.label or "") for entry in entries]


def _corners(
    raw: RawBox, form: BoxForm, frame: BoxFrame, size: tuple[int, int], limits: LimitsConfig
) -> list[int | float]:
    """Return x1, y1, x2, y2 in original pixels within the image."""
    spelled = f"{raw.values} ({form}, {frame}) in an image of {size[0]} x {size[1]}"
    left, top, right, bottom = _in_pixels(raw, form, frame, size, spelled)
    if not (left < right and top < bottom):
        raise Refused(RejectReason.BOX_MALFORMED, f"box {spelled} is reversed or empty")
    width, height = size
    slack = limits.box_slack
    if min(left, top) < -slack or right > width + slack or bottom > height + slack:
        raise Refused(RejectReason.BOX_OUTSIDE_IMAGE, f"box {spelled}; limits.box_slack is {slack:g} pixels")
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if not (left < right and top < bottom):
        raise Refused(RejectReason.BOX_OUTSIDE_IMAGE, f"box {spelled} lies beyond the edge")
    if (right - left) * (bottom - top) > limits.max_box_frac * width * height:
        raise Refused(RejectReason.BOX_TOO_LARGE, f"box {spelled}; limits.max_box_frac is {limits.max_box_frac:g}")
    numbers = [_rounded(edge) for edge in (left, top, right, bottom)]
    if numbers[0] == numbers[2] or numbers[1] == numbers[3]:
        raise Refused(RejectReason.BOX_MALFORMED, f"box {spelled} is empty once rounded to {DECIMALS} decimals")
    return numbers


def _in_pixels(raw: RawBox, form: BoxForm, frame: BoxFrame, size: tuple[int, int], spelled: str) -> Box:
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in raw.values)
    if len(raw.values) != 4 or not are_numbers:
        raise Refused(RejectReason.BOX_MALFORMED, f"box {spelled} is not four numbers")
    if any(abs(value) > 1e9 for value in raw.values):
        # Beyond any image, and beyond what the arithmetic below keeps exact.
        raise Refused(
            RejectReason.BOX_OUTSIDE_IMAGE, f"a box in an image of {size[0]} x {size[1]} has a value over 1e9"
        )
    first, second, third, fourth = (float(value) for value in raw.values)
    if form == "xywh":
        third, fourth = first + third, second + fourth
    unit = {"pixel": None, "norm1": 1.0, "norm1000": 1000.0}[frame]
    if unit is None:
        return first, second, third, fourth
    scale_x, scale_y = size[0] / unit, size[1] / unit
    return first * scale_x, second * scale_y, third * scale_x, fourth * scale_y


def _rounded(value: float) -> int | float:
    """Return the number as JSON should have it: two decimals, integers without a point, never -0.0."""
    value = round(value, DECIMALS)
    return int(value) if value.is_integer() else value


def _labelled(numbers: list[int | float], label: str) -> dict[str, object]:
    return {"bbox_2d": numbers, "label": label} if label else {"bbox_2d": numbers}
