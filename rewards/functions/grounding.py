"""Grounding reward: the best one-to-one sum of IoU, divided by the larger number of boxes.

R = max over matchings of sum IoU(p, g) / max(num_predicted, num_gold). A shotgun of n boxes earns at most 1/n for one
target; every box costs, malformed ones too.
"""

from collections.abc import Sequence

from scipy.optimize import linear_sum_assignment

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import GroundingConfig
from rewards.core.frames import Box, clip, frame_scale, to_pixels
from rewards.text.boxes import BoxEntry, parse_boxes
from rewards.text.plain_text import normalise, without_article


class GroundingReward:
    """Grades boxes; the reference is JSON in original pixels, an empty list where there is nothing to find.

    Example:
        >>> request = RewardRequest(task="iou", question="the dog", response="", answer="[0, 0, 100, 100]",
        ...                         image_sizes=((400, 300),))
        >>> [grade.value for grade in GroundingReward(GroundingConfig()).grade(request, ["[0, 0, 200, 100]", "[]"])]
        [0.5, 0.0]
    """

    def __init__(self, config: GroundingConfig) -> None:
        self._config = config

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer in [0, 1]; see RewardFunction."""
        gold = gold_entries(request)
        return [self._grade_one(answer, gold, request) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        gold = gold_entries(request)
        lines = [f"reference {_spell(gold)} in original pixels; answers are in {request.coord_mode}"]
        for entry in (parse_boxes(answer[: self._config.max_chars]) or [])[:10]:
            box = entry.box and to_pixels(entry.box, request)
            values = ", ".join(
                f"{iou(box, truth.box):.4f}"
                + (f" (label {entry.label!r}, not {truth.label!r}: 0)" if self._differ(entry.label, truth) else "")
                for truth in gold
                if box and truth.box
            )
            lines.append(f"guess {_spell([BoxEntry(box)])}: IoU {values or 'with nothing'}")
        return lines

    def _grade_one(self, answer: str, gold: Sequence[BoxEntry], request: RewardRequest) -> Grade:
        if len(answer) > self._config.max_chars:
            return Grade(0.0, Reason.TOO_LONG)
        guesses = parse_boxes(answer)
        if guesses is None:
            return Grade(0.0, Reason.UNREADABLE)
        parsed = _spell(guesses)
        if len(guesses) > self._config.max_boxes:
            return Grade(0.0, Reason.TOO_LONG, parsed=f"{len(guesses)} boxes")
        if not guesses or not gold:
            return Grade(float(not guesses and not gold), parsed=parsed)
        boxes = [to_pixels(box, request) if box is not None else None for box, _ in guesses]
        reason = Reason.BAD_BOX if None in boxes else Reason.OK
        if len(boxes) == len(gold) == 1 and self._config.shaping not in ("soft_f1", "f1"):
            return Grade(self._pair(boxes[0], guesses[0].label, gold[0]), reason, parsed)
        pairs = zip(boxes, guesses, strict=True)
        total = best_sum([[self._pair(box, guess.label, truth) for truth in gold] for box, guess in pairs])
        if self._config.shaping in ("soft_f1", "f1"):
            return Grade(min(1.0, 2.0 * total / (len(guesses) + len(gold))), reason, parsed)
        return Grade(min(1.0, total / max(len(guesses), len(gold))), reason, parsed)

    def _pair(self, box: Box | None, label: str | None, truth: BoxEntry) -> float:
        """Return the shaped IoU of a pair; 0 for malformed guesses and, if label-aware, for differing labels."""
        if box is None or truth.box is None:
            return 0.0
        if self._differ(label, truth):
            return 0.0
        value = iou(box, truth.box)
        if self._config.shaping == "threshold":
            return value if value >= self._config.threshold else 0.0
        if self._config.shaping == "f1":
            return float(value >= self._config.threshold)
        return value**self._config.power if self._config.shaping == "power" else value

    def _differ(self, label: str | None, truth: BoxEntry) -> bool:
        """Return whether labels count and these two differ."""
        return self._config.label_aware and truth.label is not None and _label(label) != _label(truth.label)


def iou(left: Box, right: Box) -> float:
    """Return intersection over union of two valid boxes.

    Returns:
        In [0, 1]; symmetric; 1 for equal boxes; 0 where the union has no area.

    Example:
        >>> iou((0, 0, 100, 100), (50, 0, 150, 100))
        0.3333333333333333
    """
    if left == right:
        return 1.0
    left_x1, left_y1, left_x2, left_y2 = left
    right_x1, right_y1, right_x2, right_y2 = right
    width = (left_x2 if left_x2 < right_x2 else right_x2) - (left_x1 if left_x1 > right_x1 else right_x1)
    height = (left_y2 if left_y2 < right_y2 else right_y2) - (left_y1 if left_y1 > right_y1 else right_y1)
    if width <= 0.0 or height <= 0.0:
        return 0.0
    intersection = width * height
    areas = (left_x2 - left_x1) * (left_y2 - left_y1) + (right_x2 - right_x1) * (right_y2 - right_y1)
    union = areas - intersection
    return min(1.0, intersection / union) if union > 0.0 else 0.0


def best_sum(values: Sequence[Sequence[float]]) -> float:
    """Return the largest sum over one-to-one pairings of rows and columns.

    Args:
        values: [num_predicted][num_gold], not empty, each at least 0.
    """
    if len(values) == 1:
        return max(values[0])
    if len(values[0]) == 1:
        return max(row[0] for row in values)
    rows, columns = linear_sum_assignment(values, maximize=True)
    return float(sum(values[row][column] for row, column in zip(rows, columns, strict=True)))


def _label(label: str | None) -> str:
    return without_article(normalise(label[:256])) if label is not None else ""


def gold_entries(request: RewardRequest) -> list[BoxEntry]:
    """Read the reference.

    Raises:
        GoldError: If it is unreadable, holds an invalid box, or the frame lacks its image size.
    """
    entries = parse_boxes(request.answer)
    if entries is None:
        raise GoldError(f"iou reference {request.answer[:80]!r} holds no boxes; write JSON, [] for nothing to find")
    frame_scale(request)
    gold = []
    for entry in entries:
        clipped = clip(entry.box, request) if entry.box is not None else None
        if clipped is None:
            raise GoldError(
                f"iou reference {request.answer[:80]!r} has a box that is malformed or outside of the image"
            )
        gold.append(entry if clipped == entry.box else BoxEntry(clipped, entry.label))
    first = gold[0].box if gold else None
    if first is not None and first[2] <= 1.0 and first[3] <= 1.0 and not all(side.is_integer() for side in first):
        raise GoldError(
            f"iou reference {request.answer[:80]!r} lies within one pixel; references are original pixels, so multiply "
            "boxes in 0..1 by the image's width and height"
        )
    return gold


def _spell(entries: Sequence[BoxEntry]) -> str:
    if len(entries) == 1:
        return f"[{_spell_box(entries[0].box)}]"
    return f"[{', '.join(_spell_box(box) for box, _ in entries[:10])}{', ...' if len(entries) > 10 else ''}]"


def _spell_box(box: Box | None) -> str:
    return "[{:g}, {:g}, {:g}, {:g}]".format(*box) if box is not None else "invalid"
