"""Pointing reward: points that fall into the reference's boxes, one point a box, or near to their centres."""

import math
import re
from collections.abc import Sequence

from rewards.core.base import Grade, Reason, RewardRequest
from rewards.core.config import PointingConfig
from rewards.core.frames import Box, frame_scale
from rewards.functions.grounding import best_sum, gold_entries
from rewards.text.boxes import NOT_JSON, read_json, says_nothing
from rewards.text.denial import is_number_denied, is_pointed_away
from rewards.text.plain_text import unify

Point = tuple[float, float]
"""x, y."""

_POINT = re.compile(r"[\[(]\s*(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)(?:\s*,\s*|\s+)(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*[\])]")
_COORDINATE = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_BARE = re.compile(r"\s*(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)(?:\s*,\s*|[ \t]+)(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*\.?\s*")
_NAMED = re.compile(
    r"""(?<![A-Za-z"'])\(?\bx([0-9]{0,3})\s*[:=]\s*["']?(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)["']?[,;\s]+y\1\s*[:=]\s*["']?"""
    r"""(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)["']?\)?""",
    re.IGNORECASE,
)
"""`x=30, y=30`, also in a tag: `<point x="30" y="30">`."""
_TAG = re.compile(r"</?(?:points?|click|coordinates?)\b>?|(?<=[0-9])\s?px\b")
_CALL = re.compile(r"\w+\(\s*(?:point|start_box|coordinate)\s*=\s*['\"]([^'\"]*)['\"]\s*\)")
"""`click(point='<point>30 30</point>')`."""
_BETWEEN_PAIRS = re.compile(r";\s*|\n\s*")
_GROUP = re.compile(r"[\[(][^\[\]()]*[0-9][^\[\]()]*[\])]")
MAX_DEPTH = 3
"""Deepest nesting of objects that is read."""
_KEYS = ("point_2d", "point", "points", "coordinates")


class PointingReward:
    """Grades points against boxes, written in the reference as for grounding: JSON in original pixels.

    Each point may meet one box and each box one point; the sum is divided by the larger of the two numbers, so that
    scattered points earn no more than their share.

    Example:
        >>> request = RewardRequest(task="pointing", question="the dog", response="", answer="[0, 0, 100, 100]",
        ...                         image_sizes=((400, 300),))
        >>> [grade.value for grade in PointingReward(PointingConfig()).grade(request, ["(50, 50)", "(150, 50)"])]
        [1.0, 0.0]
    """

    def __init__(self, config: PointingConfig) -> None:
        self._config = config

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer in [0, 1]; see RewardFunction."""
        boxes = _boxes(request)
        return [self._grade_one(answer, boxes, request) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        points = read_points(answer[: self._config.max_chars])
        return [f"boxes {_boxes(request)} in original pixels", f"points {points} in {request.coord_mode}"]

    def _grade_one(self, answer: str, boxes: Sequence[Box], request: RewardRequest) -> Grade:
        if len(answer) > self._config.max_chars:
            return Grade(0.0, Reason.TOO_LONG)
        points = read_points(answer)
        if points is None:
            return Grade(0.0, Reason.UNREADABLE)
        if len(points) > self._config.max_points:
            return Grade(0.0, Reason.TOO_LONG, parsed=f"{len(points)} points")
        parsed = str([list(point) for point in points if point is not None][:10])
        if not points or not boxes:
            return Grade(float(not points and not boxes), parsed=parsed)
        scale_x, scale_y = frame_scale(request)
        values = [
            [0.0 if point is None else self._value((point[0] * scale_x, point[1] * scale_y), box) for box in boxes]
            for point in points
        ]
        reason = Reason.BAD_BOX if None in points else Reason.OK
        return Grade(best_sum(values) / max(len(points), len(boxes)), reason, parsed)

    def _value(self, point: Point, box: Box) -> float:
        """Return the value of one point for one box."""
        x1, y1, x2, y2 = box
        if not self._config.distance:
            return float(x1 <= point[0] <= x2 and y1 <= point[1] <= y2)
        half_diagonal = math.hypot(x2 - x1, y2 - y1) / 2.0
        return max(0.0, 1.0 - math.hypot(point[0] - (x1 + x2) / 2.0, point[1] - (y1 + y2) / 2.0) / half_diagonal)


def read_points(text: str) -> list[Point | None] | None:
    """Read all points of a text: JSON lists and objects, `(x, y)` in prose, or bare pairs of numbers.

    Returns:
        One entry per guess, None where it is malformed; empty only for an explicit empty list or `none`; None without
        a guess.

    Example:
        >>> read_points('[{"point_2d": [3, 4]}]'), read_points("(3, 4) and [5, 6, 7]"), read_points("banana")
        ([(3.0, 4.0)], [(3.0, 4.0), None], None)
    """
    text = (
        (text if text.isascii() else unify(text))
        .strip()
        .removeprefix("```json")
        .removeprefix("```")
        .removesuffix("```")
        .strip()
    )
    if says_nothing(text):
        return []
    text = (
        _CALL.sub(r"\1", _TAG.sub("", _NAMED.sub(r"(\2, \3)", text))) if "x" in text.casefold() or "<" in text else text
    )
    bare = [_BARE.fullmatch(pair) for pair in _BETWEEN_PAIRS.split(text)]
    if None not in bare:
        return [(float(pair[1]), float(pair[2])) for pair in bare if pair is not None]
    value = read_json(text)
    if value is not NOT_JSON:
        return _points_of(value, 0)
    points: list[Point | None] = []
    end = 0
    for group in _GROUP.finditer(text):
        before, behind = text[max(end, group.start() - 100) : group.start()], text[group.end() : group.end() + 40]
        if not is_pointed_away(before, behind):
            match = _POINT.fullmatch(group.group())
            points.append(None if match is None else (float(match[1]), float(match[2])))
        end = group.end()
    return None if is_number_denied("", text[end:][:100].casefold()) else points or None


def _points_of(value: object, depth: int) -> list[Point | None] | None:
    """Return the points in a JSON value."""
    if isinstance(value, dict):
        if {"x", "y"} <= value.keys():
            return [_point([value["x"], value["y"]])]
        named = [value[key] for key in _KEYS if key in value][:1] or list(value.values())
        inner = [item for item in named if isinstance(item, (list, dict))] if depth < MAX_DEPTH else []
        return [point for item in inner for point in _points_of(item, depth + 1) or []] if inner else [None]
    if not isinstance(value, list):
        return None
    if value and not any(isinstance(item, (list, dict)) for item in value):
        return [_point(value)]
    points: list[Point | None] = []
    for item in value:
        points.extend((_points_of(item, depth + 1) or [None]) if isinstance(item, dict) else [_point(item)])
    return points


def _point(value: object) -> Point | None:
    """Return a list of two finite numbers as a point, else None."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    value = [float(item) if isinstance(item, str) and _COORDINATE.fullmatch(item) else item for item in value]
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) or abs(item) > 1e9 for item in value):
        return None
    return None if value[0] != value[0] or value[1] != value[1] else (float(value[0]), float(value[1]))


def _boxes(request: RewardRequest) -> list[Box]:
    """Read the reference as grounding does; GoldError where that does."""
    return [entry.box for entry in gold_entries(request) if entry.box is not None]
