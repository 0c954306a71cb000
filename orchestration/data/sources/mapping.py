"""Conversion of raw rows by a mapping from our fields to fields of the source."""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from orchestration.data.sources.answers import READERS, TASKS, letter
from orchestration.data.sources.fields import (
    RowError,
    as_answer,
    as_fields,
    as_integer,
    as_label,
    as_numbers,
    as_text,
    as_texts,
    cell_images,
    file_image,
    is_number,
    refuse,
    stem,
    with_places,
)
from orchestration.data.sources.rows import BoxForm, BoxFrame, RawBox, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import Record
from orchestration.data.sources.turns import images_of_turn, read_turns, with_labels
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import unknown_key

KEYS = (
    "id", "question", "answer", "options", "images", "image_id", "task", "answer_type", "boxes", "box_labels",
    "box_form", "box_frame", "part", "metadata",
)  # fmt: skip
BOX_FORMS = ("xyxy", "xywh")
BOX_FRAMES = ("pixel", "norm1", "norm1000")
PATH = "options.mapping"

AnswerIs = Literal["text", "single", "integer", "index", "letter", "option", "tagged", "caption"]
"""How a source writes its answers; see answers.READERS."""


@dataclass(frozen=True, slots=True)
class Reference:
    """How one of our fields is read from a raw row; `_reference` builds it from YAML."""

    of: Callable[[object], object]
    """Returns the value in a raw row, None if there is none."""
    name: str = ""
    """Name of the raw field for messages; empty if there is none."""
    is_optional: bool = False
    """Whether rows may lack the value, and so have no images, boxes or answer. Any other mapped field is required, so
    that a misspelt path is not taken for a dataset without images."""
    is_text: bool = False
    """Whether the value is a text made by a format."""
    steps: tuple[str, ...] = ()
    """Path of the raw field; empty for other forms."""


def field_value(row: object, steps: Sequence[str]) -> object:
    """Return a field of nested objects and lists, None if there is none, or its value is NaN.

    Example:
        >>> field_value({"meta": {"answers": ["cat"]}}, ("meta", "answers", "0"))
        'cat'
    """
    value = row
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return None if isinstance(value, float) and math.isnan(value) else value


def filled(text: str, row: object) -> str:
    """Return a format text with its fields filled in from a row.

    {field} is a text, {field:stem} its file name without folder and suffix, {field:d} (or :012d) a whole number.

    Example:
        >>> filled("coco/{image_id:d}", {"image_id": 9})
        'coco/9'
    """
    pieces = []
    for literal, field, spec, _ in string.Formatter().parse(text):
        pieces.append(literal)
        if field is not None:
            value = field_value(row, field.split("."))
            if spec and spec.endswith("d"):
                pieces.append(format(as_integer(value, field), spec))
            else:
                pieces.append(stem(as_text(value, field)) if spec == "stem" else as_text(value, field))
    return "".join(pieces)


