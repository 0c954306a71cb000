"""A recipe's mapping: which field of a raw row becomes which field of ours, for sources without an adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from orchestration.data.rows.reasons import RejectReason
from orchestration.data.rows.records import BoxForm, BoxFrame, RawBox, RawRow
from orchestration.data.sources import choices
from orchestration.data.sources.fields import RowError, as_answer, as_fields, as_numbers, as_texts, is_number, refuse
from orchestration.data.sources.pictures import cell_images, without_markers
from orchestration.data.sources.short_answers import as_list
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import unknown_key

KEYS = (
    "id", "question", "answer", "options", "images", "image_id", "task", "answer_type", "boxes", "box_labels",
    "box_form", "box_frame", "part", "metadata",
)  # fmt: skip
BOX_FORMS = ("xyxy", "xywh")
BOX_FRAMES = ("pixel", "norm1", "norm1000")
PATH = "options.mapping"

AnswerIs = Literal["text", "index", "letter", "option"]
"""How a source writes its answers: as text; as an option's index from 0, letter, or text, each turned into letters."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that all rows share, written {constant: chart} in the recipe.

    Example:
        >>> Constant("chart").of({"task": "iou"})
        'chart'
    """

    value: object

    def of(self, row: object) -> object:
        """Give the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A field of the raw row, written meta.answer, choices.0, or as a list of steps where names hold dots.

    A path that ends with ? may lead nowhere: such rows have no images, boxes or answer. Any other mapped field
    must be there, so that a misspelt path is not taken for a set without pictures.

    Example:
        >>> FieldPath(("meta", "answers", "0")).of({"meta": {"answers": ["cat"]}})
        'cat'
    """

    steps: tuple[str, ...]
    is_optional: bool = False

    def of(self, row: object) -> object:
        """Give the value, or None where a step leads nowhere."""
        value = row
        for step in self.steps:
            if isinstance(value, Mapping):
                value = value.get(step)
            elif isinstance(value, (list, tuple)) and step.isascii() and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        return value


Reference = Constant | FieldPath


@dataclass(frozen=True, slots=True)
class RowMapping:
    """What a recipe says about the fields of a source."""

    references: Mapping[str, Reference]
    metadata: Mapping[str, Reference] = field(default_factory=dict)
    answer_is: AnswerIs = "text"
    images: str = ""
    """Folder that image paths start from."""
    remove_markers: bool = True
    """Whether `<image>` markers are taken out of the question."""

    def row(self, record: Record, part: str) -> RawRow:
        """Convert one record.

        Raises:
            RowError: A mapped field is missing or of a type that its place does not take.
        """
        as_fields(record.value)
        question = as_answer(self._value("question", record), "question")
        options = self._options(record)
        return RawRow(
            source_id=as_answer(self._value("id", record), "id")
            if "id" in self.references
            else f"{part}/{record.place}",
            task=as_answer(self._value("task", record), "task"),
            question=without_markers(question) if self.remove_markers else question,
            answer="" if self._is_absent("answer", record) else self._answer(record, options),
            images=self._images(record),
            options=options,
            answer_type=self._optional("answer_type", record),
            boxes=None if self._is_absent("boxes", record) else self._boxes(record),
            box_form=cast(BoxForm, self._one_of("box_form", BOX_FORMS, record)),
            box_frame=cast(BoxFrame, self._one_of("box_frame", BOX_FRAMES, record)),
            part=self._optional("part", record),
            metadata={name: _plain(reference.of(record.value)) for name, reference in self.metadata.items()},
        )

    def _value(self, name: str, record: Record) -> object:
        reference = self.references.get(name)
        return reference.of(record.value) if reference else None

    def _is_absent(self, name: str, record: Record) -> bool:
        """Whether a row may lack this field, and does."""
        reference = self.references.get(name)
        if reference is None:
            return True
        return isinstance(reference, FieldPath) and reference.is_optional and reference.of(record.value) is None

    def _optional(self, name: str, record: Record) -> str:
        value = self._value(name, record)
        return "" if value is None else as_answer(value, name)

    def _one_of(self, name: str, allowed: tuple[str, ...], record: Record) -> str:
        value = self._value(name, record) if name in self.references else allowed[0]
        return value if isinstance(value, str) and value in allowed else refuse(name, value, " or ".join(allowed))

    def _answer(self, record: Record, options: tuple[str, ...]) -> str:
        value = self._value("answer", record)
        if self.answer_is == "index":
            return choices.from_index(value, "answer")
        if self.answer_is == "letter":
            return choices.from_letters(value, "answer")
        if self.answer_is == "option":
            several = value if isinstance(value, list) else [value]
            return ", ".join(choices.from_text(item, options, "answer") for item in several)
        texts = as_texts(value, "answer") if isinstance(value, list) else (as_answer(value, "answer"),)
        return "".join(texts) if len(texts) < 2 else as_list(texts)

    def _options(self, record: Record) -> tuple[str, ...]:
        value = self._value("options", record)
        if isinstance(value, Mapping):
            value = [text for text in value.values() if text is not None]
        return () if value is None else as_texts(value, "options")

    def _images(self, record: Record) -> Any:
        images = cell_images(self._value("images", record), "images", self.images)
        reference = self.references.get("images")
        may_lack = reference is None or (isinstance(reference, FieldPath) and reference.is_optional)
        if not images and not may_lack:
            raise RowError(RejectReason.MISSING_FIELD, "images is missing")
        known = self._optional("image_id", record)
        return (replace(images[0], image_id=known), *images[1:]) if images and known else images

    def _boxes(self, record: Record) -> tuple[RawBox, ...]:
        value = self._value("boxes", record)
        if not isinstance(value, (list, tuple)):
            return refuse("boxes", value, "a list of boxes, or one box")
        items = [value] if value and all(is_number(item) for item in value) else value
        found = [_box(item, f"boxes[{index}]") for index, item in enumerate(items)]
        labels = self._value("box_labels", record)
        if labels is None:
            return tuple(found)
        names = (
            [as_answer(labels, "box_labels")] * len(found)
            if isinstance(labels, str)
            else as_texts(labels, "box_labels")
        )
        if len(names) != len(found):
            raise RowError(RejectReason.UNREADABLE_ROW, f"{len(found)} boxes with {len(names)} labels")
        return tuple(replace(box, label=label) for box, label in zip(found, names, strict=True))


def build_mapping(
    mapping: Mapping[str, Any], answer_is: AnswerIs = "text", images: str = "", remove_markers: bool = True
) -> RowMapping:
    """Read the mapping of a recipe.

    Args:
        mapping: From our names (KEYS) to a field path, a list of steps, or {constant: value}; `metadata` holds a
            mapping of such. `question`, `task`, and `answer` or `boxes` are needed.
        answer_is: How the source writes answers.
        images: Folder that image paths start from.
        remove_markers: Whether `<image>` markers are taken out of the question.

    Raises:
        ConfigError: An unknown key, naming the nearest; a missing one; or a reference of no known form.

    Example:
        >>> chart = build_mapping({"question": "q", "answer": "a.0", "task": {"constant": "chart"}})
        >>> chart.row(Record("0", {"q": "How many?", "a": [3]}), "rows").answer
        '3'
    """
    for key in mapping:
        if key not in KEYS:
            raise ConfigError(unknown_key(str(key), list(KEYS), PATH))
    for needed in ("question", "task", "answer"):
        if needed not in mapping and not (needed == "answer" and "boxes" in mapping):
            also = " or boxes" if needed == "answer" else ""
            raise ConfigError(f"{PATH}.{needed}{also} is missing; give a field path, or {{constant: value}}")
    extra = mapping.get("metadata", {})
    if not isinstance(extra, Mapping):
        raise ConfigError(f"{PATH}.metadata must be a mapping from names to fields; got {extra!r}")
    references = {key: _reference(value, f"{PATH}.{key}") for key, value in mapping.items() if key != "metadata"}
    for key, allowed in (("box_form", BOX_FORMS), ("box_frame", BOX_FRAMES)):
        reference = references.get(key)
        if isinstance(reference, Constant) and reference.value not in allowed:
            raise ConfigError(f"{PATH}.{key} is {reference.value!r}; allowed: {', '.join(allowed)}")
    return RowMapping(
        references,
        {str(name): _reference(value, f"{PATH}.metadata.{name}") for name, value in extra.items()},
        answer_is,
        images,
        remove_markers,
    )


def _reference(value: object, path: str) -> Reference:
    if isinstance(value, str) and value:
        return FieldPath(tuple(value.removesuffix("?").split(".")), value.endswith("?"))
    if isinstance(value, (list, tuple)) and value and all(isinstance(step, (str, int)) for step in value):
        return FieldPath(tuple(map(str, value)))
    if isinstance(value, Mapping) and set(value) == {"constant"}:
        return Constant(value["constant"])
    raise ConfigError(
        f"{path} is {value!r}; write a field path such as meta.answer, a list of steps, or {{constant: x}}"
    )


def _box(value: object, name: str) -> RawBox:
    if isinstance(value, Mapping):
        box = value.get("bbox_2d", value.get("bbox"))
        label = value.get("label")
        return RawBox(values=as_numbers(box, f"{name}.bbox"), label=_plain(label))
    return RawBox(values=as_numbers(value, name))


def _plain(value: object) -> str:
    try:
        return as_answer(value, "metadata")
    except RowError:
        return ""
