"""Typed access to one raw row: what is missing or of another type becomes a reason, never a crash."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from orchestration.data.rows.reasons import RejectReason

MAX_INTEGER = 10**15
"""Ids, indices and years stay far below; longer integers are damage, and printing very long ones raises."""
SHOWN_CHARS = 80


class RowError(ValueError):
    """A raw row that cannot be read; becomes a BadRow."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fields:
    """One raw row by field name.

    Example:
        >>> Fields({"question": "How many?", "answer": 3.0}).answer("answer")
        '3'
    """

    values: Mapping[object, object]

    def raw(self, name: str) -> object:
        """Return the value unconverted, None where there is none."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        return as_text(self.raw(name), name)

    def text_or(self, name: str, default: str = "") -> str:
        """Return a text, or `default` where the field is absent or null."""
        return default if self.raw(name) is None else self.text(name)

    def answer(self, name: str) -> str:
        return as_answer(self.raw(name), name)

    def integer(self, name: str) -> int:
        return as_integer(self.raw(name), name)

    def texts(self, name: str) -> tuple[str, ...]:
        return as_texts(self.raw(name), name)

    def label(self, name: str) -> str:
        return as_label(self.raw(name))


def as_fields(value: object) -> Fields:
    """Return the fields of a raw row, which must be an object with named fields."""
    if not isinstance(value, Mapping):
        raise RowError(RejectReason.UNREADABLE_ROW, f"the row is {shown(value)}, no object with named fields")
    return Fields(value)


def as_text(value: object, name: str) -> str:
    """Read a text; numbers are refused."""
    return value if isinstance(value, str) else refuse(name, value, "a text")


def as_answer(value: object, name: str) -> str:
    """Write a text, number or truth value as an answer: 3.0 is 3, true is yes.

    Example:
        >>> as_answer(51.67, "answer"), as_answer(True, "answer")
        ('51.67', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < MAX_INTEGER:
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < MAX_INTEGER else repr(value)
    return refuse(name, value, "a text or a number")


def as_label(value: object) -> str:
    """Write a metadata value as text, empty where it is not a plain value: that is no reason to reject a row."""
    try:
        return as_answer(value, "metadata")
    except RowError:
        return ""


def as_integer(value: object, name: str) -> int:
    """Read a whole number, also one that is written 3.0 or "3"."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) <= 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_INTEGER:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INTEGER:
        return value
    return refuse(name, value, "a whole number")


def as_texts(value: object, name: str) -> tuple[str, ...]:
    """Read a list of texts; numbers in it are written out."""
    if not isinstance(value, (list, tuple)):
        return refuse(name, value, "a list of texts")
    return tuple(as_answer(item, f"{name}[{index}]") for index, item in enumerate(value))


def as_numbers(value: object, name: str) -> tuple[float, ...]:
    """Read a list of numbers, of whatever length; NaN and infinity pass: content is checked later."""
    if not isinstance(value, (list, tuple)) or not all(is_number(item) for item in value):
        return refuse(name, value, "a list of numbers")
    return tuple(float(item) if abs(item) < MAX_INTEGER or isinstance(item, float) else float("inf") for item in value)


def is_number(value: object) -> bool:
    """Return whether a value is an int or float; truth values are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def refuse(name: str, value: object, wanted: str) -> NoReturn:
    """Raise the error of a field that is missing or of another type.

    Raises:
        RowError: MISSING_FIELD for null or nothing, else UNREADABLE_ROW.
    """
    if value is None:
        raise RowError(RejectReason.MISSING_FIELD, f"{name} is missing")
    raise RowError(RejectReason.UNREADABLE_ROW, f"{name} is {shown(value)}; it should be {wanted}")


def shown(value: object) -> str:
    """Return a value as messages show it: the beginning of a text, a small number, else the type."""
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARS])
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_INTEGER):
        return repr(value)
    return f"a {type(value).__name__}"
