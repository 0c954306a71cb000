"""How one of our fields is read from a raw row: a field, a constant, several columns, a text with fields in it."""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestration.data.sources.fields import RowError, as_integer, as_text, file_name, shown, stem
from orchestration.data.sources.rows import RejectReason
from orchestration.settings.errors import ConfigError

CLOSED = ("task", "box_form", "box_frame")
"""Keys of a mapping whose tables must have each value of the rows: there is no other value to take."""
_PARTS_OF_PATHS = {"name": file_name, "stem": stem}


@dataclass(frozen=True, slots=True)
class Reference:
    """How one of our fields is read from a raw row; `reference_of` builds it from YAML."""

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
    are_columns: bool = False
    """Whether the value is that of several columns, by their names."""


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

    {field} is a text, {field:name} its file name without folder, {field:stem} that without suffix too, {field:d} (or
    :012d) a whole number; with {field?} nothing stands where the row lacks the field.

    Example:
        >>> filled("coco/{image_id:d}", {"image_id": 9})
        'coco/9'
    """
    pieces = []
    for literal, field, spec, _ in string.Formatter().parse(text):
        pieces.append(literal)
        if field is not None:
            value = field_value(row, field.removesuffix("?").split("."))
            if value is None and field.endswith("?"):
                continue
            if spec and spec.endswith("d"):
                pieces.append(format(as_integer(value, field), spec))
            else:
                pieces.append(_PARTS_OF_PATHS.get(spec or "", str)(as_text(value, field)))
    return "".join(pieces)


def reference_of(value: object, path: str) -> Reference:
    """Return how a value is read, from the YAML of a mapping.

    Args:
        value: A field path, a list of steps, or an object such as {constant: x}.
        path: Of the setting, for messages.

    Raises:
        ConfigError: It has none of these forms.

    Example:
        >>> reference_of({"first": ["solution", "answer"]}, "answer").of({"answer": 3})
        3
    """
    if isinstance(value, str) and value:
        return _field(value.removesuffix("?").split("."), is_optional=value.endswith("?"))
    if isinstance(value, (list, tuple)) and value and all(isinstance(step, (str, int)) for step in value):
        return _field(list(map(str, value)))
    if isinstance(value, Mapping):
        if set(value) == {"constant"}:
            return Reference(lambda row: value["constant"])
        if set(value) == {"columns"} and isinstance(value["columns"], (list, tuple)) and value["columns"]:
            return _columns(list(map(str, value["columns"])))
        if set(value) == {"first"} and isinstance(value["first"], (list, tuple)) and value["first"]:
            several = [reference_of(item, f"{path}.first") for item in value["first"]]
            return Reference(
                lambda row: next((found for one in several if (found := one.of(row)) not in (None, "", [])), None),
                " or ".join(one.name for one in several),
                any(one.is_optional for one in several),
            )
        if set(value) == {"format"} and isinstance(value["format"], str):
            text = _checked_template(value["format"], path)
            return Reference(lambda row: filled(text, row), is_text=True)
        if set(value) == {"field", "values"} and isinstance(value["values"], Mapping):
            field, values = reference_of(value["field"], f"{path}.field"), value["values"]
            key = path.rpartition(".")[2]
            return Reference(_looked_up(field, values, is_closed=key in CLOSED), field.name, field.is_optional)
    raise ConfigError(
        f"{path} is {value!r}; write a field path such as meta.answer, a list of steps, {{constant: x}}, "
        "{first: [a, b]}, {columns: [a, b]}, {format: a text with {fields}}, or {field: a, values: {raw: ours}}"
    )


def _field(steps: Sequence[str], *, is_optional: bool = False) -> Reference:
    return Reference(lambda row: field_value(row, steps), ".".join(steps), is_optional, steps=tuple(steps))


def _columns(names: Sequence[str]) -> Reference:
    """Return the columns of a row by name; None where all of them are empty."""

    def of(row: object) -> object:
        found = {name: field_value(row, (name,)) for name in names}
        return found if any(value is not None for value in found.values()) else None

    return Reference(of, " or ".join(names), are_columns=True)


def _looked_up(field: Reference, values: Mapping[object, object], *, is_closed: bool) -> Callable[[object], object]:
    """Return how a value is looked up; where the table is closed, a row whose value it lacks is refused."""

    def of(row: object) -> object:
        found = field.of(row)
        for key, value in values.items():
            if type(key) is type(found) and key == found:  # 1 and true are the same key of a dictionary
                return value
        if is_closed and found is not None:
            known = ", ".join(map(str, values))
            what = f"{field.name} is {shown(found)}, and the table of values has {known} alone"
            raise RowError(RejectReason.UNREADABLE_ROW, what)
        return None

    return of


def _checked_template(text: str, path: str) -> str:
    try:
        for _, _, spec, _ in string.Formatter().parse(text):
            if spec and spec.endswith("d"):
                format(0, spec)
    except ValueError as error:
        raise ConfigError(
            f"{path}.format is {text!r}: {error}; write fields as {{name}}, {{name:name}}, {{name:stem}} or {{name:d}}"
        ) from error
    return text
