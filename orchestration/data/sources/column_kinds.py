"""What the columns of raw rows hold: turns, images, boxes, texts, numbers; and values shortened for messages."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestration.data.sources.answers import between_tags
from orchestration.data.sources.fields import is_encoded, is_missing, is_number
from orchestration.data.sources.option_lists import written_list
from orchestration.data.sources.turns import spoken_turns

Kind = Literal["turns", "image", "images", "box", "boxes", "texts", "objects", "object", "text", "number", "truth"]
SHOWN_CHARS = 60
MAX_LOOKED_AT = 2_000
"""Characters of a text that decide what it is."""
_PICTURE = re.compile(r"[^\n]{1,1000}\.(?:png|jpe?g|webp|bmp|gif|tiff?|avif|heic)", re.IGNORECASE)
_SMALL_FIRST = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Column:
    """One field of the rows, of themselves or of an object in them."""

    steps: tuple[str, ...]
    values: tuple[object, ...]
    """One by row; None where a row lacks it."""
    kinds: Counter[Kind] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The path, for messages."""
        return ".".join(self.steps)

    @property
    def present(self) -> list[object]:
        """The values that are there: not null, no empty text and no empty list."""
        return [value for value in self.values if not is_absent(value)]

    @property
    def is_whole(self) -> bool:
        """Whether each row has a value."""
        return len(self.present) == len(self.values)

    def is_mostly(self, *kinds: Kind) -> bool:
        """Return whether more than half of the values are of these kinds."""
        return 2 * sum(self.kinds[kind] for kind in kinds) > len(self.present) > 0

    def path(self, *more: str, may_lack: bool = False) -> str | list[str]:
        """Return how a mapping names the field; as steps where a name holds dots."""
        steps = [*self.steps, *more]
        if any("." in step or step.endswith("?") or not step for step in steps):
            return steps
        return ".".join(steps) + ("?" if may_lack else "")


def columns_of(rows: Sequence[Mapping[str, object]]) -> list[Column]:
    """Return the fields of rows in their order, and those of objects in them behind.

    Example:
        >>> [column.name for column in columns_of([{"q": "Why?", "meta": {"answer": 3}}])]
        ['q', 'meta', 'meta.answer']
    """
    outer = [_column((name,), [row.get(name) for row in rows]) for name in _names(rows)]
    inner = []
    for column in outer:
        if column.is_mostly("object"):
            objects = [value if isinstance(value, Mapping) else {} for value in column.values]
            inner += [_column((*column.steps, name), [one.get(name) for one in objects]) for name in _names(objects)]
    return [*outer, *inner]


def plain_name(name: str) -> str:
    """Return a name in small letters with `_` between words.

    Example:
        >>> plain_name("correctAnswer"), plain_name("Image-Path")
        ('correct_answer', 'image_path')
    """
    return re.sub(r"[\s\-]+", "_", _SMALL_FIRST.sub("_", name.strip())).lower()


def kind_of(value: object) -> Kind | None:
    """Return what a value is; None for no value and what is not known."""
    if is_absent(value):
        return None
    if isinstance(value, str):
        return _kind_of_text(value)
    if isinstance(value, bytes):
        return "image"
    if isinstance(value, bool):
        return "truth"
    if is_number(value):
        return "number"
    if isinstance(value, Mapping):
        return "image" if is_image(value) else "object"
    return _kind_of_list(value) if isinstance(value, (list, tuple)) else None


def is_absent(value: object) -> bool:
    """Return whether a value says nothing."""
    return is_missing(value) or (isinstance(value, (str, list, tuple)) and not value)


def is_image(value: object) -> bool:
    """Return whether a value is an image: bytes, a struct of bytes and path, base64, or the name of a picture."""
    if isinstance(value, Mapping):
        return set(value) <= {"bytes", "path", "url"} and any(value.get(key) for key in ("bytes", "path", "url"))
    if isinstance(value, bytes):
        return True
    return isinstance(value, str) and (_PICTURE.fullmatch(value) is not None or is_encoded(value))


def shortened(value: object) -> str:
    """Return a value for messages: a text by its beginning, what is long or binary by type and size.

    Example:
        >>> shortened("a" * 100)[-15:], shortened({"bytes": b"123", "path": None}), shortened([1, 2])
        ('... (100 chars)', 'an image of 3 bytes', 'a list of 2: 1, ...')
    """
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        if is_encoded(value):
            return f"base64 of {len(value)} characters"
        return repr(value) if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]!r}... ({len(value)} chars)"
    if isinstance(value, Mapping):
        data = value.get("bytes")
        if isinstance(data, bytes):
            return f"an image of {len(data)} bytes"
        return "an object with " + ", ".join(map(str, list(value)[:8])) if value else "an empty object"
    if isinstance(value, (list, tuple)):
        if not value:
            return "an empty list"
        return f"a list of {len(value)}: {shortened(value[0])}" + (", ..." if len(value) > 1 else "")
    return repr(value)[:SHOWN_CHARS]


def turns_of(value: object) -> list[tuple[str, object]]:
    """Return role and content of each turn of a conversation; empty where the value is none."""
    if isinstance(value, str) and (text := value).lstrip().startswith("[{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = written_list(text)
    if not isinstance(value, (list, tuple)):
        return []
    return [(role, content) for role, content in spoken_turns(value) or [] if content is not None]


def boxes_of(value: object) -> list[list[float]]:
    """Return the four numbers of each box in a value: one box, a list, objects with `bbox`, or the text of these."""
    if isinstance(value, str):
        text = between_tags(value[:MAX_LOOKED_AT]).strip().removeprefix("```json").strip("`\n ")
        value = written_list(text)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return []
    if len(value) == 4 and all(is_number(one) for one in value):
        return [list(value)]
    found = [one.get("bbox_2d", one.get("bbox")) if isinstance(one, Mapping) else one for one in value]
    are_boxes = all(isinstance(one, (list, tuple)) and len(one) == 4 and all(map(is_number, one)) for one in found)
    return [list(one) for one in found] if found and are_boxes else []


def _names(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if isinstance(name, str)))


def _column(steps: tuple[str, ...], values: Sequence[object]) -> Column:
    kinds = Counter(kind for kind in map(kind_of, values) if kind is not None)
    return Column(steps, tuple(values), kinds)


def _kind_of_text(text: str) -> Kind:
    if is_image(text):
        return "image"
    if text.lstrip().startswith("[") and (items := written_list(text)) and all(map(is_image, items)):
        return "images"
    if turns_of(text):
        return "turns"
    if text.lstrip().startswith(("[", "<answer>", "```json", "<think>")) and (boxes := boxes_of(text)):
        return "box" if len(boxes) == 1 else "boxes"
    return "text"


def _kind_of_list(value: Sequence[object]) -> Kind | None:
    if turns_of(value):
        return "turns"
    boxes = boxes_of(value)
    if boxes:
        return "box" if len(boxes) == 1 and is_number(value[0]) else "boxes"
    if any(map(is_image, value)) and all(is_image(item) or item is None for item in value):
        return "images"
    if all(isinstance(item, str) or is_number(item) or item is None for item in value):
        return "texts"
    return "objects" if all(isinstance(item, Mapping) for item in value) else None
