"""Boxes in text: JSON under any key, code fences, bracketed numbers or two corner points in prose.

A malformed entry stays an entry (None): it is a guess that cannot be right. Nothing is evaluated or repaired.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewards.core.frames import Box
from rewards.text.denial import is_number_denied, is_pointed_away, says_none
from rewards.text.number_words import says_none_in_chinese
from rewards.text.plain_text import normalise, unify

BOX_KEYS = ("bbox_2d", "bbox", "box", "bboxes", "boxes", "bounding_box", "bounding_boxes", "coordinates", "coords")
LABEL_KEYS = ("label", "name", "category", "class", "object", "phrase", "class_name", "type", "text")
CORNER_KEYS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
    ("top_left", "bottom_right"),
    ("topLeft", "bottomRight"),
)
SIZE_KEYS = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    *((x, y, "width", "height") for x, y in (("x_min", "y_min"), ("xmin", "ymin"))),
)
CONTAINER_KEYS = frozenset(
    (
        "objects",
        "detections",
        "results",
        "result",
        "predictions",
        "annotations",
        "answer",
        "output",
        "instances",
        "items",
    )
)
"""Keys over boxes that do not name their content; any other key is a label."""
MAX_WORDS_CHARS = 100
"""Longest text that may claim in words that there is nothing."""
MAX_DEPTH = 4
"""Deepest nesting that is read: an answer, its objects, an object, its box."""
_EMPTY = re.compile(
    r"(?:there\s+(?:is|are)\s+)?(?:none|null|nothing|no\s+(?:(?:bounding\s+)?box(?:es)?|objects?|points?))"
    r"|(?:(?:the|any|such|an?)\s+(?:[\w-]+\s+){1,4}?(?:is|are|was|were|can(?:not|\s+not)\s+be)\s+(?:not\s+)?)?"
    r"(?:not\s+|(?<=not\s)|(?<=not\sbe\s))(?:present|visible|found|detected|shown|seen|there|in)"
    r"(?:\s+(?:in|on)\s+(?:the|this)\s+\w+|\s+(?:the|this)\s+\w+)?"
    r"|(?:the|such|an?)\s+(?:[\w-]+\s+){1,4}?(?:does|do)(?:\s+not|n't)\s+(?:exist|appear)(?:\s+in\s+(?:the|this)\s+(?:image|picture|photo|scene|frame))?"
    # There is none, not found, detected or discovered.
    "|\u6ca1\u6709|\u65e0|\u672a(?:\u627e|\u68c0\u6d4b|\u53d1\u73b0)\u5230?",
    re.IGNORECASE,
)
"""Words that claim, as an empty list does, that there is nothing to find."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,32}(?:\.[0-9]{0,32})?|\.[0-9]{1,32})(?:[eE][-+]?[0-9]{1,4})?")
_PLAIN = re.compile(r"\[\s*(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)" + r"\s*,\s*(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)" * 3 + r"\s*\]")
"""One box and nothing else, as most answers and references are: read as by the JSON parser, and twice as fast."""
_ONE = r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_BARE = re.compile(rf"\s*{_ONE}" + rf"\s*,\s*{_ONE}" * 3 + r"\s*\.?\s*")
"""Four numbers without brackets."""
_NAMED = re.compile(
    rf"(?:x_?min|x1|left)\s*[:=]\s*{_ONE}(?:[,;\s]|-\s)+(?:y_?min|y1|top)\s*[:=]\s*{_ONE}(?:[,;\s]|-\s)+"
    rf"(?:x_?max|x2|right)\s*[:=]\s*{_ONE}(?:[,;\s]|-\s)+(?:y_?max|y2|bottom)\s*[:=]\s*{_ONE}",
    re.IGNORECASE,
)
"""`x1=10, y1=10, x2=50, y2=50`."""
_NAMED_SIZE = re.compile(
    rf"\bx\s*[:=]\s*{_ONE}[,;\s]+y\s*[:=]\s*{_ONE}[,;\s]+w(?:idth)?\s*[:=]\s*{_ONE}[,;\s]+h(?:eight)?\s*[:=]\s*{_ONE}",
    re.IGNORECASE,
)
_NAMES = re.compile(r"^[(\[]?x1,\s*y1,\s*x2,\s*y2[)\]]?\s*[:=]\s*", re.IGNORECASE)
_LABELLED_LINE = re.compile(rf"^([-*\s]*[^\W\d_][^\n:,\[\](){{}}]*:\s*)({_BARE.pattern.strip()})$", re.MULTILINE)
"""`dog: 10, 10, 50, 50`."""
_BOXED = re.compile(r"\$*\\boxed\{([^{}]*)\}\$*\.?")
_TO_CORNER = re.compile(
    r"\s*,?\s*(?:(?:to|and|through|-+>?|\u2192)\s*)?(?:(?:the\s+)?(?:bottom|lower)[\s-]right(?:\s+corner)?\s*(?:at|is|=|:)?\s*)?",
    re.IGNORECASE,
)
"""Between two corner points of one box."""
_NOT_NUMBERS = frozenset(
    ("nan", "-nan", "inf", "-inf", "+inf", "infinity", "-infinity", "true", "false", "null", "none")
)
_REFERENCE = re.compile(r"<ref>([^<>]{1,256})</ref>|<\|object_ref_start\|>([^<>]{1,256})<\|object_ref_end\|>")
"""Special tokens of InternVL and Qwen-VL around labels and boxes."""
_BETWEEN_OBJECTS = re.compile(r"\}\s*,?\s*\{")
_TAGGED_NUMBERS = re.compile(r"<(b?box|quad)>([^<>\[\](){}]*)</\1>")
_FRAME_MARKS = re.compile(r"</?(?:b?box|quad)>|<\|(?:box|quad)_(?:start|end)\|>")
"""Their special tokens around coordinates, which the brackets make redundant."""
_REFERENCE_MARKS = re.compile(r"</?ref>|<\|object_ref_(?:start|end)\|>")
_LETTER = re.compile(r"[^\W\d_]")
_CLAUSE = re.compile(r"[,.;:\n\[\](){}<>]")
_OPENING_WORDS = frozenset(
    ("a", "an", "the", "and", "is", "are", "of", "there", "one", "two", "my", "see", "-", "*", "\u2022")
)
_CLOSING_WORDS = frozenset(("is", "are", "at", "in", "located", "found", "box", "boxes", "bbox", "-", "=", "=>", "->"))
_CLOSING = {"[": "]", "(": ")", "{": "}"}


