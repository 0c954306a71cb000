"""Conversion of raw rows by a mapping from our fields to fields of the source."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from orchestration.data.sources.answers import READERS, TASKS, accepted, between_tags
from orchestration.data.sources.any_task import ANY, check_alternatives, check_brackets, one_of_repeated, task_of_row
from orchestration.data.sources.column_kinds import boxes_of
from orchestration.data.sources.fields import (
    RowError,
    as_answer,
    as_fields,
    as_label,
    as_numbers,
    as_text,
    as_texts,
    cell_images,
    file_image,
    is_missing,
    is_number,
    refuse,
)
from orchestration.data.sources.markers import (
    as_question,
    has_marker,
    mark_places,
    names_by_number,
    numbers_in_words,
    renumbered,
)
from orchestration.data.sources.option_lists import OptionList, read_options, written_list
from orchestration.data.sources.question_options import options_asked, options_in
from orchestration.data.sources.references import Reference, reference_of
from orchestration.data.sources.rows import BoxForm, BoxFrame, RawBox, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import Record
from orchestration.data.sources.turns import (
    Dialogue,
    RawTurn,
    as_dialogue,
    part_of_turn,
    read_history,
    read_reply,
    read_turns,
    with_labels,
)
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import unknown_key

KEYS = (
    "id", "system", "history", "question", "answer", "options", "images", "image_id", "task", "answer_type", "boxes",
    "box_labels", "box_form", "box_frame", "box_image", "hint", "part", "metadata",
)  # fmt: skip
BOX_FORMS = ("xyxy", "xywh")
BOX_FRAMES = ("pixel", "norm1", "norm1000")
SWIFT_FRAMES = {"real": "pixel", "norm1": "norm1", "norm1000": "norm1000"}
"""Frames of boxes as ms-swift names them in `bbox_type`."""
PATH = "options.mapping"

AnswerIs = Literal["text", "single", "integer", "index", "index1", "letter", "option", "tagged", "caption", "any"]
"""How a source writes its answers; see answers.READERS."""


@dataclass(frozen=True, slots=True)
class RowMapping:
    """The mapping of one source, as `build_mapping` makes it."""

    references: Mapping[str, Reference]
    metadata: Mapping[str, Reference]
    task_by_answer: str = ""
    """Key of answers.TASKS, or `any`, where the answer decides the task; empty if the mapping states the task."""
    answer_is: AnswerIs = "text"
    images: str = ""
    """Folder that image paths start from."""
    remove_markers: bool = True
    """Whether markers of images, such as `<image>`, become their places in the turns."""
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
        options = self.options(record)
        boxes = None if self._is_absent("boxes", record) else self._boxes(record)
        answer = self._answer(record, options, needs_answer, has_boxes=bool(boxes))
        if boxes == () and self.task_by_answer == ANY:
            if not answer:
                what = "boxes is empty, and whether nothing is to be found or nothing was said is not known"
                raise RowError(RejectReason.MISSING_FIELD, f"{what}: map a task for all rows, {{constant: iou}}")
            boxes = None
        dialogue, images = self._dialogue(record, self._images(record))
        numbers = self._numbers(record)
        texts = tuple(renumbered(text, numbers) for text in options.texts) if numbers else options.texts
        (*told, question), order = self._placed(dialogue, record, len(images), texts, numbers)
        if self._names_images(texts):
            *in_words, answer = numbers_in_words((*texts, answer), len(images))
            texts = tuple(in_words)
        task, answer_type = "", ""
        if not self.task_by_answer:
            task, answer_type = as_answer(*self._named("task", record)), self._optional("answer_type", record)
        elif self.task_by_answer != ANY:
            task, answer, answer_type = TASKS[self.task_by_answer](question, answer)
        if not texts and not self.is_strict and task in ("match_mcq", ""):
            found = options_in(question, is_choice=True) if task else options_asked(question, answer)
            question, texts = found or (question, ())
        if self.task_by_answer == ANY:
            hint = self._optional("hint", record)
            found_task = task_of_row(question, answer, texts, has_boxes=boxes is not None, hint=hint)
            task, answer, answer_type = found_task.task, found_task.answer, found_task.answer_type
            answer = "" if boxes and task in ("iou", "pointing") else answer  # a reply such as `<bbox>`
        if task == "chart" and answer_type != "list" and not self.is_strict:
            answer = one_of_repeated(answer)
        if order[:1] > (0,) and (boxes is not None or task in ("iou", "pointing")):
            raise RowError(RejectReason.BOX_IMAGE_UNCLEAR, f"image {order[0] + 1} of the row stands first")
        return RawRow(
            source_id=f"{part}/{record.place}"
            if self._is_absent("id", record)
            else as_words(*self._named("id", record)),
            task=task,
            system=dialogue.system,
            history=dialogue.history(told),
            question=question,
            answer=answer,
            images=tuple(images[index] for index in order),
            options=texts,
            answer_type=answer_type,
            boxes=boxes,
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
        value = allowed[0] if self._is_absent(key, record) else self._value(key, record)
        return value if isinstance(value, str) and value in allowed else refuse(key, value, " or ".join(allowed))

    def _answer(self, record: Record, options: OptionList, needs_answer: bool, *, has_boxes: bool) -> str:
        value, name = self._named("answer", record)
        if self._is_absent("answer", record) or (value is None and not needs_answer):
            return ""
        reply = read_reply(value, name)
        value = value if reply is None else reply
        if self.task_by_answer == ANY:
            check_alternatives(value, name, self._optional("hint", record))
            if not options.texts and not has_boxes:
                check_brackets(value, name, self._optional("hint", record))
        if self.answer_is == "any" and options.texts:
            return options.lettered(accepted(value, name))
        if isinstance(value, str) and self.answer_is in ("any", "text") and not self.is_strict:
            written = written_list(value) or []
            is_list = (
                not any(is_number(one) or boxes_of([one]) for one in written)
                if self.answer_is == "any"
                else _are_texts(written)
            )
            value = written if written and is_list else value  # [1, 2] may be an interval
        answer = READERS[self.answer_is](value, name, options.texts)
        if self.answer_is in ("index", "index1"):
            return options.named(answer, by="place") if options.texts else answer
        return answer if self.answer_is == "option" else options.named(answer, by="label")

    def _dialogue(self, record: Record, images: tuple[RawImage, ...]) -> tuple[Dialogue, tuple[RawImage, ...]]:
        """Return the turns of a row, and its images.

        A list of turns is asked by its last user turn; a path into one turn takes the images of that turn's markers.
        """
        system, history = self._named("system", record), self._named("history", record)
        turns = [RawTurn(role="system", text=as_text(*system))] if system[0] else []
        turns += read_history(*history)
        value, name = self._named("question", record)
        asked = read_turns(value, name)
        if asked is None:
            text = (as_text if self.is_strict else as_answer)(value, name)
            steps = self.references["question"].steps
            if len(steps) > 2:
                text, images = part_of_turn(record.value, steps, text, images)
            asked = [RawTurn(role="user", text=text)]
        dialogue = as_dialogue([*turns, *asked], name)
        if dialogue.images and images and set(dialogue.images) != set(images):
            raise RowError(RejectReason.UNREADABLE_ROW, f"{name} holds images, and so does the field of images")
        return dialogue, dialogue.images or images

    def _placed(
        self, dialogue: Dialogue, record: Record, num_images: int, options: tuple[str, ...], numbers: Sequence[int]
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the texts of the turns with images in their places, and the order of the images.

        `numbers` are those of the columns that hold the images, where some columns may be empty.

        Where options name images by number, all images come first, and texts name them in words.
        """
        texts: tuple[str, ...] = tuple(turn.text for turn in dialogue.turns)
        if not self.remove_markers:
            return texts, tuple(range(num_images))
        if has_marker(dialogue.system):
            raise RowError(RejectReason.MARKERS_UNEQUAL, "the system turn has a marker of an image; turns of users may")
        texts = tuple(renumbered(text, numbers) for text in texts) if numbers else texts
        texts = with_labels(texts, self._value("box_labels", record))
        if self._names_images(options):
            texts = numbers_in_words(texts, num_images)
        texts, order = mark_places(texts, num_images)
        return (*texts[:-1], as_question(texts[-1])), order

    def _names_images(self, options: tuple[str, ...]) -> bool:
        return self.remove_markers and any(map(names_by_number, options))

    def options(self, record: Record) -> OptionList:
        """Return the options of a record, without those in its question.

        Raises:
            RowError: They have no form that is known.
        """
        value, name = self._named("options", record)
        reference = self.references.get("options")
        if self.is_strict and reference is not None:
            texts = as_texts(value, name)
            return OptionList(texts, places=tuple(range(len(texts))))
        are_columns = reference is not None and reference.are_columns
        if value is None and reference is not None and not are_columns and len(reference.steps) > 1:
            columns = as_fields(record.value).values
            if reference.steps[0] in columns:  # a plain list of columns
                value, are_columns = {step: columns.get(step) for step in reference.steps}, True
        return read_options(value, name, are_columns=are_columns)

    def _images(self, record: Record) -> tuple[RawImage, ...]:
        value, name = self._named("images", record)
        reference = self.references.get("images")
        # A formatted text is a path; an empty one is refused by stage read as a missing image.
        is_path = reference is not None and reference.is_text
        if reference is not None and reference.are_columns and isinstance(value, Mapping):
            value = [cell for cell in value.values() if not is_missing(cell)]
        images = (file_image(self.images, str(value)),) if is_path else cell_images(value, name, self.images)
        if not images and reference is not None and reference.name and not reference.is_optional:
            raise RowError(RejectReason.MISSING_FIELD, f"{name} is missing")
        known = self._optional("image_id", record)
        return (replace(images[0], image_id=known), *images[1:]) if images and known else images

    def _numbers(self, record: Record) -> list[int]:
        """Return the numbers of the images that the row has, where columns such as image_2 hold them."""
        reference = self.references.get("images")
        columns = reference.of(record.value) if reference is not None and reference.are_columns else None
        if not isinstance(columns, Mapping):
            return []
        ends = [re.search(r"[0-9]{1,2}$", str(name)) for name, cell in columns.items() if not is_missing(cell)]
        return [int(end[0]) for end in ends if end is not None]

    def _boxes(self, record: Record) -> tuple[RawBox, ...]:
        value = self._value("boxes", record)
        if isinstance(value, str):
            value = written_list(between_tags(value).strip().removeprefix("```json").strip("`\n ")) or value
        if isinstance(value, Mapping):
            value = [value]
        if not isinstance(value, (list, tuple)):
            return refuse("boxes", value, "a list of boxes, or one box")
        items = [value] if value and all(is_number(item) for item in value) else value
        belongs = self._value("box_image", record)
        if any(index for index in (belongs if isinstance(belongs, (list, tuple)) else [belongs])):
            raise RowError(RejectReason.UNREADABLE_ROW, "a box belongs to another image than the first of the row")
        found = [_box(item, f"boxes[{index}]") for index, item in enumerate(items)]
        labels = self._value("box_labels", record)
        if labels is None or labels == []:
            return tuple(found)
        names = (as_answer(labels, "box_labels"),) if isinstance(labels, str) else as_texts(labels, "box_labels")
        names = names * len(found) if len(names) == 1 else names  # several boxes of one thing
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
        mapping: From our names (KEYS) to a field path, a list of steps, or another form of `reference_of`; `metadata`
            is a mapping of such. `question`, `task`, and `answer` or `boxes` are required. `task: {by_answer: chart}`
            derives task and answer_type from the answer; `{by_answer: any}` from all that the row has: any_task.py.
        answer_is: How the source writes answers.
        images: Folder that image paths start from.
        remove_markers: Whether markers of images, such as `<image>`, become their places in the turns.
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
    mapping = mapping if is_strict else {**_beside_boxes(mapping.get("boxes")), **mapping}
    references = {
        key: reference_of(value, f"{PATH}.{key}")
        for key, value in mapping.items()
        if key != "metadata" and not (key == "task" and by_answer)
    }
    for key, allowed in (("box_form", BOX_FORMS), ("box_frame", BOX_FRAMES)):
        value = mapping.get(key)
        if isinstance(value, Mapping) and value.get("constant", allowed[0]) not in allowed:
            raise ConfigError(f"{PATH}.{key} is {value['constant']!r}; allowed: {', '.join(allowed)}")
    return RowMapping(
        references=references,
        metadata={str(name): reference_of(value, f"{PATH}.metadata.{name}") for name, value in extra.items()},
        task_by_answer=by_answer,
        answer_is=answer_is,
        images=images,
        remove_markers=remove_markers,
        is_strict=is_strict,
    )


def _beside_boxes(boxes: object) -> dict[str, Any]:
    """Return what ms-swift writes beside the boxes in `objects`: their labels, their frame, and the image of each."""
    above, _, name = boxes.removesuffix("?").rpartition(".") if isinstance(boxes, str) else ("", "", "")
    if name != "bbox" or not above:
        return {}
    return {
        "box_labels": f"{above}.ref?",
        "box_frame": {"field": f"{above}.bbox_type?", "values": SWIFT_FRAMES},
        "box_image": f"{above}.image_id?",
    }


def _are_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _by_answer(task: object) -> str:
    if not (isinstance(task, Mapping) and set(task) == {"by_answer"}):
        return ""
    if task["by_answer"] not in (*TASKS, ANY):
        raise ConfigError(f"{PATH}.task.by_answer is {task['by_answer']!r}; allowed: {', '.join((*TASKS, ANY))}")
    return str(task["by_answer"])


def _box(value: object, name: str) -> RawBox:
    if isinstance(value, Mapping):
        box = value.get("bbox_2d", value.get("bbox"))
        return RawBox(values=as_numbers(box, f"{name}.bbox"), label=as_label(value.get("label")))
    return RawBox(values=as_numbers(value, name))
