"""RefCOCO, RefCOCO+ and RefCOCOg: share of expressions whose box has an IoU of at least 0.5 with the reference.

Boxes are read in the model's own frame and compared in original pixels. A referring expression names one thing, so
more than one box is wrong unless all are the same box, and a malformed one beside a good one is one more (`accuracy`).
Public scorers take the first box that they find, and so does `official`. `strict` is accuracy where the box also
stands in the answer block.

Rows whose reference is not exactly one box are not of this benchmark and are skipped.
"""

from orchestration.evaluate.presets.answer_text import bare_answer
from orchestration.evaluate.presets.base import Preset, RowScore, mean_of
from orchestration.workers.answers import ROUNDING, Completion, EvaluatedSample
from rewards.answer import extract_answer
from rewards.base import GoldError
from rewards.boxes import Box, clip, parse_boxes, to_pixels
from rewards.grounding import iou
from rewards.parameters import FormatConfig

IOU_THRESHOLD = 0.5
MAX_CHARS = 20_000
"""Longer answers are read up to here; one box needs a few dozen characters."""


def reference_boxes(sample: EvaluatedSample) -> list[Box]:
    """Give the reference boxes in original pixels, clipped to the image; the unusable ones are left out."""
    request = sample.request()
    boxes = [entry.box and clip(entry.box, request) for entry in parse_boxes(sample.answer) or []]
    return [box for box in boxes if box is not None]


def model_boxes(sample: EvaluatedSample, completion: Completion) -> list[Box | None]:
    """Give the boxes of an answer in original pixels, clipped to the image; None for each that is malformed.

    Raises:
        GoldError: The row lacks the image size that its frame needs.
    """
    request = sample.request()
    entries = parse_boxes(bare_answer(completion.text)[:MAX_CHARS]) or []
    return [entry.box and to_pixels(entry.box, request) for entry in entries]


def _score(sample: EvaluatedSample, completion: Completion) -> RowScore | None:
    if completion.task_reward is None:
        return None
    try:
        boxes = model_boxes(sample, completion)
    except GoldError:
        return None
    target = reference_boxes(sample)[0]
    overlaps = [0.0 if box is None else iou(box, target) for box in boxes]
    hits = [float(overlap >= IOU_THRESHOLD - ROUNDING) for overlap in overlaps]
    is_one = len(set(boxes)) == 1
    hit = hits[0] if is_one else 0.0
    return RowScore(
        official=hits[0] if hits else 0.0,
        strict=hit if extract_answer(completion.text, FormatConfig()).text is not None else 0.0,
        columns={
            "hit": hit,
            "iou": overlaps[0] if is_one else 0.0,
            "unreadable": float(not boxes),
            "several": float(len(set(boxes)) > 1),
        },
    )


def _groups(sample: EvaluatedSample) -> list[str]:
    return [f"split {sample.metadata['split']}"] if "split" in sample.metadata else []


REFCOCO = Preset(
    name="refcoco",
    summary="share of boxes with IoU of at least 0.5 in original pixels; several different boxes are wrong",
    tasks=frozenset({"iou"}),
    score=_score,
    accepts=lambda sample: len(reference_boxes(sample)) == 1,
    groups=_groups,
    metrics={
        "accuracy": mean_of("hit"),
        "first_box_accuracy": mean_of("official"),
        "strict_accuracy": mean_of("strict"),
        "mean_iou": mean_of("iou"),
        "unreadable_frac": mean_of("unreadable"),
        "several_boxes_frac": mean_of("several"),
    },
)
