"""A number as charts and their readers write it: sign, currency, digit groups, exponent, fraction, %, scale, unit.

Values are exact fractions, so that an answer on the very edge of a tolerance is not decided by rounding.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.base import Reason

MAX_DIGITS = 40
"""Longer digit strings and exponents beyond 10^+-40 are not readings of a chart."""

_CURRENCY = (
    r"(?:(?:us|c|a|nz|hk|s|r)?[$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u00a2\u0e3f\u20ab\u20aa]"
    r"|usd|eur|gbp|inr|rs\.?|jpy|cny|rmb|chf|aud|cad)"
)
_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{1,4})?"
_LETTERS = r"[^\W\d_]+(?:\^?-?[0-9]{1,2})?"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?){_CURRENCY}?(?P<sign2>[-+]?)(?P<top>{_PLAIN})(?:/(?P<bottom>{_PLAIN}))?"
    rf"(?P<tail>%?(?:{_CURRENCY}|\u00b0[cf]?|[-/]?{_LETTERS}(?:[-/]{_LETTERS}){{0,2}}|'s)?|[\"'])"
)
_TIMES_TEN = re.compile(r"\s*[x\u00d7*\u00b7\u22c5]\s*10\s*\^\s*\{?\s*([-+]?[0-9]{1,3})\s*\}?")
_SPACED_SIGN = re.compile(r"(?<![^\s(\[])([-+])\s+(?=[$\u20ac\u00a3\u00a5]?\s?[0-9.])")
_SPACED_SLASH = re.compile(r"(?<=[0-9])\s*/\s*(?=[0-9.])")
_MIXED = re.compile(r"(?<![0-9.,/])([0-9]{1,9})\s+([0-9]{1,3})/([0-9]{1,3})(?![0-9.,/])")
"""`2 1/2` is 5/2."""
_SIGN_WORD = re.compile(r"\b(?:minus|negative)\s+(?=[$\u20ac\u00a3\u00a5]?[0-9.])")
_BOUND = re.compile(
    r"\b(?:not|never|isn't|cannot|less|more|fewer|greater|at least|at most|up to|over|under|above|below)\b"
)
_SCALES = {
    "hundred": 100, "k": 10**3, "thousand": 10**3, "thousands": 10**3,
    "m": 10**6, "mn": 10**6, "mio": 10**6, "million": 10**6, "millions": 10**6,
    "b": 10**9, "bn": 10**9, "billion": 10**9, "billions": 10**9,
    "tn": 10**12, "trillion": 10**12, "trillions": 10**12,
}  # fmt: skip
_PERCENT_WORDS = ("%", "percent", "pct", "percents", "percentage")
_CHUNK_EDGES = "()[]{}\"'*,;:!?#\u2248~="


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number with what its spelling says about it.

    Example:
        >>> read_quantity("$1.2 million")[0].readings
        (Fraction(1200000, 1),)
    """

    readings: tuple[Fraction, ...]
    """The value; two values where a spaced `m` may mean million or metre."""
    percent: bool
    """Whether a percent sign or word follows."""
    bare_integer: bool
    """Written as ASCII digits only: a year can be nothing else."""
    words_before: int
    words_after: int


def read_quantity(text: str) -> tuple[Quantity | None, Reason]:
    """Read the one number of a cleaned, case-folded text.

    Args:
        text: At most a few hundred characters, through `plain_text.normalise`.

    Returns:
        The quantity and OK; or None with NOT_A_NUMBER (none, several, a range, a bound, malformed, overflow).
    """
    if not text.isascii() and any(char.isnumeric() and not "0" <= char <= "9" for char in text):
        return None, Reason.NOT_A_NUMBER
    chunks = _chunks(text)
    numeric = [i for i, chunk in enumerate(chunks) if any("0" <= char <= "9" for char in chunk) and not _is_name(chunk)]
    if len(numeric) != 1:
        return None, Reason.NOT_A_NUMBER
    at = numeric[0]
    match = _NUMBER.fullmatch(chunks[at])
    if match is None or _BOUND.search(" ".join(chunks[:at])):
        return None, Reason.NOT_A_NUMBER
    value = _value(match)
    if value is None:
        return None, Reason.NOT_A_NUMBER
    quantity = _with_tail(value, match, chunks, at)
    return quantity, Reason.OK


def _chunks(text: str) -> list[str]:
    """Split at spaces, `=` and `word:`, after joining what spaces tore apart, and trim punctuation."""
    text = _TIMES_TEN.sub(r"e\1", text)
    text = _SPACED_SIGN.sub(r"\1", text)
    text = _SIGN_WORD.sub("-", text)
    text = _SPACED_SLASH.sub("/", text)
    text = _MIXED.sub(lambda match: f"{int(match[1]) * int(match[3]) + int(match[2])}/{match[3]}", text)
    text = re.sub(r"(?<=[^\W\d]):|=", " ", text)
    chunks = [chunk.strip(_CHUNK_EDGES).rstrip(".") for chunk in text.split()]
    return [chunk for chunk in chunks if chunk]


def _is_name(chunk: str) -> bool:
    """Whether digits belong to a word such as q3 or co2, not to a number with a currency."""
    return chunk[0].isalpha() and _NUMBER.fullmatch(chunk) is None


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


def _with_tail(value: Fraction, match: re.Match[str], chunks: list[str], at: int) -> Quantity:
    """Apply the scale and percent sign that are attached to the number or follow it."""
    tail = match["tail"]
    after = chunks[at + 1 :]
    percent = tail.startswith("%") or tail.lstrip("-") in _PERCENT_WORDS
    scale, ambiguous = 1, False
    attached = tail.lstrip("-")
    if attached in _SCALES:
        scale, ambiguous = _SCALES[attached], attached == "m"
    elif not tail and after and after[0] in _SCALES:
        word = after.pop(0)
        scale, ambiguous = _SCALES[word], word == "m"
    if after and (after[0] in _PERCENT_WORDS or after[:2] == ["per", "cent"]):
        percent = True
        after = after[2:] if after[0] == "per" else after[1:]
    readings = (value * scale, value) if ambiguous else (value * scale,)
    bare = match["top"].isdigit() and match.group() == match["top"] and scale == 1 and not percent
    return Quantity(readings, percent, bare, at, len(after))
