"""Stage 2, validate: checks texts, numbers and images of raw rows; only images may be changed.

Cheap checks come first: a very long text is refused by its length before its characters are read.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from orchestration.data.chunks import Chunk, ChunkWriter, ImageReader
from orchestration.data.images import CheckedImage, check_image
from orchestration.data.sources.rows import RawRow, Refused, RejectReason, raw_from_json, shallow
from orchestration.data.stages import RowStage, RowStep, stage_code
from orchestration.settings.recipe import LimitsConfig
from rewards.core.envelope import END_OF_TURN
from rollout.conversation import Conversation
from rollout.placeholders import SPELLINGS
from rollout.records import IMAGE_PLACE

_DIRTY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters but tab and line breaks, lone surrogates, and code points that are no characters."""

_OTHER_TOKENS = (
    "<s>",
    "<bos>",
    "<pad>",
    "<unk>",
    "<start_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<im_start>",
    "<im_end>",
    "<im_patch>",
    "<image_placeholder>",
    "<ImageHere>",
    "<ref-object>",
    "<bbox>",
    "<audio>",
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[INST]",
    "[/INST]",
)
"""Tokens of other models than those trained here: a dataset may be used with another model later."""
_TOKEN = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|"
    + "|".join(map(re.escape, sorted({*SPELLINGS, *END_OF_TURN, *_OTHER_TOKENS}, key=len, reverse=True))),
    re.IGNORECASE,
)
"""Case is ignored: chat templates and tokenizers of some models fold it, and no sentence needs such a word."""

_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf(?:inity)?)\.?", re.IGNORECASE)
_NUMBER_TASKS = ("chart", "math")
_NUMBER_TYPES = ("number", "year")
REMEMBERED_IMAGES = 256
"""Images of a chunk that are not decoded again for the next row that has them: one often has several questions."""


def validate(
    row: RawRow,
    images: Sequence[bytes],
    limits: LimitsConfig,
    *,
    needs_reference: bool = True,
    check: Callable[..., CheckedImage] = check_image,
) -> list[CheckedImage]:
    """Check a raw row and decode its images.

    Args:
        row: As its adapter read it.
        images: Encoded bytes of `row.images`, in order.
        limits: What is accepted.
        needs_reference: Whether the row will be graded; guard rows may lack their answer.
        check: `check_image`, or what remembers its results.

    Returns:
        One checked image for each of `images`.

    Raises:
        Refused: The row cannot be used; the reason is one of the stage `validate`, or IMAGE_FILE_TOO_LARGE.
    """
    assert len(images) == len(row.images), "each image of the row needs its bytes"
    _check_lengths(row, images, limits)
    if needs_reference and row.boxes is None and not row.answer.strip():
        raise Refused(RejectReason.ANSWER_EMPTY, f"the answer is {row.answer[:20]!r}, and there are no boxes")
    for name, text in _texts(row):
        _check_characters(name, text)
    for name, text in _read_texts(row):
        token = _TOKEN.search(text)
        if token is not None:
            raise Refused(RejectReason.PLACEHOLDER_IN_TEXT, f"{name} holds {token.group()!r}")
    _check_places(row)
    _check_numbers(row)
    has_boxes = row.boxes is not None or row.task == "iou"
    checked = []
    for place, data in enumerate(images, start=1):
        try:
            checked.append(check(data, limits, has_boxes=has_boxes))
        except Refused as error:
            raise Refused(error.reason, f"image {place} of {len(images)}: {error.detail}") from error
    return checked


def _check_lengths(row: RawRow, images: Sequence[bytes], limits: LimitsConfig) -> None:
    if len(images) > limits.max_images:
        raise Refused(RejectReason.TOO_MANY_IMAGES, f"{len(images)}; limits.max_images is {limits.max_images}")
    told = len(row.system) + sum(len(turn.text) for turn in row.history)
    num_chars = len(row.question) + sum(map(len, row.options)) + told
    if num_chars > limits.max_question_chars:
        also = f"options and {told} of earlier turns" if told else "options"
        raise Refused(
            RejectReason.QUESTION_TOO_LONG,
            f"{num_chars} characters, {also} included; limits.max_question_chars is {limits.max_question_chars}",
        )
    num_chars = len(row.answer) + sum(len(box.label) for box in row.boxes or ())
    if num_chars > limits.max_answer_chars:
        raise Refused(
            RejectReason.ANSWER_TOO_LONG,
            f"{num_chars} characters, labels of boxes included; limits.max_answer_chars is {limits.max_answer_chars}",
        )
    if not row.question.strip():
        raise Refused(RejectReason.QUESTION_EMPTY, repr(row.question[:20]))
    for number, turn in enumerate(row.history, start=1):
        if not turn.text.strip():
            raise Refused(RejectReason.QUESTION_EMPTY, f"turn {number} of the history, of the {turn.role}, is blank")