class BoxEntry(NamedTuple):
    """One guess: a box, or None where the entry is malformed, with its label if it has one."""

    box: Box | None
    label: str | None = None


def without_marks(text: str) -> str:
    """Return the text without the special tokens with which models mark objects and coordinates.

    Example:
        >>> without_marks("<ref>the dog</ref>")
        'the dog'
    """
    return _REFERENCE_MARKS.sub("", _FRAME_MARKS.sub("", text)) if "<" in text else text


def says_nothing(text: str) -> bool:
    """Return whether a text claims in words that there is nothing to find: `none`, `There is none.`."""
    if text[:1] in ("[", "{", "0") or len(text) > MAX_WORDS_CHARS:
        return False
    bare = text.strip(" .!*`")
    return _EMPTY.fullmatch(bare) is not None or says_none_in_chinese(bare) or says_none(normalise(text))


def parse_boxes(text: str) -> list[BoxEntry] | None:
    """Read all boxes of a text.

    Args:
        text: Of capped length; time is linear in it.

    Returns:
        One entry per guess, in order; empty only for an explicit empty list or `none`; None if there is no guess.

    Example:
        >>> parse_boxes('[{"bbox_2d": [0, 0, 10, 10], "label": "dog"}]')
        [BoxEntry(box=(0.0, 0.0, 10.0, 10.0), label='dog')]
        >>> parse_boxes("[]"), parse_boxes("banana")
        ([], None)
    """
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        x1, y1, x2, y2 = plain.groups()
        return [BoxEntry((float(x1), float(y1), float(x2), float(y2)))]
    text = _unfence(text if text.isascii() else unify(text))
    text = _FRAME_MARKS.sub("", _TAGGED_NUMBERS.sub(r"[\2]", text)) if "<" in text else text
    if "=" in text or ":" in text:
        text = _NAMED_SIZE.sub(_from_size, _NAMED.sub(r"[\1, \2, \3, \4]", _NAMES.sub("", text)))
        text = _LABELLED_LINE.sub(r"\1[\3, \4, \5, \6]", text)
    if says_nothing(text):
        return []
    bare = [_BARE.fullmatch(line) for line in text.splitlines()]
    if bare and None not in bare:
        return [BoxEntry(_box([float(number) for number in line.groups()])) for line in bare if line is not None]
    value = read_json(text)
    if isinstance(value, dict):
        return _entries_of_dict(value)
    if isinstance(value, list):
        return _entries_of_list(value)
    return _scan(text) if value is NOT_JSON else None


NOT_JSON = object()


