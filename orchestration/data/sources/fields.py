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
        """Give the value as it stands, None where there is none."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        """Give a text; numbers are no text here."""
        value = self.raw(name)
        return value if isinstance(value, str) else refuse(name, value, "a text")

    def text_or(self, name: str, default: str = "") -> str:
        """Give a text, or `default` where the field is absent or null."""
        return default if self.raw(name) is None else self.text(name)

    def answer(self, name: str) -> str:
        """Give a text, number or truth value as an answer is written."""
        return as_answer(self.raw(name), name)

    def integer(self, name: str) -> int:
        """Give a whole number, also one that is written 3.0 or "3"."""
        return as_integer(self.raw(name), name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Give a list of texts; numbers in it are written out."""
        return as_texts(self.raw(name), name)

    def label(self, name: str) -> str:
        """Give a metadata value as text, empty where there is none or it is no plain value: no reason to lose a row."""
        value = self.raw(name)
        try:
            return as_answer(value, name)
        except RowError:
            return ""


def as_fields(value: object) -> Fields:
    """Take a raw row that must be an object with named fields."""
    if not isinstance(value, Mapping):
        raise RowError(RejectReason.UNREADABLE_ROW, f"the row is {shown(value)}, no object with named fields")
    return Fields(value)


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
    """Tell numbers from truth values, texts and the rest."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def refuse(name: str, value: object, wanted: str) -> NoReturn:
    """Say that a field is missing or of another type.

    Raises:
        RowError: MISSING_FIELD for null or nothing, else UNREADABLE_ROW.
    """
    if value is None:
        raise RowError(RejectReason.MISSING_FIELD, f"{name} is missing")
    raise RowError(RejectReason.UNREADABLE_ROW, f"{name} is {shown(value)}; it should be {wanted}")


def shown(value: object) -> str:
    """Write a value for a message: type, and the beginning of texts and small numbers."""
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARS])
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_INTEGER):
        return repr(value)
    return f"a {type(value).__name__}"