@dataclass(frozen=True, slots=True)
class RowMapping:
    """The mapping of one source, as `build_mapping` makes it."""

    references: Mapping[str, Reference]
    metadata: Mapping[str, Reference]
    task_by_answer: str = ""
    """Key of answers.TASKS where the answer decides the task and its type; empty if the mapping states the task."""
    answer_is: AnswerIs = "text"
    images: str = ""
    """Folder that image paths start from."""
    remove_markers: bool = True
    """Whether `<image>` markers are taken out of the question."""
    is_strict: bool = False
    """Whether id and question must be texts and options a list."""

    def row(self, record: Record, part: str, *, needs_answer: bool = True) -> RawRow:
        """Convert one record.

        Args:
            record: A raw row.
            part: Name of the part; prefix of the ids of rows that have none of their own.
            needs_answer: False if a row without an answer is kept with an empty one.

        Raises:
            RowError: A mapped field is missing or has a wrong type.
        """
        as_fields(record.value)
        as_words = as_text if self.is_strict else as_answer
        images = self._images(record)
        question, images = self._question(record, images)
        options, labels = self._options(record)
        answer = self._answer(record, options, needs_answer)
        answer = letter(labels.index(answer)) if answer in labels else answer
        if self.task_by_answer:
            task, answer, answer_type = TASKS[self.task_by_answer](question, answer)
        else:
            task = as_answer(*self._named("task", record))
            answer_type = self._optional("answer_type", record)
        return RawRow(
            source_id=as_words(*self._named("id", record)) if "id" in self.references else f"{part}/{record.place}",
            task=task,
            question=question,
            answer=answer,
            images=images,
            options=options,
            answer_type=answer_type,
            boxes=None if self._is_absent("boxes", record) else self._boxes(record),
            box_form=cast(BoxForm, self._one_of("box_form", BOX_FORMS, record)),
            box_frame=cast(BoxFrame, self._one_of("box_frame", BOX_FRAMES, record)),
            part=self._optional("part", record),
            metadata={name: as_label(reference.of(record.value)) for name, reference in self.metadata.items()},
        )

    def _value(self, key: str, record: Record) -> object:
        reference = self.references.get(key)
        return reference.of(record.value) if reference else None

    def _named(self, key: str, record: Record) -> tuple[object, str]:
        """Return the value of a key and the name of the raw field that it comes from."""
        reference = self.references.get(key)
        return self._value(key, record), reference.name if reference and reference.name else key

    def _is_absent(self, key: str, record: Record) -> bool:
        """Return whether this field is optional and missing."""
        reference = self.references.get(key)
        return reference is None or (reference.is_optional and reference.of(record.value) is None)

    def _optional(self, key: str, record: Record) -> str:
        value, name = self._named(key, record)
        return "" if value is None else as_answer(value, name)

    def _one_of(self, key: str, allowed: tuple[str, ...], record: Record) -> str:
        value = self._value(key, record) if key in self.references else allowed[0]
        return value if isinstance(value, str) and value in allowed else refuse(key, value, " or ".join(allowed))

    def _answer(self, record: Record, options: tuple[str, ...], needs_answer: bool) -> str:
        value, name = self._named("answer", record)
        if self._is_absent("answer", record) or (value is None and not needs_answer):
            return ""
        return READERS[self.answer_is](value, name, options)

    def _question(self, record: Record, images: tuple[RawImage, ...]) -> tuple[str, tuple[RawImage, ...]]:
        """Return the question with its images in their places, and those images.

        A list of turns is asked by its one user turn; a path into one turn takes the images of that turn's markers.
        """
        value, name = self._named("question", record)
        turns = read_turns(value, name)
        if turns is None:
            text = (as_text if self.is_strict else as_answer)(value, name)
            steps = self.references["question"].steps
            images = images_of_turn(record.value, steps, text, images) if len(steps) > 2 else images
        else:
            text, parts = turns
            held = tuple(image for image in parts if image is not None)
            if held and images:
                raise RowError(RejectReason.UNREADABLE_ROW, f"{name} holds images, and so does the field of images")
            images = held or images
        if self.remove_markers:
            labels = self._value("box_labels", record)
            text = with_places(with_labels(text, labels), len(images))
        return text, images

    def _options(self, record: Record) -> tuple[tuple[str, ...], list[str]]:
        """Return the options in the order of their labels, and the labels where they have some."""
        value, name = self._named("options", record)
        if self.is_strict and "options" in self.references:
            return as_texts(value, name), []
        if isinstance(value, Mapping):
            texts = {str(label): text for label, text in value.items() if text is not None}
            labels = sorted(texts, key=lambda label: (len(label), label))
            return as_texts([texts[label] for label in labels], name), labels
        return () if value is None else as_texts(value, name), []

    def _images(self, record: Record) -> tuple[RawImage, ...]:
        value, name = self._named("images", record)
        reference = self.references.get("images")
        # A formatted text is a path; an empty one is refused by stage read as a missing image.
        is_path = reference is not None and reference.is_text
        images = (file_image(self.images, str(value)),) if is_path else cell_images(value, name, self.images)
        if not images and reference is not None and not reference.is_optional:
            raise RowError(RejectReason.MISSING_FIELD, f"{name} is missing")
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
    mapping: Mapping[str, Any],
    answer_is: AnswerIs = "text",
    images: str = "",
    remove_markers: bool = True,
    *,
    is_strict: bool = False,
) -> RowMapping:
    """Build a mapping from its YAML.

    Args:
        mapping: From our names (KEYS) to a field path, a list of steps, or another form of `_reference`; `metadata` is
            a mapping of such. `question`, `task`, and `answer` or `boxes` are required. `task: {by_answer: chart}`
            derives task and answer_type from the answer.
        answer_is: How the source writes answers.
        images: Folder that image paths start from.
        remove_markers: Whether `<image>` markers are taken out of the question.
        is_strict: Whether id and question must be texts and options a list.

    Raises:
        ConfigError: A key is unknown (names the nearest) or missing, or a reference has an unknown form.

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
    by_answer = _by_answer(mapping["task"])
    references = {
        key: _reference(value, f"{PATH}.{key}")
        for key, value in mapping.items()
        if key != "metadata" and not (key == "task" and by_answer)
    }
    for key, allowed in (("box_form", BOX_FORMS), ("box_frame", BOX_FRAMES)):
        value = mapping.get(key)
        if isinstance(value, Mapping) and value.get("constant", allowed[0]) not in allowed:
            raise ConfigError(f"{PATH}.{key} is {value['constant']!r}; allowed: {', '.join(allowed)}")
    return RowMapping(
        references=references,
        metadata={str(name): _reference(value, f"{PATH}.metadata.{name}") for name, value in extra.items()},
        task_by_answer=by_answer,
        answer_is=answer_is,
        images=images,
        remove_markers=remove_markers,
        is_strict=is_strict,
    )


def _by_answer(task: object) -> str:
    if not (isinstance(task, Mapping) and set(task) == {"by_answer"}):
        return ""
    if task["by_answer"] not in TASKS:
        raise ConfigError(f"{PATH}.task.by_answer is {task['by_answer']!r}; allowed: {', '.join(TASKS)}")
    return str(task["by_answer"])


def _reference(value: object, path: str) -> Reference:
    if isinstance(value, str) and value:
        return _field(value.removesuffix("?").split("."), is_optional=value.endswith("?"))
    if isinstance(value, (list, tuple)) and value and all(isinstance(step, (str, int)) for step in value):
        return _field(list(map(str, value)))
    if isinstance(value, Mapping):
        if set(value) == {"constant"}:
            return Reference(lambda row: value["constant"])
        if set(value) == {"first"} and isinstance(value["first"], (list, tuple)) and value["first"]:
            several = [_reference(item, f"{path}.first") for item in value["first"]]
            return Reference(
                lambda row: next((found for one in several if (found := one.of(row)) is not None), None),
                " or ".join(one.name for one in several),
            )
        if set(value) == {"format"} and isinstance(value["format"], str):
            text = _checked_template(value["format"], path)
            return Reference(lambda row: filled(text, row), is_text=True)
        if set(value) == {"field", "values"} and isinstance(value["values"], Mapping):
            field, values = _reference(value["field"], f"{path}.field"), value["values"]
            return Reference(lambda row: _looked_up(field.of(row), values), field.name)
    raise ConfigError(
        f"{path} is {value!r}; write a field path such as meta.answer, a list of steps, {{constant: x}}, "
        "{first: [a, b]}, {format: a text with {fields}}, or {field: a, values: {raw: ours}}"
    )


def _field(steps: Sequence[str], *, is_optional: bool = False) -> Reference:
    return Reference(lambda row: field_value(row, steps), ".".join(steps), is_optional, steps=tuple(steps))


def _looked_up(found: object, values: Mapping[object, object]) -> object:
    # Types are compared too: 1 and true are the same key of a dictionary.
    return next((value for key, value in values.items() if type(key) is type(found) and key == found), None)


def _checked_template(text: str, path: str) -> str:
    try:
        for _, _, spec, _ in string.Formatter().parse(text):
            if spec and spec.endswith("d"):
                format(0, spec)
    except ValueError as error:
        raise ConfigError(
            f"{path}.format is {text!r}: {error}; write fields as {{name}}, {{name:stem}} or {{name:d}}"
        ) from error
    return text


def _box(value: object, name: str) -> RawBox:
    if isinstance(value, Mapping):
        box = value.get("bbox_2d", value.get("bbox"))
        return RawBox(values=as_numbers(box, f"{name}.bbox"), label=as_label(value.get("label")))
    return RawBox(values=as_numbers(value, name))