def read_json(text: str) -> object:
    """Return a text parsed as JSON, also with single quotes or one object a line; else NOT_JSON."""
    if text[:1] not in tuple('[{-0123456789"tfn'):
        return NOT_JSON
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if text[:1] not in ("[", "{") or not ("'" in text or text.startswith("{")):
        return NOT_JSON
    if "'" in text and '"' not in text:
        text = text.replace("'", '"')
    try:
        return json.loads(text if text.startswith("[") else f"[{_BETWEEN_OBJECTS.sub('},{', text)}]")
    except (ValueError, RecursionError):
        return NOT_JSON


def _unfence(text: str) -> str:
    """Return the body of the only code fence, or the stripped text."""
    text = text.strip()
    boxed = _BOXED.fullmatch(text)
    text = text if boxed is None else boxed[1].strip()
    if text.count("```") == 2:
        start = text.index("```") + 3
        body = text[start : text.rindex("```")].strip()
        return body[4:].strip() if body[:4].lower() == "json" else body
    return text


def _entries_of_list(values: list[object], label: str | None = None, depth: int = 0) -> list[BoxEntry]:
    """Return the boxes of a list: of numbers (one box), of two corner points (one box), of boxes, or of objects."""
    values = _as_points(values)
    if values and not any(isinstance(value, (list, dict)) for value in values):
        return [BoxEntry(_box(values), label)]
    if _is_corner_pair(values):
        return [BoxEntry(_box(values), label)]
    entries: list[BoxEntry] = []
    for value in values:
        if isinstance(value, dict):
            entries.extend(_entries_of_dict(value, label, depth + 1))
        else:
            entries.append(BoxEntry(_box(value), label))
    return entries


def _entries_of_dict(value: dict[str, object], label: str | None = None, depth: int = 0) -> list[BoxEntry]:
    """Return the boxes of an object: under a box key with its label, as four corners, or under keys that are labels."""
    names = {key: _sole(value[key]) for key in LABEL_KEYS if key in value}
    named = next((name for name in names.values() if isinstance(name, str)), label)
    label = named if isinstance(named, str) else None
    if depth > MAX_DEPTH:
        return [BoxEntry(None, label)]
    key = next((key for key in BOX_KEYS if key in value), None)
    if key is not None:
        boxes, labels = value[key], value.get("labels")
        entries = _entries_of(boxes, label, depth)
        if isinstance(labels, list) and len(labels) == len(entries):
            return [
                BoxEntry(entry.box, name if isinstance(name, str) else None)
                for entry, name in zip(entries, labels, strict=True)
            ]
        return entries
    for keys in SIZE_KEYS:
        if all(name in value for name in keys):
            x, y, width, height = (_finite(value[name]) for name in keys)
            if x is None or y is None or width is None or height is None:
                return [BoxEntry(None, label)]
            return [BoxEntry((x, y, x + width, y + height), label)]
    for corners in CORNER_KEYS:
        if all(corner in value for corner in corners):
            return [BoxEntry(_box([value[corner] for corner in corners]), label)]
    entries = []
    num_lists = 0
    for key, item in value.items():
        if isinstance(item, (list, dict)):
            num_lists += 1
            entries.extend(_entries_of(item, label if key.casefold() in CONTAINER_KEYS else key, depth))
    return entries if entries or num_lists == 1 else [BoxEntry(None, label)]


def _from_size(match: re.Match[str]) -> str:
    """Return the box of a corner and a size."""
    x, y, width, height = (float(number) for number in match.groups())
    return f"[{x}, {y}, {x + width}, {y + height}]"


def _as_points(values: list[object]) -> list[object]:
    """Return a list with points that are objects as pairs: `{"x": 1, "y": 2}`."""
    return [
        [value["x"], value["y"]] if isinstance(value, dict) and value.keys() == {"x", "y"} else value
        for value in values
    ]


