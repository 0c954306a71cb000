"""Answers that differ from a reference in value: what a reward must not pay, by function."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rewards.core.base import RewardRequest
from rewards.core.config import ChartConfig, PointingConfig
from rewards.core.frames import Box
from rewards.core.parts import Part
from rewards.functions.caption_words import words_of
from rewards.functions.chart import YEARS
from rewards.functions.grounding import gold_entries
from rewards.functions.matching import kind_of
from rewards.text.boxes import BoxEntry
from rewards.text.choices import Choices
from rewards.text.number_words import in_digits
from rewards.text.plain_text import accepted_texts, clean, normalise, read_list, split_items
from rewards.text.yes_no import read_yes_no

NOTHING: Final = 1e-6
"""The most that a changed value may earn where its reward pays all or nothing; above 0 for sums of floats."""
LESS_THAN_ALL: Final = 1.0 - 1e-6
"""The same of rewards that pay a part for what is near: edit distance (ocr, charts with anls), distance to a point,
and boxes in an image without room for another box."""
UNRELATED: Final = 0.5
"""The most that an unrelated text may earn as a description."""
_NUMBER = re.compile(
    r"[0-9]{1,3}(?:[ ,\u00a0\u2009\u202f][0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
)
_SEPARATOR = re.compile("[^0-9.]")
_TO_THE_ZERO = re.compile(r"\^\s*\{?\s*0(?![.0-9])")
"""What makes any number 1."""
_INFINITE = re.compile(r"\\infty|\u221e|\binf", re.IGNORECASE)
"""What a number added to it leaves as it is."""
_YEAR = re.compile(r"\s*[0-9]{4}\s*")
_WORDS = ("zebra", "umbrella", "violin", "teapot")
_UNRELATED = (
    "purple",
    "umbrellas",
    "dangle",
    "marble",
    "staircases",
    "frozen",
    "volcanoes",
    "swallow",
    "copper",
    "violins",
)
"""Words of a text about something else, of which those are taken that a reference does not hold."""
_EMPTY_BOX: Box = (0.0, 0.0, 10.0, 10.0)
"""What an answer claims to see where there is nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """An answer of another value than the reference."""

    answer: str
    most: float
    """The largest value that it may earn."""


def changes_of(request: RewardRequest, part: Part) -> list[Change]:
    """Return answers that differ from the reference of a request by more than any tolerance of a function.

    | function | changed answer | may earn |
    |---|---|---|
    | matching | every other letter, a letter less; the other of yes and no; a number moved, or another word | 0 |
    | chart | a number moved, the year after, the other of yes and no, another word; one item of a list | 0 |
    | counting, math | a number moved; a formula without numbers plus 1 | 0 |
    | grounding | each box moved off all reference boxes; where there is no room, a corner of each | 0; less than 1 |
    | pointing | a point for each box, in none of them | 0; less than 1 with `distance` |
    | reading | a number moved, or another word | less than 1 |
    | open_ended | words that it does not hold | 0.5 |

    Raises:
        GoldError: There are no boxes in the reference of a task that needs them, or no such options.

    Example:
        >>> from rewards.core.config import RewardConfig
        >>> part = RewardConfig().route("chart").parts[0]
        >>> changes_of(RewardRequest(task="chart", question="", response="", answer="45%"), part)
        [Change(answer='136%', most=1e-06)]
    """
    match part.function:
        case "matching":
            return [Change(answer, NOTHING) for answer in _other_matches(request)]
        case "chart":
            is_soft = isinstance(part.parameters, ChartConfig) and part.parameters.anls
            answer = _other_chart(request.answer, request.answer_type)
            return [Change(answer, LESS_THAN_ALL if is_soft else NOTHING)]
        case "counting":
            return [Change(_other_number(_first_accepted(request.answer), request.answer), NOTHING)]
        case "reading":
            return [Change(_other_text(_first_accepted(request.answer), request.answer), LESS_THAN_ALL)]
        case "math":
            return [Change(_other_formula(request.answer), NOTHING)]
        case "grounding":
            return [_other_boxes(gold_entries(request), request)]
        case "pointing":
            is_soft = isinstance(part.parameters, PointingConfig) and part.parameters.distance
            return [Change(_other_points(gold_entries(request), request), LESS_THAN_ALL if is_soft else NOTHING)]
        case "open_ended":
            words = set(words_of(request.answer))
            return [Change(" ".join(word for word in _UNRELATED if word not in words) or "nothing", UNRELATED)]
    return []


def moved_number(text: str, numbers: Sequence[float], step: int = 0) -> str | None:
    """Return a text with its first number replaced by one that is larger than three times all of `numbers`.

    Args:
        text: None of its other numbers changes.
        numbers: All numbers of the reference, so that no other item of a list is met by chance.
        step: If above 0, the number is the largest of `numbers` plus this.

    Returns:
        None where the text has no digits.

    Example:
        >>> moved_number("$1,200 in total", [1200.0]), moved_number("2015", [2015.0], step=1), moved_number("x", [])
        ('$3601 in total', '2016', None)
    """
    found = _NUMBER.search(text)
    if found is None:
        return None
    other = math.ceil(max(numbers, default=0.0)) + step if step else _beyond(numbers)
    return f"{text[: found.start()]}{other}{text[found.end() :]}"


def _beyond(numbers: Sequence[float]) -> int:
    return 3 * math.ceil(max(numbers, default=0.0)) + 1


def _numbers(text: str) -> list[float]:
    """Return the numbers of a text in digits and words, without signs; those that overflow are left out."""
    found = [float(_SEPARATOR.sub("", digits)) for one in (text, _in_digits(text)) for digits in _NUMBER.findall(one)]
    return [number for number in found if math.isfinite(number)]


