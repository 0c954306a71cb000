"""Stage 3, normalise: turns a validated raw row into a candidate whose reference its own reward accepts.

The result depends on the row and the recipe's seed alone, so it is the same in every process.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Self

from orchestration.data.chunks import Chunk, ChunkWriter
from orchestration.data.options import (
    can_shuffle,
    clean_options,
    letter_answer,
    names_all,
    rendered,
    shuffled,
    without_list,
)
from orchestration.data.sources.rows import (
    BoxForm,
    BoxFrame,
    Candidate,
    RawBox,
    RawRow,
    Refused,
    RejectReason,
    StoredImage,
    candidate_to_json,
    raw_from_json,
)
from orchestration.data.stages import RowStage, RowStep, stage_code
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig, Role
from rewards.core.base import RewardRequest
from rewards.core.config import RewardConfig
from rewards.core.frames import Box
from rewards.proof import ReferenceProof
from rewards.text.boxes import parse_boxes
from rewards.text.yes_no import read_yes_no
from rollout.records import IMAGE_PLACE, Turn, readable

CHART_TYPES = ("", "number", "year", "text", "list", "bool")
_UNTYPED_TASKS = ("match_yesno", "match_mcq", "match_text", "iou", "open", "math")
"""Tasks with one form of reference each: the answer type of the source is dropped."""
_YES_NO = {"1": "yes", "1.0": "yes", "y": "yes", "t": "yes", "0": "no", "0.0": "no", "n": "no", "f": "no"}
_SLOT = re.compile(r"\{(question|options)\}")
DECIMALS = 2
"""Decimals of box coordinates in pixels."""
SAMPLE_ID_KEY = "sample_id"
"""Metadata key under which drawn sources pass on the ids that their rows already have."""
REASONS = {
    "unusable": RejectReason.REFERENCE_UNUSABLE,
    "not_right": RejectReason.REFERENCE_NOT_RIGHT,
    "unearned": RejectReason.REFERENCE_UNEARNED,
    "unselective": RejectReason.REFERENCE_UNSELECTIVE,
}


def normalise(
    row: RawRow,
    images: Sequence[StoredImage],
    *,
    source: str,
    role: Role,
    license: str,
    config: NormaliseConfig,
    limits: LimitsConfig,
    seed: int,
) -> Candidate:
    """Return a validated row in canonical form.

    Args:
        row: A row that `validate` accepted.
        images: Its images as they are stored, in order; boxes belong to the first.
        source: Full name, `/part` included.
        role: Role of the source.
        license: Licence of the source, as the recipe or its adapter states it.
        config: Prompt templates and whether to shuffle options. Options stand once in a question of multiple choice: in
            place of `{options}`, as lines behind the template where it has none, or in the question's own words where
            the answer is one of these. They are shuffled only where they stand apart and `can_shuffle` allows it.
        limits: Limits of boxes.
        seed: Seed of the recipe.

    Raises:
        Refused: The reference, the options or the boxes cannot be used.
    """
    question = _tidy(row.question)
    sample_id = row.metadata.get(SAMPLE_ID_KEY) or sample_id_of(source, row.source_id, question)
    template = config.prompts.get(row.task, "{question}")
    answer = row.answer.strip()
    options = clean_options(row.options) if row.options and row.task != "match_mcq" else ()
    if row.task == "match_mcq":
        lettered = letter_answer(row.options, answer, row.answer_type)
        question = without_list(question, lettered.options)
        if "{options}" not in template and not (lettered.is_text and names_all(question, lettered.options)):
            template += "\n{options}"
        if config.shuffle_options and "{options}" in template and can_shuffle(lettered.options):
            lettered = shuffled(lettered, seed=seed, sample_id=sample_id)
        options, answer = lettered.options, lettered.answer
    elif row.task == "match_yesno":
        answer = _yes_or_no(answer)
    elif row.task == "iou" or row.boxes is not None:
        if not images:
            raise Refused(RejectReason.IMAGE_MISSING, "the row asks for boxes and has no image")
        if 0 < sum(turn.text.count(IMAGE_PLACE) for turn in row.history) < len(images):
            raise Refused(RejectReason.BOX_IMAGE_UNCLEAR, "history and question show images each")
        answer = box_answer(row, images[0].size, limits)
    return Candidate(
        sample_id=sample_id,
        source=source,
        source_id=row.source_id,
        role=role,
        license=license,
        task=row.task,
        question=_user_turn(template, question, options),
        stem=question,
        system=_tidy(row.system),
        history=_tidy_turns(row.history),
        answer=answer,
        images=tuple(images),
        options=options,
        answer_type=_answer_type(row),
        metadata=_without_id(row.metadata),
    )


def guard(row: RawRow, images: Sequence[StoredImage], *, source: str, license: str) -> Candidate:
    """Return a row of a benchmark, used only to find leaks; its reference, which may be missing, is not checked."""
    question = row.question.strip()
    return Candidate(
        sample_id=sample_id_of(source, row.source_id, question),
        source=source,
        source_id=row.source_id,
        role="guard",
        license=license,
        task=row.task,
        question=question,
        stem=question,
        system=_tidy(row.system),
        history=_tidy_turns(row.history),
        answer=row.answer.strip(),
        images=tuple(images),
        options=row.options,
    )


def _tidy(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _tidy_turns(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(replace(turn, text=_tidy(turn.text)) for turn in turns)


def sample_id_of(source: str, source_id: str, question: str) -> str:
    """Return the id of a row: 40 hexadecimal digits, the same in every build."""
    text = f"{source}|{source_id}|{question}"
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _yes_or_no(answer: str) -> str:
    known = _YES_NO.get(answer.casefold().rstrip("."))
    if known is not None:
        return known
    label, _ = read_yes_no(answer)
    if label is None:
        raise Refused(RejectReason.REFERENCE_UNUSABLE, f"{answer[:80]!r} says neither yes nor no")
    return "yes" if label else "no"


def _answer_type(row: RawRow) -> str:
    if row.task in _UNTYPED_TASKS:
        return ""
    if row.answer_type not in CHART_TYPES:
        raise Refused(
            RejectReason.REFERENCE_UNUSABLE,
            f"answer type {row.answer_type!r} is none of {', '.join(filter(None, CHART_TYPES))}",
        )
    return row.answer_type


def _user_turn(template: str, question: str, options: Sequence[str]) -> str:
    """Fill the template in one pass, so that braces in a question or an option are kept."""
    texts = {"question": question, "options": rendered(options)}
    return _SLOT.sub(lambda match: texts[match[1]], template)


def _without_id(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key != SAMPLE_ID_KEY}


class ReferenceCheck:
    """Checks references with the rewards that the run will use."""

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        self._proof = ReferenceProof(config)

    def check(self, candidate: Candidate) -> None:
        """Check that the reward of a candidate can use its reference.

        Raises:
            Refused: UNKNOWN_TASK, REFERENCE_UNUSABLE, REFERENCE_NOT_RIGHT, REFERENCE_UNEARNED or REFERENCE_UNSELECTIVE.
        """
        if not self._config.is_routed(candidate.task, candidate.source):
            raise Refused(
                RejectReason.UNKNOWN_TASK,
                f"task {candidate.task!r} of source {candidate.source!r} is routed to no reward function",
            )
        sizes = tuple(image.size for image in candidate.images)
        fault = self._proof.fault(
            RewardRequest(
                task=candidate.task,
                source=candidate.source,
                question=readable(candidate.question),
                response="",
                answer=candidate.answer,
                options=candidate.options,
                answer_type=candidate.answer_type,
                image_sizes=sizes,
                image_input_sizes=sizes,
            )
        )
        if fault is not None:
            raise Refused(REASONS[fault.kind], fault.detail)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._proof.close()


def normalise_stage(config: NormaliseConfig, limits: LimitsConfig, reward: RewardConfig, seed: int) -> RowStage:
    """Return stage 3: canonical options, letters, boxes and prompts, and references accepted by their own reward."""
    key = [asdict(config), asdict(limits), asdict(reward), seed, stage_code("normalise")]
    return RowStage(name="normalise", key=key, opened=partial(_opened, config, limits, reward, seed))


@contextmanager
def _opened(
    config: NormaliseConfig, limits: LimitsConfig, reward: RewardConfig, seed: int, chunk: Chunk, writer: ChunkWriter
) -> Iterator[RowStep]:
    with ReferenceCheck(reward) as references:

        def step(values: dict[str, Any]) -> dict[str, Any]:
            row, _ = raw_from_json(values["row"])
            images = [StoredImage(**image) for image in values["images"]]
            source, license = values["source"], values["license"]
            if values["role"] == "guard":
                return candidate_to_json(guard(row, images, source=source, license=license))
            candidate = normalise(
                row,
                images,
                source=source,
                role=values["role"],
                license=license,
                config=config,
                limits=limits,
                seed=seed,
            )
            references.check(candidate)
            return candidate_to_json(candidate)

        yield step


def box_answer(row: RawRow, size: tuple[int, int], limits: LimitsConfig) -> str:
    """Return the reference of a grounding row.

    One box is `[x1, y1, x2, y2]`, several are a list of such lists, none is `[]`. Boxes of several labels are each
    `{"bbox_2d": [...], "label": ...}`; a single label is named by the question.

    Args:
        row: Has `boxes`, or boxes as text in `answer`, in its own form and frame.
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
        raise Refused(RejectReason.BOX_OUTSIDE_IMAGE, f"box {spelled} is outside of the image")
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
        # Larger than any image, and than the arithmetic below can represent exactly.
        raise Refused(
            RejectReason.BOX_OUTSIDE_IMAGE, f"a box in an image of {size[0]} x {size[1]} has a value over 1e9"
        )
    first, second, third, fourth = (float(value) for value in raw.values)
    if form == "xywh":
        third, fourth = first + third, second + fourth
    if frame == "pixel" and max(map(abs, (first, second, third, fourth))) <= 1.0:
        raise Refused(
            RejectReason.BOX_MALFORMED,
            f"box {spelled} is no larger than a pixel: shares of the image are box_frame: {{constant: norm1}}",
        )
    unit = {"pixel": None, "norm1": 1.0, "norm1000": 1000.0}[frame]
    if unit is None:
        return first, second, third, fourth
    scale_x, scale_y = size[0] / unit, size[1] / unit
    return first * scale_x, second * scale_y, third * scale_x, fourth * scale_y


def _rounded(value: float) -> int | float:
    """Return a number for JSON: two decimals, whole numbers as int, never -0.0."""
    value = round(value, DECIMALS)
    return int(value) if value.is_integer() else value


def _labelled(numbers: list[int | float], label: str) -> dict[str, object]:
    return {"bbox_2d": numbers, "label": label} if label else {"bbox_2d": numbers}
