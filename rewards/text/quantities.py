"""A number as charts and their readers write it: sign, currency, digit groups, exponent, fraction, %, scale, unit.

Values are exact fractions, so that an answer on the very edge of a tolerance is not decided by rounding.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.core.base import Reason
from rewards.text.currencies import MARK
from rewards.text.number_bounds import BOUND_SIGN, is_another
from rewards.text.number_words import SCALES, in_digits, is_in_words
from rewards.text.units import CHINESE_BEHIND, may_follow_number

MAX_DIGITS = 40
"""Longer digit strings and exponents beyond 10^+-40 are not readings of a chart."""

_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{1,4})?"
_LETTERS = r"[^\W\d_]+(?:\^?-?[0-9]{1,2})?"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?P<currency>{MARK})?(?P<sign2>[-+]?)(?P<top>{_PLAIN})(?:/(?P<bottom>{_PLAIN}))?"
    rf"(?P<tail>%?(?:{MARK}|\u00b0[cf]?|[-/]?{_LETTERS}(?:[-/]{_LETTERS}){{0,2}}|'s)?|[\"'])"
)
_IS_MARK = re.compile(MARK)
_TIMES_TEN = re.compile(r"\s*[x\u00d7*\u00b7\u22c5]\s*10\s*\^\s*\{?\s*([-+]?[0-9]{1,3})\s*\}?")
_SPACED_SIGN = re.compile(r"(?<![^\s(\[])([-+])\s+(?=[$\u20ac\u00a3\u00a5]?\s?[0-9.])")
_SPACED_CURRENCY = re.compile(rf"(?<![^\W_])({MARK})\s+(?=[-+]?\.?[0-9])")
"""`$ 20`, `rs 20`."""
_SPACED_GROUPS = re.compile(r"(?<![\w.,/])[0-9]{1,3}(?:\s[0-9]{3})+(?![0-9/])")
"""`1 500 000`, but not `1 500/3`."""
_SPACED_SLASH = re.compile(r"(?<=[0-9])\s*/\s*(?=[0-9.])")
_MIXED = re.compile(r"(?<![0-9.,/])([0-9]{1,9})\s+([0-9]{1,3})/([0-9]{1,3})(?![0-9.,/])")
"""`2 1/2` is 5/2."""
_AND_A_PART = re.compile(r"([0-9])\s+and\s+(?:a|one|1)\s+(half|third|quarter)\b(?!\s+of)")
_PARTS = {"half": "1/2", "third": "1/3", "quarter": "1/4"}
_APOSTROPHE = re.compile(r"(?<=[0-9])'(?=[0-9]{3}(?![0-9]))")
_SIGN_WORD = re.compile(r"\b(?:minus|negative)\s+(?=[$\u20ac\u00a3\u00a5]?[0-9.])")
_ORDINALS = ("st", "nd", "rd", "th", "ths")
_WRITTEN = frozenset("0123456789\u4e07\u4ebf\u767e\u5343")
"""Numerals that are read: digits, and the Chinese scale words."""
_DIGIT = re.compile("[0-9]")
_PERCENT_WORDS = ("%", "percent", "pct", "percents", "percentage")
_OPERATION = re.compile("[/*+\u00d7\u00f7\u221a][0-9(]")
"""A word does not hold it: n/2 is a formula."""
_CHUNK_EDGES = "()[]{}\"'*,;:!?#\u2248~="


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number with the details of its spelling.

    Example:
        >>> read_quantity("$1.2 million")[0].value
        Fraction(1200000, 1)
    """

    value: Fraction
    """The charted value: scale word applied, percent sign not."""
    scale: int
    """Factor of a scale word, else 1."""
    may_be_unit: bool
    """Return whether the scale word is an `m`, which may be a metre."""
    percent: bool
    """Return whether a percent sign or word follows."""
    bare_integer: bool
    """Written as ASCII digits only: a year can be nothing else."""
    words_before: int
    words_after: int
    ordinal: bool
    """Written as `2nd`, which counts nothing."""
    after: str
    """The text after its digits, case-folded."""
    currency: str
    """The sign or code of money at it, as in `currencies`, if it has one."""


