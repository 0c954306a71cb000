"""Rows of the data engine, raw and canonical, their JSON form between stages, and the reasons of rejection."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from orchestration.settings.recipe import Role
from rewards.core.base import Explained
from rollout.records import Difficulty, Turn


class RejectReason(Explained):
    """Why a row is rejected; counted by source in the manifest. `meaning` describes it."""

    # read
    BROKEN_FILE = "broken_file", "an annotation file breaks off, is damaged or of an unknown form: rows are missing"
    UNREADABLE_ROW = "unreadable_row", "the raw row cannot be parsed in its source's format"
    MISSING_FIELD = "missing_field", "the raw row lacks a field that its source's format has"
    TEXT_ONLY = "text_only", "the row has no image, and an option of the source leaves such rows out"
    IMAGE_MISSING = "image_missing", "the image file does not exist or cannot be opened"
    MARKERS_UNEQUAL = "markers_unequal", "the turns have markers of other images than the row has"
    PATH_OUTSIDE_ROOT = "path_outside_root", "the image lies outside of its source's folder and of image_roots"
    IMAGE_FILE_TOO_LARGE = "image_file_too_large", "the encoded image is larger than limits.max_image_bytes"

    # validate
    IMAGE_CORRUPT = "image_corrupt", "the bytes are no image of an allowed format, or decoding fails"
    IMAGE_TRUNCATED = "image_truncated", "the image file ends before its pixels do"
    IMAGE_TOO_LARGE = "image_too_large", "more pixels than limits.max_pixels"
    IMAGE_BOMB = "image_bomb", "the header claims more pixels than any real image: a decompression bomb"
    IMAGE_TOO_SMALL = "image_too_small", "a side is shorter than limits.min_side"
    IMAGE_TOO_NARROW = "image_too_narrow", "one side is more than limits.max_aspect times the other"
    IMAGE_ANIMATED = "image_animated", "the file holds several frames; which one is meant is not known"
    IMAGE_CMYK = "image_cmyk", "print colours: converting shifts them (limits.cmyk=convert accepts that)"
    IMAGE_DEPTH = "image_depth", "grey values of 16 or 32 bits, which models' processors clip to white"
    IMAGE_ROTATED = "image_rotated", "EXIF turns the image (limits.exif=rotate applies it where no boxes are affected)"
    TOO_MANY_IMAGES = "too_many_images", "more images than limits.max_images"
    QUESTION_EMPTY = "question_empty", "no question, or only whitespace; or so a turn before it"
    QUESTION_TOO_LONG = (
        "question_too_long",
        "more characters than limits.max_question_chars, with all that comes before",
    )
    ANSWER_EMPTY = "answer_empty", "no reference answer"
    ANSWER_TOO_LONG = "answer_too_long", "more characters than limits.max_answer_chars"
    TEXT_NOT_CLEAN = "text_not_clean", "lone surrogates, NUL or other control characters in a text"
    PLACEHOLDER_IN_TEXT = "placeholder_in_text", "a text contains a vision placeholder or control token of some model"
    NOT_FINITE = "not_finite", "NaN or infinity where a number is needed"

    # normalise
    UNKNOWN_TASK = "unknown_task", "no reward reads this task"
    OPTIONS_UNUSABLE = "options_unusable", "fewer than two options, or two options of one text, or more than letters"
    ANSWER_NOT_IN_OPTIONS = "answer_not_in_options", "the reference is none of the options"
    BOX_MALFORMED = "box_malformed", "a reference box has not four numbers, or is reversed or empty"
    BOX_OUTSIDE_IMAGE = "box_outside_image", "a reference box leaves its image by more than limits.box_slack pixels"
    BOX_IMAGE_UNCLEAR = "box_image_unclear", "boxes belong to the first image, and the turns put another one first"
    BOX_TOO_LARGE = "box_too_large", "a reference box covers more of the image than limits.max_box_frac"
    TOO_MANY_BOXES = "too_many_boxes", "more reference boxes than limits.max_boxes"
    REFERENCE_UNUSABLE = "reference_unusable", "the row's own reward cannot grade against the reference"
    REFERENCE_NOT_RIGHT = "reference_not_right", "the reference, given as an answer, does not score 1 by its own reward"
    REFERENCE_UNEARNED = "reference_unearned", "its own reward refuses the reference when written plainly"
    REFERENCE_UNSELECTIVE = "reference_unselective", "its own reward pays a changed value of the reference too"

    # filter
    LEFT_OUT = "left_out", "a filter of the recipe leaves the row out"
    FILTER_FAILED = "filter_failed", "a filter of the recipe raised an error, or returned no answer"

    # deduplicate
    DUPLICATE = "duplicate", "an earlier row has the same images and question"
    NEAR_DUPLICATE = "near_duplicate", "an earlier row has nearly the same images, question and answer"
    CONFLICTING_ANSWERS = "conflicting_answers", "another row has the same images and question, and another answer"
    LEAKED_IMAGE = "leaked_image", "an image of the row, or nearly the same one, is in an evaluation set"
    LEAKED_QUESTION = "leaked_question", "a row without images whose question is in an evaluation set"
    TOO_MANY_OF_IMAGE = "too_many_of_image", "the image already has deduplicate.max_rows_per_image questions"

    # measure
    PROMPT_TOO_LONG = "prompt_too_long", "more prompt tokens than measure.max_prompt_tokens"
    PROMPT_UNBUILDABLE = "prompt_unbuildable", "the model's processor refuses the row"

    # sample
    NOT_SAMPLED = "not_sampled", "the engine or the reward gave no result for the row"

    # select
    ALL_RIGHT = "all_right", "every sampled completion earns the full reward: nothing to learn"
    ALL_WRONG = "all_wrong", "no sampled completion earns a reward: out of reach, or badly labelled"
    REFERENCE_DOUBTED = "reference_doubted", "all wrong, and most completions agree on another answer: a label to check"
    TOO_EASY = "too_easy", "mean reward above the band of its reward function"
    TOO_HARD = "too_hard", "mean reward below the band of its reward function"
    NO_SPREAD = "no_spread", "the rewards of the completions hardly differ: no advantage to learn from"
    OVER_QUOTA = "over_quota", "the quota of its source or reward function is full"


class Refused(Exception):
    """Raised within a stage to reject a row.

    Example:
        >>> str(Refused(RejectReason.IMAGE_TOO_SMALL, "1 x 1 pixels; at least 28"))
        'image_too_small: 1 x 1 pixels; at least 28'
    """

    def __init__(self, reason: RejectReason, detail: str, said: str = "") -> None:
        super().__init__(reason, detail, said)
        self.reason = reason
        self.detail = detail
        self.said = said
        """Name of a filter and its own reason, `name/reason`, counted apart from others; else empty."""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


BoxForm = Literal["xyxy", "xywh"]
BoxFrame = Literal["pixel", "norm1", "norm1000"]
EXCERPT_CHARS = 200
_REASONS = {reason.value: reason for reason in RejectReason}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """One image of a raw row: bytes, a file, or what a link leads to; exactly one of the three is set."""

    data: bytes | None = None
    path: str | None = None
    """Relative to the source's folder, or absolute."""
    link: str | None = None
    """http or https; it may hold credentials, so messages show it through `links.shown_link` alone."""
    image_id: str = ""
    """Common name of the image across datasets (coco/9): equal ids mean the same image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBox:
    """A reference box as in the source."""

    values: tuple[float, ...]
    """Four numbers in the row's box form and frame; not checked yet."""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One question as an adapter reads it: of valid form, with unchecked content."""

    source_id: str
    """Unique within its source and stable: a running number if the source has no ids."""
    task: str
    question: str
    """As in the source; the data engine adds options and answer form. With a place (U+FFFC) for each image that does
    not come first."""
    system: str = ""
    """The row's own system text; empty for none."""
    history: tuple[Turn, ...] = ()
    """Turns before the question, with a place for each image that they show."""
    answer: str = ""
    """Text, number, yes/no, letter of an option (or letters, "A, C"); empty if `boxes` is set."""
    images: tuple[RawImage, ...] = ()
    options: tuple[str, ...] = ()
    """Texts without labels."""
    answer_type: str = ""
    boxes: tuple[RawBox, ...] | None = None
    """Reference boxes; an empty tuple states that there is no such object."""
    box_form: BoxForm = "xyxy"
    box_frame: BoxFrame = "pixel"
    part: str = ""
    """Part of the source that is counted separately (human, augmented); appended to the source's name."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A raw row that its adapter cannot read; it is rejected and reading continues."""

    source_id: str
    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A checked image: its fingerprints and the location of its bytes."""

    sha256: str
    size_bytes: int
    width: int
    height: int
    dhash: str
    """256-bit difference hash, hexadecimal; see images.py."""
    thumbnail: str
    """16 x 16 RGB means, base64 of 768 bytes."""
    image_id: str
    chunk: str
    """Chunk that holds the bytes, `stage/key`."""
    index: int
    """Index among the images of that chunk."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row in canonical form; its images are referred to by chunk."""

    sample_id: str
    source: str
    """Name of the source in the recipe, with `/part` where the source has parts."""
    source_id: str
    role: Role
    license: str
    task: str
    question: str
    """The last user turn, as the prompt template makes it."""
    stem: str
    """The question without template and options, by which duplicates and leaks are found."""
    system: str = ""
    """The row's own system text; empty for none."""
    history: tuple[Turn, ...] = ()
    """Turns before the question."""
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
    """A row that a stage rejected, with its reason."""

    stage: str
    source: str
    source_id: str
    role: Role
    reason: RejectReason
    detail: str
    """Explanation with the values at fault."""
    question: str
    """Beginning of the question, EXCERPT_CHARS at most."""
    said: str = ""
    """Name of a filter and its own reason, `name/reason`; else empty."""

    @property
    def counted_as(self) -> str:
        """The reason under which the row is counted: `left_out/name/reason` for one that a filter left out."""
        return f"{self.reason.value}/{self.said}" if self.said else self.reason.value


