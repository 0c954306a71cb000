"""What the columns of a user's own rows are, by their names and by what is in them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from conf.ranges import nearest
from orchestration.data.sources.answers import READERS
from orchestration.data.sources.any_task import ANY, hinted_task, task_of_row
from orchestration.data.sources.column_kinds import Kind, columns_of, plain_name, shortened
from orchestration.data.sources.fields import RowError
from orchestration.data.sources.findings import (
    SETTING,
    Findings,
    find_boxes,
    find_images,
    find_options,
    is_whole_number,
)
from orchestration.data.sources.mapping import BOX_FORMS, BOX_FRAMES, KEYS, build_mapping
from orchestration.data.sources.question_columns import (
    ANSWERS,
    QUESTIONS,
    find_answer,
    find_question,
    how_answers_name_options,
)
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import unknown_key
from rewards.core.config import DEFAULT_ROUTES

IDS = ("id", "uid", "question_id", "qid", "pid", "sample_id", "problem_id", "index", "idx", "image_id", "__key__")
HINTS = (
    "data_source", "task", "ability", "dataset", "source", "dataset_name", "task_type", "category", "domain", "subject",
    "topic",
)  # fmt: skip
OWN_KEYS = ("answer_is", "images_from")
"""Keys of `data.columns` that are options of the source and no fields."""
TURN_KEYS = ("system", "history")
WORDS = {"task": tuple(DEFAULT_ROUTES), "box_form": BOX_FORMS, "box_frame": BOX_FRAMES}
"""Values that a key takes for all rows, where no column is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """The options of a source that reads a file, and where each comes from."""

    mapping: dict[str, Any]
    """options.mapping, complete."""
    answer_is: str
    images: str
    """Folder that image paths start from."""
    reasons: dict[str, str]
    """By key of the mapping: why it is read so."""
    uncertain: tuple[str, ...]
    """What was guessed, and the setting that says otherwise."""
    has_images: bool
    """Whether one of the first rows has images."""


def recognise(
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, Any],
    name: str,
    folders: Sequence[str],
    has_file: Callable[[str], bool],
) -> Recognised:
    """Find question, answer, images, options, boxes and task in the first rows of a file.

    Args:
        rows: The first raw rows, at least one.
        columns: What the user says, by key of the mapping, `answer_is` or `images_from` (a folder); it always holds.
        name: Path of the file; its end is a hint at the task where no column is.
        folders: Folders that relative image paths may start from, relative to the source's root.
        has_file: Whether a path below the source's root exists.

    Raises:
        ConfigError: A key of `columns` is unknown, or its column is in no row; or there is no question, or neither
            answer nor boxes: shows the first row and the keys to set.

    Example:
        >>> rows = [{"problem": "How many?", "answer": "3"}, {"problem": "How much?", "answer": "4"}]
        >>> recognise(rows, columns={}, name="rows.jsonl", folders=[""], has_file=bool).mapping["question"]
        'problem'
    """
    found = Findings(columns=columns_of(rows), settings=columns)
    _take_settings(found)
    images = find_images(found, folders, has_file)
    find_options(found)
    boxes = find_boxes(found)
    find_question(found, boxes)
    if "question" not in found.mapping:
        raise _unknown(found, rows, name, "question", QUESTIONS)
    find_answer(found, boxes)
    if not found.mapping.keys() & {"answer", "boxes"}:
        raise _unknown(found, rows, name, "answer", ANSWERS)
    _find_id(found)
    _find_task(found, name)
    answer_is = str(columns.get("answer_is") or how_answers_name_options(found, rows))
    has_images = _try(found, rows, answer_is, images)
    return Recognised(
        mapping=found.mapping,
        answer_is=answer_is,
        images=images,
        reasons=found.reasons,
        uncertain=tuple(found.uncertain),
        has_images=has_images,
    )


def _take_settings(found: Findings) -> None:
    known = [*KEYS, *TURN_KEYS, *OWN_KEYS]
    names = [column.name for column in found.columns]
    for key, value in found.settings.items():
        if key not in known:
            raise ConfigError(unknown_key(str(key), known, SETTING))
        if key == "answer_is" and value not in READERS:
            raise ConfigError(f"{SETTING}.answer_is is {value!r}; it is one of {', '.join(READERS)}")
        if key in OWN_KEYS:
            continue
        path = value.removesuffix("?") if isinstance(value, str) else None
        column = next((one for one in found.columns if path is not None and path in (one.name, one.steps[-1:])), None)
        if path in WORDS.get(key, ()) and column is None:
            value = {"constant": path}
        elif isinstance(value, (list, tuple)) and _are_outer(found, value):
            several = "{columns: [" + ", ".join(map(str, value)) + "]}"
            raise ConfigError(
                f"{SETTING}.{key} is {list(value)!r}, the steps to one field; several columns are "
                f"'{SETTING}.{key}={several}'"
            )
        elif path and column is None and path.split(".")[0] not in names:
            near = nearest(path, names)
            hint = f"did you mean {near}?" if near else f"the columns are {', '.join(names[:12])}"
            raise ConfigError(f"{SETTING}.{key} is {value!r}, and no row has such a column; {hint}")
        elif column is not None and value == column.name:
            value = column.path()
        found.mapping[key], found.reasons[key] = value, "set"
        if column is not None:
            found.used.add(column.steps)


