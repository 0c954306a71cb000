"""Rows of the data engine from raw to canonical, their JSON form between stages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from orchestration.data.rows.reasons import RejectReason
from orchestration.settings.recipe import Role
from rollout.records import Difficulty

BoxForm = Literal["xyxy", "xywh"]
BoxFrame = Literal["pixel", "norm1", "norm1000"]
EXCERPT_CHARS = 200
_REASONS = {reason.value: reason for reason in RejectReason}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """One image as its source names it: bytes, or a file under the source's folder.

    Example:
        >>> RawImage(path="train2014/COCO_train2014_000000000009.jpg", image_id="coco/9").data is None
        True
    """

    data: bytes | None = None
    path: str | None = None
    """Relative to the source's folder; exactly one of `data` and `path` is set."""
    image_id: str = ""
    """Name that other datasets use for the same picture (coco/9): equal ids are one picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBox:
    """A reference box as its source writes it.

    Example:
        >>> RawBox(values=(10.0, 20.0, 30.0, 40.0), label="dog").label
        'dog'
    """

    values: tuple[float, ...]
    """Four numbers in the row's box form and frame; checked later."""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One question as an adapter reads it: right in form, not yet checked in content.

    Example:
        >>> RawRow(source_id="7", task="match_mcq", question="Which?", answer="B", options=("cat", "dog")).images
        ()
    """

    source_id: str
    """Unique within its source and stable: a running number where the source has no name for its rows."""
    task: str
    question: str
    """As the source words it; the data engine appends the options and the answer form."""
    answer: str = ""
    """Text, number, yes/no, letter of an option (or letters, "A, C"); empty where `boxes` is set."""
    images: tuple[RawImage, ...] = ()
    options: tuple[str, ...] = ()
    """Texts without labels."""
    answer_type: str = ""
    boxes: tuple[RawBox, ...] | None = None
    """Reference boxes; an empty tuple is a claim that there is nothing to find."""
    box_form: BoxForm = "xyxy"
    box_frame: BoxFrame = "pixel"
    part: str = ""
    """Part of the source that is counted on its own (human, augmented); joins the source's name."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A raw row that its adapter cannot read; it goes to quarantine, the next row is read.

    Example:
        >>> BadRow(source_id="7", reason=RejectReason.MISSING_FIELD, detail="label is missing").reason.value
        'missing_field'
    """

    source_id: str
    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A checked image, with what duplicates are found by and where its bytes lie."""

    sha256: str
    size_bytes: int
    width: int
    height: int
    dhash: str
    """256-bit difference hash, hexadecimal; see fingerprints.py."""
    thumbnail: str
    """16 x 16 RGB means, base64 of 768 bytes."""
    image_id: str
    chunk: str
    """Chunk that holds the bytes, `stage/key`."""
    index: int
    """Place among the images of that chunk."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row in canonical form on its way to the dataset; its image bytes stay in their chunk."""

    sample_id: str
    source: str
    """Name of the source in the recipe, with `/part` where the source has parts."""
    source_id: str
    role: Role
    license: str
    task: str
    question: str
    """The user turn, as the prompt template makes it."""
    stem: str
    """The question alone, without template and options: duplicates and leaks are found by it."""
    answer: str
    """Canonical: an option's letter, yes/no, a number, text, boxes as JSON in original pixels."""
    images: tuple[StoredImage, ...] = ()
    options: tuple[str, ...] = ()
    answer_type: str = ""
    stratum: str = ""
    prompt_tokens: int | None = None
    image_tokens: int | None = None
    difficulty: Difficulty | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that a stage left out, with its reason: quarantined, never lost."""

    stage: str
    source: str
    source_id: str
    role: Role
    reason: RejectReason
    detail: str
    """What exactly, with the values at fault."""
    question: str
    """Beginning of the question, EXCERPT_CHARS at most."""


def raw_to_json(row: RawRow, places: list[int]) -> dict[str, Any]:
    """Return a raw row as JSON values; images become their indices in the chunk."""
    values = asdict(row)
    values["images"] = [
        {"index": index, "image_id": image.image_id} for index, image in zip(places, row.images, strict=True)
    ]
    return values


def raw_from_json(values: dict[str, Any]) -> tuple[RawRow, list[int]]:
    """Return the raw row of `raw_to_json`, with the indices of its images instead of their bytes."""
    places = [image["index"] for image in values["images"]]
    boxes = values["boxes"]
    row = RawRow(
        **{
            **values,
            "images": tuple(RawImage(image_id=image["image_id"]) for image in values["images"]),
            "options": tuple(values["options"]),
            "boxes": None
            if boxes is None
            else tuple(RawBox(values=tuple(box["values"]), label=box["label"]) for box in boxes),
        }
    )
    return row, places


def candidate_to_json(row: Candidate) -> dict[str, Any]:
    """Return a row as JSON values; `candidate_from_json` returns an equal one."""
    return asdict(row)


def candidate_from_json(values: dict[str, Any]) -> Candidate:
    """Return the row of `candidate_to_json`."""
    difficulty = values["difficulty"]
    return Candidate(
        **{
            **values,
            "images": tuple(StoredImage(**image) for image in values["images"]),
            "options": tuple(values["options"]),
            "difficulty": None if difficulty is None else Difficulty(**difficulty),
        }
    )


def rejected_from_json(values: dict[str, Any]) -> Rejected:
    """Return a rejected row as its chunk holds it."""
    return Rejected(**{**values, "reason": _REASONS[values["reason"]]})