def _check_places(row: RawRow) -> None:
    texts = Conversation(row.question, row.system, row.history)
    if not texts.has_places_for(len(row.images)) or IMAGE_PLACE in row.system:
        raise Refused(
            RejectReason.MARKERS_UNEQUAL,
            f"the turns have {texts.num_places} places for images (U+FFFC), the row {len(row.images)} images",
        )
    for place, option in enumerate(row.options, start=1):
        if IMAGE_PLACE in option:
            raise Refused(RejectReason.TEXT_NOT_CLEAN, f"option {place} holds U+FFFC, which stands for an image here")


def _read_texts(row: RawRow) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the texts that a model reads or that a reward grades against."""
    yield from Conversation(row.question, row.system, row.history).texts()
    yield "the answer", row.answer
    for place, option in enumerate(row.options, start=1):
        yield f"option {place}", option
    for place, box in enumerate(row.boxes or (), start=1):
        yield f"the label of box {place}", box.label


def _texts(row: RawRow) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of all texts that are written: one that is not UTF-8 would stop the writer."""
    yield from _read_texts(row)
    yield "the source id", row.source_id
    yield "the part", row.part
    yield "the answer type", row.answer_type
    for image in row.images:
        yield "an image id", image.image_id
    for key, value in row.metadata.items():
        yield "a metadata key", key
        yield f"metadata {key!r}", value


def _check_characters(name: str, text: str) -> None:
    found = _DIRTY.search(text)
    if found is not None:
        raise Refused(
            RejectReason.TEXT_NOT_CLEAN, f"{name} holds U+{ord(found.group()):04X} at character {found.start()}"
        )


def _check_numbers(row: RawRow) -> None:
    for place, box in enumerate(row.boxes or (), start=1):
        for value in box.values:
            # Values that are not numbers are refused by normalise, as malformed boxes.
            if isinstance(value, float) and not math.isfinite(value):
                raise Refused(RejectReason.NOT_FINITE, f"box {place} holds {value}")
    is_number = row.task in _NUMBER_TASKS and row.answer_type in ("", "list", *_NUMBER_TYPES)
    if is_number and _NOT_FINITE.fullmatch(row.answer.strip()):
        raise Refused(RejectReason.NOT_FINITE, f"the answer is {row.answer.strip()!r}")


def validate_stage(limits: LimitsConfig, store: Path) -> RowStage:
    """Return stage 2; changed images are stored in the new chunk, others stay in theirs."""
    key = [asdict(limits), stage_code("validate")]
    return RowStage(name="validate", key=key, opened=partial(_opened, limits, store))


@contextmanager
def _opened(limits: LimitsConfig, store: Path, chunk: Chunk, writer: ChunkWriter) -> Iterator[RowStep]:
    reader = ImageReader(store)
    check = lru_cache(maxsize=REMEMBERED_IMAGES)(check_image)

    def step(values: dict[str, Any]) -> dict[str, Any]:
        row, places = raw_from_json(values["row"])
        raw = [reader.read(chunk.address, place) for place in places]
        is_graded = values["role"] != "guard"
        images = []
        for image, checked, data, place in zip(
            row.images, validate(row, raw, limits, needs_reference=is_graded, check=check), raw, places, strict=True
        ):
            is_same = checked.sha256 == hashlib.sha256(data).hexdigest()
            address = chunk.address if is_same else writer.address
            index = place if is_same else writer.add_image(checked.data)
            images.append(shallow(checked.stored(image_id=image.image_id, chunk=address, index=index)))
        return {**values, "images": images}

    yield step