def _in_digits(text: str) -> str:
    return in_digits(normalise(text))


def _first_accepted(reference: str) -> str:
    return next(iter(accepted_texts(reference)), reference)


def _other_text(text: str, reference: str) -> str:
    """Return a text with its number moved, or another word where it has none.

    Args:
        text: One of the accepted answers.
        reference: All of them.
    """
    numbers = _numbers(reference)
    moved = moved_number(text, numbers) or moved_number(_in_digits(text), numbers)
    return _other_word(reference) if moved is None else moved


def _other_number(text: str, reference: str) -> str:
    """Return another number or word for one that may say beside which others it stands: `2015: 45`."""
    numbers = _numbers(reference)
    return str(_beyond(numbers)) if len(_NUMBER.findall(text)) > 1 else _other_text(text, reference)


def _other_word(reference: str) -> str:
    return next((word for word in _WORDS if word not in reference.casefold()), _WORDS[0])


def _other_matches(request: RewardRequest) -> Iterator[str]:
    kind = kind_of(request)
    if kind == "match_mcq":
        yield from _other_letters(Choices(request.options, request.answer).gold, len(request.options))
    elif kind == "match_yesno":
        yield from _other_label(request.answer)
    else:
        yield _other_text(_first_accepted(request.answer), request.answer)


def _other_letters(gold: frozenset[str], num_options: int) -> Iterator[str]:
    """Yield every other letter; of several right ones, all but one, and one exchanged."""
    others = [chr(ord("A") + place) for place in range(num_options or 26) if chr(ord("A") + place) not in gold]
    if len(gold) == 1:
        yield from others
        return
    rest = sorted(gold)[1:]
    yield ", ".join(rest)
    if others:
        yield ", ".join(sorted([*rest, others[0]]))


def _other_label(reference: str) -> Iterator[str]:
    label, _ = read_yes_no(reference)
    if label is not None:
        yield "no" if label else "yes"


def _other_chart(reference: str, answer_type: str) -> str:
    items = read_list(reference) if answer_type in ("", "list") else None
    if answer_type == "list" and items is None:
        items = split_items(reference, None)
    if items:
        return json.dumps([_other_item(items[0], "", reference), *items[1:]], ensure_ascii=False)
    return _other_item(reference, answer_type, reference)


def _other_item(text: str, answer_type: str, reference: str) -> str:
    """Return another value of the type of one item of a chart's reference."""
    if answer_type in ("", "bool") and normalise(text) in ("yes", "no", "true", "false"):
        return next(_other_label(text))
    is_bare_year = _YEAR.fullmatch(text) is not None and YEARS[0] <= int(text) <= YEARS[1]
    if answer_type == "year" or (not answer_type and is_bare_year):
        year = moved_number(text, _numbers(reference), step=1)
        if year is not None:
            return year
    return _other_number(text, reference)


def _other_formula(reference: str) -> str:
    if _INFINITE.search(reference) is not None:
        return "7"
    is_moved = _TO_THE_ZERO.search(reference) is None
    moved = moved_number(reference, _numbers(reference)) if is_moved else None
    return f"{clean(reference)}+1" if moved is None else moved


def _other_boxes(entries: Sequence[BoxEntry], request: RewardRequest) -> Change:
    if not entries:
        return Change(json.dumps([_EMPTY_BOX]), NOTHING)
    boxes = [entry.box for entry in entries if entry.box is not None]
    places = [_elsewhere(box, boxes, request) for box in boxes]
    moved = [place or _corner_of(box) for box, place in zip(boxes, places, strict=True)]
    spelled = [
        {"bbox_2d": box, "label": entry.label} if entry.label else box
        for box, entry in zip(moved, entries, strict=True)
    ]
    return Change(json.dumps(spelled, ensure_ascii=False), LESS_THAN_ALL if None in places else NOTHING)


def _other_points(entries: Sequence[BoxEntry], request: RewardRequest) -> str:
    """Return points in none of the boxes; outside of the image where it has no room."""
    boxes = [entry.box for entry in entries if entry.box is not None] or [_EMPTY_BOX]
    outside = max(box[2] for box in boxes) + 10.0, max(box[3] for box in boxes) + 10.0
    places = [_elsewhere(box, boxes, request) if entries else box for box in boxes]
    points = [outside if place is None else ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2) for place in places]
    return json.dumps(points)


def _elsewhere(box: Box, boxes: Sequence[Box], request: RewardRequest) -> Box | None:
    """Return a box of the same size within the image that overlaps none of `boxes`; None where none was found."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    right, bottom = request.image_sizes[0] if request.image_sizes else (math.inf, math.inf)
    corners = [(x, y) for x in (0.0, right - width) for y in (0.0, bottom - height)]
    beside = [(x1 + width, y1), (x1 - width, y1), (x1, y1 + height), (x1, y1 - height)]
    for x, y in (*corners, *beside):
        place = (x, y, x + width, y + height)
        is_inside = x >= 0.0 and y >= 0.0 and place[2] <= right and place[3] <= bottom and math.isfinite(x + y)
        if is_inside and not any(_overlap(place, other) for other in boxes):
            return place
    return None


def _overlap(left: Box, right: Box) -> bool:
    return left[0] < right[2] and right[0] < left[2] and left[1] < right[3] and right[1] < left[3]


def _corner_of(box: Box) -> Box:
    """Return the upper left sixteenth of a box."""
    x1, y1, x2, y2 = box
    return x1, y1, x1 + (x2 - x1) / 4, y1 + (y2 - y1) / 4