def _sole(value: object) -> object:
    """Return the member of a list of one, anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _entries_of(value: object, label: str | None, depth: int) -> list[BoxEntry]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = read_json(value.strip())
    if isinstance(value, dict):
        return _entries_of_dict(value, label, depth + 1)
    return _entries_of_list(value, label, depth) if isinstance(value, list) else [BoxEntry(None, label)]


def _is_corner_pair(value: object) -> bool:
    """Return whether a JSON value is two corner points: `[[x1, y1], [x2, y2]]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(corner, list) and len(corner) == 2 for corner in value)
        and not any(isinstance(item, (list, dict)) for corner in value for item in corner)
    )


def _box(value: object) -> Box | None:
    """Return the box that a JSON value spells, or None unless it is four finite numbers, or two points of them."""
    value = _as_points(value) if isinstance(value, list) and len(value) == 2 else value
    if isinstance(value, list) and len(value) == 2 and _is_corner_pair(value):
        value = [item for corner in value for item in corner]
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_finite(item) for item in value]
    x1, y1, x2, y2 = numbers
    return None if x1 is None or y1 is None or x2 is None or y2 is None else (x1, y1, x2, y2)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class _Group:
    """Numbers between one pair of brackets; None for a word that is no finite number."""

    start: int
    end: int
    opening: str
    numbers: tuple[float | None, ...]


def _scan(text: str) -> list[BoxEntry] | None:
    """Read the innermost brackets that hold nothing but numbers; one left open at the end is a malformed guess."""
    groups: list[_Group] = []
    opened = -1
    for at, char in enumerate(text):
        if char in _CLOSING:
            opened = at
        elif opened >= 0 and char == _CLOSING[text[opened]]:
            # CogVLM writes the boxes of one phrase between one pair of brackets, with semicolons.
            parts = [_numbers(part) for part in text[opened + 1 : at].split(";")]
            if None not in parts:
                groups.extend(_Group(opened, at + 1, text[opened], numbers) for numbers in parts if numbers is not None)
            opened = -1
    if groups and is_number_denied("", text[groups[-1].end :][:MAX_WORDS_CHARS].casefold()):
        return None
    entries = _entries_of_groups(groups, text)
    if opened >= 0 and _numbers(text[opened + 1 :].rstrip(", ")) is not None:
        entries.append(BoxEntry(None))
    return entries or None


def _entries_of_groups(groups: Sequence[_Group], text: str) -> list[BoxEntry]:
    """Make one entry per group, or per two corner points `(x1, y1), (x2, y2)`; a reference before it is its label."""
    labels = [(match.end(), (match[1] or match[2]).strip()) for match in _REFERENCE.finditer(text)]
    entries: list[BoxEntry] = []
    at, next_label, label = 0, 0, None
    while at < len(groups):
        group = groups[at]
        while next_label < len(labels) and labels[next_label][0] <= group.start:
            label = labels[next_label][1]
            next_label += 1
        if not labels:
            said = text[max(groups[at - 1].end if at else 0, group.start - 100) : group.start].rstrip("[( ")
            label = _named_before(said) if _LETTER.search(said) else label
        before = text[max(groups[at - 1].end if at else 0, group.start - 100) : group.start]
        if is_pointed_away(before, text[group.end : group.end + 40]):
            at += 1
            continue
        follower = groups[at + 1] if at + 1 < len(groups) else None
        if follower is not None and _are_corners(group, follower, text):
            entries.append(BoxEntry(_box([*group.numbers, *follower.numbers]), label))
            at += 2
        else:
            entries.append(BoxEntry(_box(list(group.numbers)), label))
            at += 1
    return entries


def _named_before(text: str) -> str | None:
    """Return the name of the object whose box comes next: `dog` of `a dog [[..]]` and of `the dog: [..]`."""
    clauses = [clause.split() for clause in _CLAUSE.split(text) if clause.strip()]
    words = clauses[-1] if clauses else []
    while words and words[-1].casefold() in _CLOSING_WORDS:
        words = words[:-1]
    openings = [place for place, word in enumerate(words) if word.casefold() in _OPENING_WORDS]
    return " ".join(words[openings[-1] + 1 if openings else 0 :]).strip("\"'*` ") or None


def _are_corners(first: _Group, second: _Group, text: str) -> bool:
    """Return whether two groups are the corners of one box: `(x1, y1), (x2, y2)`, or `[[x1, y1], [x2, y2]]`."""
    between = text[first.end : second.start]
    if len(first.numbers) != 2 or len(second.numbers) != 2 or len(between) > 40:
        return False
    if first.opening == second.opening == "(":
        return _TO_CORNER.fullmatch(between) is not None
    if between.strip() not in ("", ","):
        return False
    opened, closed = text[max(0, first.start - 3) : first.start], text[second.end : second.end + 3]
    return opened.rstrip().endswith("[") and closed.lstrip().startswith("]")


def _numbers(body: str) -> tuple[float | None, ...] | None:
    """Return the numbers of a bracket's body; None if there is anything else in it."""
    parts = [part.strip() for part in body.split(",")] if "," in body else body.split() or [""]
    if not all(_NUMBER.fullmatch(part) or part.casefold() in _NOT_NUMBERS for part in parts):
        return None
    return tuple(float(part) if _NUMBER.fullmatch(part) else None for part in parts)
