"""Lists in short answers: reading `[Brazil, India]` or `India and Brazil`, and pairing items whatever their order."""

import json
import re
from collections.abc import Sequence

from rewards.plain_text import clean

_COMMAS = re.compile(r"\s*[;\n]\s*|,\s+(?:and\s+)?|,(?![0-9]{3}(?![0-9]))")
_COMMAS_AND = re.compile(r"\s*[;\n]\s*|,\s+(?:and\s+)?|,(?![0-9]{3}(?![0-9]))|\s+and\s+|\s*&\s*", re.IGNORECASE)
_ALL_COMMAS = re.compile(r"\s*[,;\n]\s*")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|[0-9]{1,2}[.)])\s+", re.MULTILINE)


def read_list(text: str) -> list[str] | None:
    """Give the items of a bracketed list, or None if the text is not one.

    Args:
        text: Of capped length; JSON or bare words between square brackets.

    Example:
        >>> read_list('["a, b", 3]'), read_list("[Brazil, India]"), read_list("Brazil")
        (['a, b', '3'], ['Brazil', 'India'], None)
    """
    text = clean(text)
    if not (text.startswith("[") and text.endswith("]")):
        return None
    if '"' in text:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, list) and not any(isinstance(value, (list, dict)) for value in values):
            return [value if isinstance(value, str) else json.dumps(value) for value in values]
    return split_items(text, None)


def accepted_texts(reference: str) -> list[str]:
    """Give the texts that a reference accepts: itself, or the members of the JSON list that it is.

    Example:
        >>> accepted_texts("3"), accepted_texts('["cat", 3]')
        (['3'], ['cat', '3'])
    """
    if reference.lstrip().startswith("["):
        try:
            values = json.loads(reference)
        except (ValueError, RecursionError):
            return [reference]
        if not any(isinstance(value, (list, dict)) or value is None for value in values):
            return [str(value) for value in values]
    return [reference]


def split_items(text: str, num_items: int | None) -> list[str]:
    """Split a list in words at commas, semicolons, line breaks and `and`.

    Args:
        text: Of capped length.
        num_items: How many items are expected; the first way of splitting that gives as many is taken, so that
            `Bosnia and Herzegovina` stays whole where it must. None splits at commas alone; those inside `1,234` are
            spared where others are followed by a space.
    """
    text = _BULLET.sub("", text.strip()) if "\n" in text else clean(text)
    text = text.strip()
    if text[:1] + text[-1:] in ("[]", "()", "{}"):
        text = text[1:-1]
    ways = [_split(pattern, text) for pattern in (_COMMAS, _COMMAS_AND, _ALL_COMMAS)]
    if num_items is None and ", " not in text:
        return ways[-1]
    return next((items for items in ways if len(items) == num_items), ways[0])


def match_items(values: Sequence[Sequence[float]]) -> float:
    """Give the mean value of the pairs if all items can be paired with a value above 0, else 0.

    Args:
        values: [n][n], value of each answer item under each reference item; 0 = wrong.

    Returns:
        In [0, 1]; exactly 1 where every pair of the pairing is worth 1.
    """
    partner_of: dict[int, int] = {}
    for row in range(len(values)):
        if not _augment(row, values, partner_of, set()):
            return 0.0
    return sum(values[row][column] for column, row in partner_of.items()) / len(values)


def _augment(row: int, values: Sequence[Sequence[float]], partner_of: dict[int, int], seen: set[int]) -> bool:
    """Pair `row`, moving earlier pairs where needed (Kuhn's augmenting path)."""
    for column, value in enumerate(values[row]):
        if value > 0.0 and column not in seen:
            seen.add(column)
            if column not in partner_of or _augment(partner_of[column], values, partner_of, seen):
                partner_of[column] = row
                return True
    return False


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    return [item for item in (part.strip().strip("\"'") for part in pattern.split(text)) if item]
