"""A number as charts and their readers write it: sign, currency, digit groups, exponent, fraction, %, scale, unit.

Values are exact fractions, so that an answer on the very edge of a tolerance is not decided by rounding.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.base import Reason
from rewards.denial import is_number_denied

MAX_DIGITS = 40
"""Longer digit strings and exponents beyond 10^+-40 are not readings of a chart."""

_CURRENCY = (
    r"(?:(?:us|c|a|nz|hk|s|r)?[$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u00a2\u0e3f\u20ab\u20aa]"
    r"|usd|eur|gbp|inr|rs\.?|jpy|cny|rmb|chf|aud|cad)"
)
_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{1,4})?"
_LETTERS = r"[^\W\d_]+(?:\^?-?[0-9]{1,2})?"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?P<currency>{_CURRENCY})?(?P<sign2>[-+]?)(?P<top>{_PLAIN})(?:/(?P<bottom>{_PLAIN}))?"
    rf"(?P<tail>%?(?:{_CURRENCY}|\u00b0[cf]?|[-/]?{_LETTERS}(?:[-/]{_LETTERS}){{0,2}}|'s)?|[\"'])"
)
_TIMES_TEN = re.compile(r"\s*[x\u00d7*\u00b7\u22c5]\s*10\s*\^\s*\{?\s*([-+]?[0-9]{1,3})\s*\}?")
_SPACED_SIGN = re.compile(r"(?<![^\s(\[])([-+])\s+(?=[$\u20ac\u00a3\u00a5]?\s?[0-9.])")
_SPACED_CURRENCY = re.compile(rf"(?<![^\W_])({_CURRENCY})\s+(?=[-+]?\.?[0-9])")
"""`$ 20`, `rs 20`."""
_SPACED_GROUPS = re.compile(r"(?<![\w.,/])[0-9]{1,3}(?:\s[0-9]{3})+(?![0-9/])")
"""`1 500 000`, but not `1 500/3`."""
_SPACED_SLASH = re.compile(r"(?<=[0-9])\s*/\s*(?=[0-9.])")
_MIXED = re.compile(r"(?<![0-9.,/])([0-9]{1,9})\s+([0-9]{1,3})/([0-9]{1,3})(?![0-9.,/])")
"""`2 1/2` is 5/2."""
_SIGN_WORD = re.compile(r"\b(?:minus|negative)\s+(?=[$\u20ac\u00a3\u00a5]?[0-9.])")
BOUND = re.compile(
    r"(?<!\\)\b(?:not|never|[a-z]+n't|cannot|less|more|fewer|greater|over|under|above|below|beyond|within"
    r"|[a-z]{2,}er\s+than|at\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum|min|max)|up\s*to|exceed(?:s|ed|ing)?"
    r"|upwards?\s+of|(?:in\s+)?excess\s+of|north\s+of|south\s+of|starting\s+(?:at|from)|capped\s+at|limited\s+to"
    r"|as\s+(?:many|much|few|little|high|low|large|great|small)\s+as|between|until|except|anything\s+but)\b"
    r"|(?<!\\)\b(?:min|max)(?:imum)?\b\.?(?:\s+of)?\s*(?=[-+$\u20ac\u00a3]?[0-9])"
)
"""Words that make a bound, a range or a denial of the number behind them. `about 45` is 45, read as exactly."""
_ANOTHER_BEFORE = re.compile(
    r"\b(?:(?:"
    # Another year: one before or after it, or any but it.
    r"before|after|since|till|through|past|pre|post|(?:prior|opposed)\s+to|(?:previous|next)(?:\s+year)?\s+to|ahead"
    r"|(?:apart|aside|away|different|far|up|down)\s+from|than|instead|unlike|besides|barring|exclusive|exception"
    r"|(?:preced|follow|succeed|exclud)(?:e|es|ed|s|ing)|(?:any|every|all|each|none|no|nothing)\w*(?:\s+\w+)?\s+but|without"
    # Another number: a part or a multiple of it, less or more than it, none of it.
    r"|half|twice|thrice|double|triple|treble|quadruple|times|minus|negative|plus|no(?:ne)?|neither"
    r"|root|sqrt|log(?:arithm)?|factorial|hardly|barely|scarcely|nowhere\s+near|shy|short|top(?:s|ped|ping)|surpass(?:es|ed|ing)|at\s+(?:the\s+)?(?:be|wor|earlie|late)st"
    r")\b\.?"
    r"|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?\s+of"
    r"|(?:square|cube|reciprocal|inverse|opposite|multiple|fraction)\s+of"
    # The name of a part of a document.
    r"|(?<!\bthe\s)(?:page|figure|fig|table|slide|section|chapter|appendix|footnote|equation)(?!\s+of\b)\b\.?)"
    rf"(?:\s+(?:of|that|the|these|those|years?))*\s*[-+(\"'~]?{_CURRENCY}?$"
)
"""Words that make another number of the one right behind them: half of 40 is not 40, and neither is page 40."""
# What a whole is divided into; plurals take an s.
_PART = r"(?:half|third|quarter|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]+teen|hundred|thousand|million)th)"
_MAKES_ANOTHER = re.compile(
    rf"{_PART}s?|halves|tens|hundreds|[a-z]+tieths?|[a-z]*fold|[a-z]*(?:uple|squar|cub|doubl|tripl|halv|negat|invert|increas"
    r"|decreas|reduc)(?:[sd]|ed)?|plus|minus|times|modulo|mod|negative|positive|inverse|reciprocal|zeros?|zeroes|odd|something"
    r"|factorial|millions?|[a-z]+illions?|lakhs?|crores?|dozens?|pairs?|score|couples?|permil(?:le)?|promille|basis"
)
"""Words that make another number of the one in front of them."""
_ANOTHER_AFTER = re.compile(
    rf"^\s+(?:(?:{_PART}s|halves)\b|(?:and\s+(?:(?:a|one|two|three)\s+)?)?{_PART}s?(?=$|\s+of\b)|and\s+(?:a|one)\s+{_PART}\b)"
    r"|^\s+(?:squared|cubed|doubled|tripled|halved|factorial|minus|divided|multiplied|(?:short|shy)\W*$)\b"
    r"|^\s*b\.?\s?c(?:\.?\s?e)?\b|^\s*(?:(?:and|or)\s+)?(?:(?:on|for)wards?|on|before)\W*$"
    r"|^\s*(?:(?:to|until|till|through)\s+)?(?:the\s+)?(?:present|now|today)\W*$"
    r"|\bat\s+(?:best|worst)\b|\bat\s+(?:the\s+)?(?:best|worst|earliest|latest|outside)$|\b(?:unless|if|assuming|provided|depending)\b"
)
"""Words that change the number before them or make it a condition: `40 squared`, `2 and a half`, `2014 BC`."""
_BOUND_SIGN = re.compile(
    r"[<>]=?\s*(?=[-+$\u20ac\u00a3]?[0-9.])|(?<=[0-9])\s*[<>](?!\s*/)|[\u2264\u2265\u2266\u2267\u226e\u226f\u2a7d\u2a7e\u2260\u226a\u226b]|\\(?:[gl](?:e|t|eq)|neq?)\b"
)
_BOUND_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,2}?(?:or|and|&|/)\s*(?:\w+\s+){0,2}(?:more|less|fewer|above|over|under|below|up|upwards?|down|beyond"
    r"|(?!other|neither|together)[a-z]{2,}er)\b"
    r"|^\W*(?:(?!is\b|was\b)\w+\W+)?(?:plus|upwards?|minimum|max(?:imum)?|tops|and\s+(?:up|counting))\b"
    r"|\bat\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum|min|max)\b|^[\s%]*(?:[^\W\d_]+\s*)?\+|^\W*-\s*$"
)
"""Words that make a bound of the number before them: `45 or more`, `45 at most`."""
_SCALES = {
    "hundred": 100, "k": 10**3, "thousand": 10**3, "thousands": 10**3,
    "m": 10**6, "mn": 10**6, "mln": 10**6, "mio": 10**6, "million": 10**6, "millions": 10**6,
    "b": 10**9, "bn": 10**9, "bln": 10**9, "billion": 10**9, "billions": 10**9,
    "tn": 10**12, "trn": 10**12, "trillion": 10**12, "trillions": 10**12,
    "pair": 2, "pairs": 2, "dozen": 12, "dozens": 12, "score": 20,
    "lakh": 10**5, "crore": 10**7, "\u4e07": 10**4, "\u4ebf": 10**8, "\u767e\u4e07": 10**6, "\u5343\u4e07": 10**7,
}  # fmt: skip
_GROUPS = frozenset(("pair", "pairs", "dozen", "dozens", "score"))
"""Those that are counted in words as well: `two dozen`, `a pair`."""
_STATED = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?|answer|not|or)\b|=|:|^|[.;!?]\s)\s*(?:(?:about|approximately|around|roughly)\s+)?"
    r"[-+$\u20ac\u00a3]?[0-9][0-9.,]*%?(?=\s*(?:$|[.;,!?]|\b(?:or|and|but|no|so)\b)|\s+[a-z]+\s*[.;,!?])"
)
_ORDINALS = ("st", "nd", "rd", "th", "ths")
_WRITTEN = frozenset("0123456789\u4e07\u4ebf\u767e\u5343")
"""Numerals that are read: digits, and the Chinese scale words."""
_SMALL_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_NUMBER_WORD = rf"(?:{'|'.join(_SMALL_WORDS)}|hundred|thousand|million|billion|pairs?|dozens?|score)"
_IN_WORDS = re.compile(rf"(?<![\w'])(?:an?\s+)?{_NUMBER_WORD}(?:(?:[\s-]+|\s+and\s+){_NUMBER_WORD})*(?![\w']|-[a-z])")
_HAS_WORD = re.compile(rf"\b{_NUMBER_WORD}\b")
_NO_NUMBER_BEFORE = re.compile(
    r"(?:[0-9%.]|\b(?:the|this|that|which|each|every|no|any|another|other|left|right|[0-9]+(?:st|nd|rd|th)|first|second|third|last"
    r"|only\s+the|bottom|top|half|quarter))[\s-]*$"
)
"""In front of `one`, `a pair` or a scale word: it is a pronoun, a noun, or the scale of a number in digits."""
_KNOWN_BEFORE = re.compile(r"\b(?:the|both|these|those|all|first|last|top|other|next|previous|which|that)\s+$")
"""In front of a number in words: it says how many there are of what is known already: `the two bars reach 45`."""
_JOINED_BEFORE = re.compile(
    r"[0-9][^0-9]*[:(]\s*$|[0-9][^0-9]*\band\s+$|[0-9]\s*(?:,|or|to|and|less|minus|plus|times|over|by|/|-|vs\.?|versus|,?\s*(?:or\s+)?(?:maybe|perhaps|possibly))\s*$"
)
_JOINED_BEHIND = re.compile(r"\s*(?:,|or|to|of|/|-|vs\.?|versus)\s*[0-9]")
_ABOUT = re.compile(
    r"(?:(?:about|approximately|around|roughly|nearly|almost|circa|some|exactly|just|only)\s+)?(?P<number>.*?)"
    r"(?:%|\s(?:percent|per\scent|pct))?"
)
_SIGN = re.compile(r"-|(?:minus|negative)\s+")
_DIGIT = re.compile("[0-9]")
_YEAR = r"(?:fy\s?)?(?:1[89][0-9]{2}|20[0-9]{2})(?:-[0-9]{2})?(?![0-9.,]*[0-9%])"
_ANY = r"[-+$\u20ac\u00a3]?[0-9][0-9.,]*(?<![.,])%?"
_MONTH = r"(?:(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*|q[1-4])"
_ASIDES = (
    re.compile(
        rf"[,(\s]*\b(?:in|for|by|during|since|as\s+of|at\s+the\s+end\s+of)\s+(?:the\s+)?(?:(?:fiscal\s+)?years?\s+)?(?:{_MONTH}\s+)?{_YEAR}"
        rf"(?:\s*(?:,|and|to|-)+\s*{_YEAR})*(?!\s*[a-z]*\s*(?:or|to|/)\s*[0-9])\)?"
    ),
    re.compile(rf"^{_YEAR}\s*[:=]|\(\s*{_YEAR}\s*\)"),
    re.compile(
        rf"(?<!\bis)(?<!\bare)(?<!\bwas)[,(\s]*\b(?:(?:and|but)\s+)?(?:not|rather\s+than|instead\s+of|as\s+opposed\s+to)"
        rf"\s+{_ANY}(?:\s+(?:or|nor)\s+{_ANY})*\)?(?=\s*(?:$|[.;,]|but\b))"
    ),
    re.compile(
        rf"[,(\s]+(?:(?:up|down)\s+from|compared\s+(?:to|with)|against|as\s+against)\s+{_ANY}[^,;)]*\)?$|\s*\((?:vs\.?|versus)\s+{_ANY}[^()]*\)$"
    ),
    re.compile(rf"\s*\b(?:out\s+of|per|of\s+(?:the|these|those|all(?:\s+the)?))\s+{_ANY}(?:\s+[a-z]+)?"),
)
"""Numbers that answer nothing beside another: when, which not, against what, out of how many."""
_PARTS = re.compile(r"([^:;()]*[0-9][^:;()]*?)\s*([:;(])\s*([^:;()]*[0-9][^:;()]*)\)?")
_LONE = re.compile(r"[0-9]{1,9}(?:,[0-9]{3})*(?:\.[0-9]{1,9})?")
_TWICE = re.compile(
    r"[^0-9]*(?P<one>[0-9]{1,9}(?:,[0-9]{3})*(?:\.[0-9]{1,9})?)(?P<one_percent>\s?%)?(?P<between>\s*\(|[^0-9.(]*[a-z][^0-9.]*)"
    r"(?P<two>[0-9]{1,9}(?:,[0-9]{3})*(?:\.[0-9]{1,9})?)(?P<two_percent>\s?%)?(?P<behind>\)|[^0-9]*)"
)
_PERCENT_WORDS = ("%", "percent", "pct", "percents", "percentage")
_OPERATION = re.compile("[/*+\u00d7\u00f7\u221a][0-9(]")
"""A word does not hold it: n/2 is a formula."""
_CURRENCY_NAMES = {"$": "dollar", "usd": "usd", "\u00a2": "cent", "\u20ac": "euro", "eur": "eur"}
"""The names in units.py. The names of other currencies are not known there."""
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
    """The name of the dollar, cent or euro sign at it, if it has one."""


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
    is_bare = len(chunks) == 1 and text.isascii()
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
        word in _SCALES
        or number_word(word) is not None
        or _MAKES_ANOTHER.fullmatch(word)
        or BOUND.search(word)
        or _is_another("", "", f" {word}")
    )


def is_in_words(text: str) -> bool:
    """Return whether a text spells a number in words and nothing else: `about thirty-five percent`, `a hundred`.

    Args:
        text: Through `plain_text.normalise`.
    """
    spelled = _ABOUT.fullmatch(text.strip(_CHUNK_EDGES))
    return spelled is not None and number_word(_SIGN.sub("", spelled["number"], count=1)) is not None


def in_digits(text: str) -> str:
    """Return a text with its numbers in words as digits: `five or six` is `5 or 6`.

    Where `one`, a pair or `the two` is no answer beside another number (`the left one is 45`), it stays as it is.

    Args:
        text: Through `plain_text.normalise`.

    Example:
        >>> in_digits("there are twenty-one dogs"), in_digits("five or 6"), in_digits("the left one is 45")
        ('there are 21 dogs', '5 or 6', 'the left one is 45')
    """
    if _HAS_WORD.search(text) is None:
        return text
    parts: list[str] = []
    soft: list[int] = []
    at = 0
    for match in _IN_WORDS.finditer(text):
        before, number = text[at : match.start()], match.group()
        words = number.split()
        is_soft = number == "one" or (words[-1] in _GROUPS and words[0] in ("a", "an", *_GROUPS))
        if (is_soft or words[0] in _SCALES) and _NO_NUMBER_BEFORE.search(text[: match.start()]) is not None:
            continue
        is_soft = is_soft or _KNOWN_BEFORE.search(text[: match.start()]) is not None
        if is_soft:
            soft.append(len(parts) + 1)
        parts += [before, number if is_soft else _digits(number)]
        at = match.end()
    parts.append(text[at:])
    for place in soft:
        before, behind = "".join(parts[:place]), "".join(parts[place + 1 :])
        is_only = _DIGIT.search(before + behind) is None
        is_one_of = behind.startswith((" of ", " who", " which", " that"))
        if is_only or (_JOINED_BEFORE.search(before) and not is_one_of) or _JOINED_BEHIND.match(behind):
            parts[place] = _digits(parts[place])
    return "".join(parts)


def _digits(words: str) -> str:
    """Return a run of number words in digits; what does not add up to one number stays several."""
    number = number_word(words)
    if number is not None:
        return str(number)
    pieces = re.split(r"(\s+and\s+|[\s-]+)", words)
    for end in range(len(pieces) - 2, 0, -2):
        number = number_word("".join(pieces[:end]))
        if number is not None:
            return f"{number}{pieces[end]}{_digits(''.join(pieces[end + 1 :]))}"
    return words if len(pieces) < 3 else pieces[0] + pieces[1] + _digits("".join(pieces[2:]))


def number_word(text: str) -> int | None:
    """Return the whole number that English words spell, below a million million; None for anything else.

    Args:
        text: Case-folded.

    Example:
        >>> number_word("three"), number_word("one hundred and forty-five"), number_word("cat")
        (3, 145, None)
    """
    words = text.replace("-", " ").split()
    if len(words) > 1 and words[0] == "a" and words[1] in _SCALES:
        words[0] = "one"
    if not words or len(words) > 16 or words[0] == "and" or words[-1] == "and":
        return None
    total, part, last = 0, -1, 10**12
    for word in words:
        if word == "and" and (part >= 100 or (part < 0 and total)):
            continue
        if word == "hundred" and 0 < part < 10:
            part *= 100
        elif word in _GROUPS and word == words[-1] and not total and 0 < part < 100:
            part *= _SCALES[word]
        elif word in ("thousand", "million", "billion") and part > 0 and _SCALES[word] < last:
            last = _SCALES[word]
            total, part = total + part * last, -1
        elif word in _SMALL_WORDS:
            number = _SMALL_WORDS[word]
            # `forty five` adds up, `five forty` and `twenty twenty` do not.
            if part > 0 and not (number and (part % 100 == 0 or (part % 10 == 0 and part % 100 >= 20 and number < 10))):
                return None
            if part == 0 or (part < 0 and total and number == 0):
                return None
            part = max(part, 0) + number
        else:
            return None
    return total + max(part, 0)


def without_asides(text: str) -> str:
    """Return a text without the numbers that only say when, of how many, against what or made of what.

    `45 in 2015`, `45, not 50`, `45, up from 30`, `45 out of 100`, `0.45 (45%)`, `3: 1 black and 2 brown`.

    Args:
        text: Through `in_digits`.

    Example:
        >>> without_asides("45 in 2015, not 50"), without_asides("45 or 50"), without_asides("2015")
        ('45', '45 or 50', '2015')
    """
    for aside in _ASIDES:
        rest = aside.sub(" ", text).strip(" ,;:")
        if _DIGIT.search(rest) is not None:
            text = rest
    parts = _PARTS.fullmatch(text)
    if parts is not None:
        whole, *counts = (Fraction(number.replace(",", "")) for number in _LONE.findall(f"{parts[1]} {parts[3]}"))
        if _LONE.findall(parts[1])[1:] == [] and len(counts) > 1 and sum(counts) == whole:
            text = parts[1]
    twice = _TWICE.fullmatch(text)
    if twice is not None:
        first, second = (
            Fraction(twice[name].replace(",", "")) / (100 if twice[name + "_percent"] else 1) for name in ("one", "two")
        )
        if first == second and "(" in twice["between"]:
            text = text[: twice.start("between")]
        elif twice["one"] == twice["two"] and re.search("[a-z]{3}", twice["between"]):
            text = text[: twice.start("between")] + twice["behind"]
    return text.strip()


def states_number(text: str) -> bool:
    """Return whether a text already gives a number as an answer: behind `is`, or as a clause of its own.

    Args:
        text: What stands before a declaration, case-folded, of capped length.

    Example:
        >>> states_number("it is 20. no, the value"), states_number("the number of deals in 2016")
        (True, False)
    """
    return _STATED.search(text) is not None


def _joined(text: str) -> str:
    """Join what blanks tear apart: signs, currencies, groups of digits, fractions, powers of ten."""
    text = _TIMES_TEN.sub(r"e\1", text)
    text = _SPACED_SIGN.sub(r"\1", text)
    text = _SIGN_WORD.sub("-", text)
    text = _SPACED_SLASH.sub("/", text)
    text = _SPACED_GROUPS.sub(lambda match: re.sub(r"\s", ",", match.group()), text)
    text = _SPACED_CURRENCY.sub(r"\1", text)
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
    if word not in _SCALES and word[:1] in ("\u4e07", "\u4ebf"):
        word = word[0]  # 90\u4e07\u5143 is a scale and a currency in one run of letters
    if word not in _SCALES and not tail and after and after[0] in _SCALES:
        word = after.pop(0)
    scale = _SCALES.get(word, 1)
    if after and (after[0] in _PERCENT_WORDS or after[:2] == ["per", "cent"]):
        percent = True
        after = after[2:] if after[0] == "per" else after[1:]
    mark = match["currency"] or (tail.lstrip("%") or (after[0] if after else ""))
    currency = _CURRENCY_NAMES.get(mark) or _CURRENCY_NAMES.get(mark[-1:], "")
    bare = match["top"].isdigit() and match.group() == match["top"] and scale == 1 and not percent
    return Quantity(
        value * scale, scale, word == "m", percent, bare, at, len(after), tail in _ORDINALS, behind, currency
    )