_FIELDS = {kind: tuple(one.name for one in fields(kind)) for kind in (RawRow, RawBox, Turn, StoredImage, Candidate)}


def raw_to_json(row: RawRow, places: list[int]) -> dict[str, Any]:
    """Return a raw row as JSON values, with the indices of its images in the chunk."""
    values = shallow(row)
    values["images"] = [
        {"index": index, "image_id": image.image_id} for index, image in zip(places, row.images, strict=True)
    ]
    values["history"] = [shallow(turn) for turn in row.history]
    values["boxes"] = None if row.boxes is None else [shallow(box) for box in row.boxes]
    return values


def raw_from_json(values: dict[str, Any]) -> tuple[RawRow, list[int]]:
    """Return the raw row of `raw_to_json`, with the indices of its images instead of their bytes."""
    places = [image["index"] for image in values["images"]]
    boxes = values["boxes"]
    row = RawRow(
        **{
            **values,
            "images": tuple(RawImage(image_id=image["image_id"]) for image in values["images"]),
            "history": turns_from_json(values["history"]),
            "options": tuple(values["options"]),
            "boxes": None
            if boxes is None
            else tuple(RawBox(values=tuple(box["values"]), label=box["label"]) for box in boxes),
        }
    )
    return row, places


def turns_from_json(values: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """Return the turns of their `asdict` values."""
    return tuple(Turn(**turn) for turn in values)


def candidate_to_json(row: Candidate) -> dict[str, Any]:
    """Return a row as JSON values."""
    values = shallow(row)
    values["images"] = [shallow(image) for image in row.images]
    values["history"] = [shallow(turn) for turn in row.history]
    values["difficulty"] = None if row.difficulty is None else asdict(row.difficulty)
    return values


def shallow(row: RawRow | RawBox | Turn | StoredImage | Candidate) -> dict[str, Any]:
    """Return the fields of a record by name; `asdict`, which copies what they hold, takes a tenth of a build."""
    return {name: getattr(row, name) for name in _FIELDS[type(row)]}


def candidate_from_json(values: dict[str, Any]) -> Candidate:
    """Return the row of `candidate_to_json`."""
    difficulty = values["difficulty"]
    return Candidate(
        **{
            **values,
            "images": tuple(StoredImage(**image) for image in values["images"]),
            "history": turns_from_json(values["history"]),
            "options": tuple(values["options"]),
            "difficulty": None if difficulty is None else Difficulty(**difficulty),
        }
    )


def rejected_from_json(values: dict[str, Any]) -> Rejected:
    """Return the rejected row of its `asdict` values."""
    return Rejected(**{**values, "reason": _REASONS[values["reason"]]})