def read_quantity(text: str) -> tuple[Quantity | None, Reason]:
    """Read the one number of a cleaned, case-folded text.

    Args:
        text: At most a few hundred characters, through `plain_text.normalise`.

    Returns:
        The quantity and OK; or None with NOT_A_NUMBER (none, several, a range, a bound, malformed, overflow).
    """
    if not text.isascii() and any(char.isnumeric() and char not in _WRITTEN for char in text):
        return None, Reason.NOT_A_NUMBER
    if _DIGIT.search(text) is None and is_in_words(text):
        text = in_digits(text)
    text = _joined(text)
    chunks = _chunks(text)
    numeric = [i for i, chunk in enumerate(chunks) if any("0" <= char <= "9" for char in chunk) and not _is_name(chunk)]
    if len(numeric) != 1:
        return None, Reason.NOT_A_NUMBER
    at = numeric[0]
    match = _NUMBER.fullmatch(chunks[at])
    if match is None:
        return None, Reason.NOT_A_NUMBER
    before, _, after = text.partition(match["top"])
    is_bare = text == chunks[at] and text.isascii() and not match["tail"]
    if not is_bare and (BOUND_SIGN.search(text) or is_another(before, match["top"], after)):
        return None, Reason.NOT_A_NUMBER
    value = _value(match)
    if value is None or not (is_bare or may_follow_number(after.lstrip("%"))):
        return None, Reason.NOT_A_NUMBER
    return _with_tail(value, match, chunks, at, after), Reason.OK


def _joined(text: str) -> str:
    """Join what blanks tear apart: signs, currencies, groups of digits, fractions, powers of ten."""
    text = _TIMES_TEN.sub(r"e\1", text)
    text = _SPACED_SIGN.sub(r"\1", text)
    text = _SIGN_WORD.sub("-", text)
    text = _SPACED_SLASH.sub("/", text)
    text = _SPACED_GROUPS.sub(lambda match: re.sub(r"\s", ",", match.group()), text)
    text = _SPACED_CURRENCY.sub(r"\1", text)
    text = _AND_A_PART.sub(lambda match: f"{match[1]} {_PARTS[match[2]]}", _APOSTROPHE.sub(",", text))
    return _MIXED.sub(lambda match: f"{int(match[1]) * int(match[3]) + int(match[2])}/{match[3]}", text)


def _chunks(text: str) -> list[str]:
    """Split at spaces, `=` and `word:`, and trim punctuation."""
    text = re.sub(r"(?<=[^\W\d]):|=", " ", text)
    chunks = [chunk.strip(_CHUNK_EDGES).rstrip(".") for chunk in text.split()]
    return [chunk for chunk in chunks if chunk]


def _is_name(chunk: str) -> bool:
    """Return whether digits belong to a word such as q3 or co2, not to a number with a currency."""
    return chunk[0].isalpha() and _OPERATION.search(chunk) is None and _NUMBER.fullmatch(chunk) is None


def _value(match: re.Match[str]) -> Fraction | None:
    if match["sign"] and match["sign2"]:
        return None
    top = _exact(match["top"])
    bottom = Fraction(1) if match["bottom"] is None else _exact(match["bottom"])
    if top is None or not bottom:
        return None
    return -top / bottom if "-" in (match["sign"], match["sign2"]) else top / bottom


def _exact(digits: str) -> Fraction | None:
    if len(digits) > MAX_DIGITS:
        return None
    plain = digits.replace(",", "")
    _, _, exponent = plain.partition("e")
    if exponent and abs(int(exponent)) > MAX_DIGITS:
        return None
    return Fraction(plain)


def _with_tail(value: Fraction, match: re.Match[str], chunks: list[str], at: int, behind: str) -> Quantity:
    """Apply the scale and percent sign that are attached to the number or follow it."""
    tail = match["tail"]
    after = chunks[at + 1 :]
    percent = tail.startswith("%") or tail.lstrip("-") in _PERCENT_WORDS
    word = tail.lstrip("-")
    if word not in SCALES and not word.isascii() and (chinese := CHINESE_BEHIND.fullmatch(word)) is not None:
        # 90\u4e07\u5143 is a scale and a currency in one run of letters.
        word = word[0] if word[0] in ("\u4e07", "\u4ebf") else chinese["scale"] or word
    if word not in SCALES and not tail and after and after[0] in SCALES:
        word = after.pop(0)
    scale = SCALES.get(word, 1)
    if after and (after[0] in _PERCENT_WORDS or after[:2] == ["per", "cent"]):
        percent = True
        after = after[2:] if after[0] == "per" else after[1:]
    mark = match["currency"] or (tail.lstrip("%") or (after[0] if after else ""))
    currency = mark if _IS_MARK.fullmatch(mark) is not None else ""
    bare = match["top"].isdigit() and match.group() == match["top"] and scale == 1 and not percent
    return Quantity(
        value * scale, scale, word == "m", percent, bare, at, len(after), tail in _ORDINALS, behind, currency
    )