def _are_outer(found: Findings, steps: Sequence[object]) -> bool:
    """Return whether a list names columns beside each other, and not one within another."""
    paths = {column.steps for column in found.columns}
    return len(steps) > 1 and tuple(steps) not in paths and all((step,) in paths for step in steps)


def _find_id(found: Findings) -> None:
    if "id" in found.mapping:
        return
    for name in IDS:
        column = found.find((name,), "text", "number")
        if column is not None and len(column.steps) == 1 and column.is_whole:
            values = {str(value) for value in column.present if isinstance(value, str) or is_whole_number(value)}
            if len(values) == len(column.values):
                found.put("id", column.path(may_lack=True), "named so, and no value twice", column)
                return


def _find_task(found: Findings, name: str) -> None:
    if "task" in found.mapping:
        return
    hints = [one for one in (found.find((hint,), "text") for hint in HINTS) if one is not None]
    scored = [(sum(bool(hinted_task(str(value))) for value in one.present), one) for one in hints]
    best = max(scored, key=lambda pair: pair[0], default=(0, None))
    if "hint" not in found.mapping and best[0] and best[1] is not None:
        found.put("hint", best[1].path(may_lack=True), f"names a kind of task in {best[0]} of the first rows", best[1])
    elif "hint" not in found.mapping and (task := hinted_task(name)) and name.strip() not in DEFAULT_ROUTES:
        tail = "/".join(name.replace("\\", "/").split("/")[-2:])
        found.put("hint", {"constant": tail}, f"the path of the file, which names {task}")
    asking = [plain_name(column.name) for column in found.sources.get("question", ())]
    if "boxes" in found.mapping and asking[:1] == ["instruction"]:
        found.put("task", {"constant": "pointing"}, "an instruction with the box to click in")
        found.doubt("boxes with an instruction are places to click in, task pointing", "task=iou for boxes")
        return
    found.put("task", {"by_answer": ANY}, "by the answer of each row")


def _try(found: Findings, rows: Sequence[Mapping[str, Any]], answer_is: str, images: str) -> bool:
    """Read the first rows, and note what is doubtful in their tasks, and what cannot be read.

    Returns:
        Whether one of them has images, or cannot be read.
    """
    known = {key: value for key, value in found.mapping.items() if key in KEYS}
    mapping = build_mapping(known, answer_is, images)  # type: ignore[arg-type]
    doubts, faults = Counter[str](), Counter[str]()
    has_images = False
    for index, row in enumerate(rows):
        try:
            read = mapping.row(Record(str(index), row), "rows")
        except RowError as error:
            faults[str(error)] += 1
            continue
        has_images = has_images or bool(read.images)
        if mapping.task_by_answer == ANY:
            hint = mapping.references["hint"].of(row) if "hint" in mapping.references else None
            found_task = task_of_row(
                read.question, read.answer, read.options, has_boxes=read.boxes is not None, hint=str(hint or "")
            )
            doubts[found_task.doubt] += 1
    for doubt, count in doubts.items():
        if doubt:
            found.doubt(f"{count} of {len(rows)} rows: {doubt}", "task=chart, or another task")
    if faults:
        fault, _ = faults.most_common(1)[0]
        found.uncertain.append(f"{faults.total()} of {len(rows)} rows cannot be read so: {fault}")
    return has_images or bool(faults)


def _unknown(
    found: Findings, rows: Sequence[Mapping[str, Any]], name: str, key: str, names: Sequence[str]
) -> ConfigError:
    """Return the error of rows in which a field is not found."""
    outer = [column for column in found.columns if len(column.steps) == 1]
    empty = next((one.name for one in outer if plain_name(one.name) in names and not one.present), None)
    if empty is not None:
        return ConfigError(
            f"{name}: the column {empty} has no value in the first {len(rows)} rows; name the column of the {key}, as "
            f"in {SETTING}.{key}=COLUMN, or leave this file out: rows without {key} cannot be trained on"
        )
    shown = "\n".join(f"  {column}: {shortened(value)}" for column, value in rows[0].items())
    kinds = ("text", "turns") if key == "question" else get_args(Kind)
    there = [column.name for column in found.columns if column.steps not in found.used and column.is_mostly(*kinds)]
    near = next((column for wanted in names[:6] if (column := nearest(wanted, there))), None)
    setting = f"{SETTING}.{key}={near or 'COLUMN'}"
    also = f" or {SETTING}.boxes=COLUMN" if key == "answer" else ""
    return ConfigError(
        f"{name}: no column is known as the {key}{' or as boxes' if key == 'answer' else ''}; name it, as in "
        f"{setting}{also}, with dots for a field within another (meta.answer). The first row:\n{shown}"
    )
