"""A number as charts and their readers write it: sign, currency, digit groups, exponent, fraction, %, scale, unit.

Values are exact fractions, so that an answer on the very edge of a tolerance is not decided by rounding.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.base import Reason
from rewards.currencies import MARK
from rewards.denial import is_number_denied
from rewards.number_words import SCALES, in_digits, is_in_words, number_word

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
BOUND = re.compile(
    r"(?<!\\)\b(?:not|never|[a-z]+n't|cannot|less|more|fewer|greater|over|under|above|below|beneath|underneath|beyond|within"
    r"|[a-z]{2,}er\s+than|at\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum|min|max)|up\s*to|exceed(?:s|ed|ing)?"
    r"|upwards?\s+of|(?:in\s+)?excess\s+of|north\s+of|south\s+of|starting\s+(?:at|from)|capped\s+at|limited\s+to"
    r"|as\s+(?:many|much|few|little|high|low|large|great|small)\s+as|between|until|except|anything\s+but|by\s+no\s+means|(?:in\s+)?no\s+way)\b"
    r"|(?<!\\)\b(?:min|max)(?:imum)?\b\.?(?:\s+of)?\s*(?=[-+$\u20ac\u00a3]?[0-9])"
)
"""Words that make a bound, a range or a denial of the number behind them. `about 45` is 45, read as exactly."""
_ANOTHER_BEFORE = re.compile(
    r"\b(?:(?:"
    # Another year: one before or after it, or any but it.
    r"before|after|since|till|through|past|pre|post|(?:prior|opposed)\s+to|(?:previous|next)(?:\s+year)?\s+to|ahead"
    r"|(?!(?:is|are|was|were|be|it|comes?|came|dates?|data|value|number)\b)[a-z]+\s+from|(?:compared|comparison|relative|contrary|contrast)\s+(?:to|with)"
    r"|versus|vs|against|out\s+of|one\s+in(?:\s+every)?|per|than|instead|unlike|besides|barring|exclusive|exception"
    r"|(?:preced|follow|succeed|exclud)(?:e|es|ed|s|ing)|(?:any|every|all|each|none|no|nothing)\w*(?:\s+\w+)?\s+but|without"
    # Another number: a part or a multiple of it, less or more than it, none of it.
    r"|half|twice|thrice|double|triple|treble|quadruple|times|minus|negative|plus|no(?:ne)?|neither"
    r"|root|sqrt|log(?:arithm)?|ln|lg|exp|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|sine|cosine|tangent|factorial|hardly|barely|scarcely|nowhere\s+near|shy|short|top(?:s|ped|ping)|surpass(?:es|ed|ing)|at\s+(?:the\s+)?(?:be|wor|earlie|late)st"
    r")\b\.?"
    r"|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?\s+of"
    r"|(?:square|cube|reciprocal|inverse|opposite|multiple|fraction)\s+of"
    # The name of a part of a document.
    r"|(?<!\bthe\s)(?:rank(?:ed|ing)?|page|figure|fig|table|slide|section|chapter|appendix|footnote|equation)(?!\s+of\b)\b\.?)"
    rf"(?:\s+(?:of|that|the|these|those|years?))*\s*[-+(\"'~]?{MARK}?$"
)
"""Words that make another number of the one right behind them: half of 40 is not 40, and neither is page 40."""
# What a whole is divided into; plurals take an s.
_PART = (
    r"(?:half|third|quarter"
    r"|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]+teen|hundred|thousand|[a-z]+illion)th)"
)
_MAKES_ANOTHER = re.compile(
    rf"{_PART}s?|halves|tens|hundreds|[a-z]+tieths?|[a-z]*fold|[a-z]*(?:uple|squar|cub|doubl|tripl|halv|negat|invert|increas"
    r"|decreas|reduc)(?:[sd]|ed)?|plus|minus|times|modulo|mod|negative|positive|inverse|reciprocal|zeros?|zeroes|odd|something"
    r"|factorial|millions?|[a-z]+illions?|lakhs?|crores?|dozens?|pairs?|score|couples?|permil(?:le)?|promille|basis"
)
"""Words that make another number of the one in front of them."""
_ANOTHER_AFTER = re.compile(
    rf"^\s+(?:(?:{_PART}s|halves)\b|(?:and\s+(?:(?:a|one|two|three)\s+)?)?{_PART}s?(?=$|\s+of\b)|and\s+(?:a|one)\s+{_PART}\b)"
    r"|^\s+(?:percentiles?|squared|cubed|doubled|tripled|halved|factorial|minus|divided|multiplied|(?:short|shy)\W*$)\b"
    r"|^\s*[x*\u00d7]\s*[0-9]|^-?\s*[a-z]*fold\b|^\s+times\s+(?:as|more|less|fewer|[a-z]+er)\b|^-year-old(?:s\b|\s+[a-z])"
    r"|^\s+(?:reduced|increased|decreased|raised|lowered|cut|split|scaled|grown|shrunk)\s+(?:by|to|in|from)\b"
    r"|^\s*b\.?\s?c(?:\.?\s?e)?\b|^\s*(?:(?:and|or)\s+)?(?:(?:on|for)wards?|on|before)\W*$"
    r"|^\s*(?:(?:to|until|till|through)\s+)?(?:the\s+)?(?:present|now|today)\W*$"
    r"|\bat\s+(?:best|worst)\b|\bat\s+(?:the\s+)?(?:best|worst|earliest|latest|outside)$|\b(?:unless|if|assuming|provided|depending)\b"
)
"""Words that change the number before them or make it a condition: `40 squared`, `2 and a half`, `2014 BC`."""
_BOUND_SIGN = re.compile(
    r"!=|[<>]=?\s*(?=[-+$\u20ac\u00a3]?[0-9.])|(?<=[0-9])\s*[<>](?!\s*/)|[\u2264\u2265\u2266\u2267\u226e\u226f\u2a7d\u2a7e\u2260\u226a\u226b]|\\(?:[gl](?:e|t|eq)|neq?)\b"
)
_BOUND_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,2}?(?:or|and|&|/)\s*(?:\w+\s+){0,2}(?:more|less|fewer|above|over|under|below|up|upwards?|down|beyond"
    r"|(?!other|neither|together)[a-z]{2,}er)\b"
    r"|^\W*(?:(?!is\b|was\b)\w+\W+)?(?:plus|upwards?|minimum|max(?:imum)?|tops|and\s+(?:up|counting))\b"
    r"|\bat\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum|min|max)\b|^[\s%]*(?:[^\W\d_]+\s*)?\+|^\W*-\s*$"
)
"""Words that make a bound of the number before them: `45 or more`, `45 at most`."""
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
    if not is_bare and (_BOUND_SIGN.search(text) or _is_another(before, match["top"], after)):
        return None, Reason.NOT_A_NUMBER
    value = _value(match)
    if value is None:
        return None, Reason.NOT_A_NUMBER
    return _with_tail(value, match, chunks, at, after), Reason.OK


def _is_another(before: str, number: str, after: str) -> bool:
    """Return whether the words around a number bound or deny it, or make another number of it."""
    return (
        BOUND.search(before + number) is not None
        or _ANOTHER_BEFORE.search(before) is not None
        or _BOUND_AFTER.search(after) is not None
        or _ANOTHER_AFTER.search(after) is not None
        or is_number_denied(before, after)
    )


def is_counted(word: str) -> bool:
    """Return whether a word behind a number may name what is counted: `apples`, not `squared`, `wrong` or `more`.

    Args:
        word: Case-folded, of letters alone.
    """
    return not (
        word in SCALES
        or number_word(word) is not None
        or _MAKES_ANOTHER.fullmatch(word)
        or BOUND.search(word)
        or _is_another("", "", f" {word}")
    )


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
    if word not in SCALES and word[:1] in ("\u4e07", "\u4ebf"):
        word = word[0]  # 90\u4e07\u5143 is a scale and a currency in one run of letters
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
