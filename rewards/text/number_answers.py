"""The number that an answer gives, among those that only say when, where, against what, of how many or made of what."""

import math
import re
from fractions import Fraction

from rewards.core.base import Reason
from rewards.text.declaration import declared
from rewards.text.number_words import from_chinese, in_digits, part_in_digits
from rewards.text.plain_text import normalise
from rewards.text.quantities import Quantity, read_quantity

MAX_WORDS_AFTER = 3
"""Words after a declared number: its unit, not a second sentence."""
_DIGIT = re.compile("[0-9]")
_FACTORIAL = re.compile(r"(?:^\W*|[{(=]\s*)[0-9][0-9,]*\s*\)?!")
"""`40!`, which is not 40, where the number is alone; `It is 40!` is a sentence."""
_YEAR = r"(?:fy\s?)?(?:1[89][0-9]{2}|20[0-9]{2})(?:-[0-9]{2})?(?![0-9.,]*[0-9%])"
_MONTH = r"(?:(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*|q[1-4])"
_N = r"[-+$\u20ac\u00a3]?[0-9][0-9.,]*(?<![.,])%?"
_ABOUT = r"(?:(?:about|approximately|around|roughly|nearly|almost|only|just|exactly)\s+)?"
_REST = r"(?:[^,;()]|,(?=[0-9]{3}))*"
"""The rest of a clause."""
_RIVAL = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|could|might|may(?!\s+[12])|actually|really|rather|correct(?:ed|ion|ly)?|sorry|wait|total|answer"
    r"|final|truly|instead|alternatively|otherwise|else|unless|if|not|no|but|likely|better|should|would|now|new|revised|updated|i)\b|(?<!the\s)\bright\b"
)
"""Words of an aside whose number is another answer."""
_NOT = re.compile(
    rf"(?<!\bis)(?<!\bare)(?<!\bwas)[,(\s]*\b(?:(?:and|but)\s+)?(?:not|rather\s+than|instead\s+of|as\s+opposed\s+to)"
    rf"\s+{_N}(?:\s+(?:or|nor)\s+{_N})*\)?(?=\s*(?:$|[.;,]|but\b))"
)
_BRACKETS = re.compile(r"\s*\(([^()]*)\)")
_ASIDES = (
    # When: `in 2015`, `2015: 45`.
    re.compile(
        rf"[,(\s]*\b(?:in|for|by|during|since|as\s+of|at\s+the\s+end\s+of)\s+(?:the\s+)?(?:(?:fiscal\s+)?years?\s+)?(?:{_MONTH}\s+)?{_YEAR}"
        rf"(?:\s*(?:,|and|to|-)+\s*{_YEAR})*(?!\s*[a-z]*\s*(?:or|to|/)\s*[0-9])\)?"
    ),
    re.compile(rf"^{_YEAR}\s*[:=]|^{_YEAR}\s+(?:had|has|saw|shows|reached|recorded)\s+(?={_ABOUT}{_N})"),
    re.compile(rf"[,(\s]*\b(?:between|from)\s+{_YEAR}\s+(?:and|to)\s+{_YEAR}(?!.*\bor\b)"),
    # Which bar, of which: `the 2016 bar`, `the 5th bar`, `of the 6 balls, 4`, `and 0 cats`, `aged 65+`.
    re.compile(
        rf"\bthe\s+(?:{_YEAR}|[0-9]+(?:st|nd|rd|th))\s+(?=(?:bar|column|line|point|slice|segment)\b(?!.*\bor\b))|\b(?:labell?ed|marked)\s+{_YEAR}"
        rf"|^(?:among|of|out\s+of)\s+(?:the\s+)?{_N}\s+[a-z]+(?:\s+[a-z]+)?,\s*(?={_N})|\s+and\s+0\s+[a-z]+$|\s+aged?\s+{_N}\+"
    ),
    # What is added up: `adding 12 and 8 gives 20`.
    re.compile(
        rf"^(?:adding|multiplying|subtracting|dividing)\s+{_N}\s+(?:and|by|from|to)\s+{_N},?\s+(?:gives|yields|equals|makes|we\s+get)\s+(?={_N}\W*$)"
    ),
    # Where, and of whom: `at x = 3`, `in group: 3`, `for 18-24 year olds`, `group 3 has 45`.
    re.compile(
        rf"(?:^|[,\s]+)\b(?:at|when|where|for|in|with)\s+(?:(?:[a-z]\w*\s+){{0,2}}?[a-z]\w*\s*=\s*{_N}"
        rf"|(?!(?:the|this|that)\b)[a-z]\w*\s*:\s*{_N}(?=\s*(?:$|[.,;])))"
    ),
    re.compile(
        rf"[,\s]*\b(?:for|among|in|of|aged?)\s+(?:[a-z]+\s+){{0,3}}?{_N}\s*(?:-|to)\s*{_N}(?:[\s-]+[a-z-]+){{0,4}}"
    ),
    re.compile(
        rf"^(?:the\s+)?(?!(?:about|approximately|around|roughly|nearly|almost|only|just|exactly|total)\b)[a-z]+\s+[0-9]+\s+(?=(?:has"
        r"|have|had|is|was|sold|made|earned|produced|recorded|reported|received|scored|got|shows?|showed|reach(?:es|ed)|spent|contains?"
        rf"|holds?|represents?)\s+{_ABOUT}{_N})"
    ),
    # From what to what, where the change is given; and against what.
    re.compile(rf"\b(?:[a-z]+\s+)?from\s+{_N}\s+to\s+{_N}(?=[^0-9]*\b(?:of|is|by)\s+{_ABOUT}{_N})"),
    re.compile(
        rf"(?:^|[,;\s]+)\b(?:(?:up|down)\s+from|compared\s+(?:to|with)|(?:as\s+)?against|relative\s+to|while|whereas)\b{_REST}"
    ),
    re.compile(rf",\s*(?:which\s+is\s+)?{_N}(?:\s+[a-z]+){{0,2}}?\s+(?:less|(?:[a-z]+er|more))\s+than\b{_REST}"),
    # Out of how many, and how many of them.
    re.compile(
        rf"\s*\b(?:(?:out\s+of|of\s+(?:the|these|those|all(?:\s+the)?))\s+{_N}|per\s+1(?:,?0)+(?![0-9.]))(?:\s+[a-z]+)?"
    ),
    re.compile(rf"(?:[,;]\s*{_N}\s+of\s+(?:which|whom|them)|;\s*{_N}\s+(?:is|are|was|were))\b{_REST}"),
    re.compile(rf"(?:[,;]\s*(?:with|when|where)|[,;\s]+(?:including|of\s+(?:which|whom|them)))\b{_REST}"),
)
_OF_YEAR = re.compile(
    rf"(?P<year>(?:[^0-9]*\bin\s+(?:the\s+year\s+)?|fy\s?)?{_YEAR})"
    rf"(?:,?\s+(?:with|at)\s+{_ABOUT}{_N}(?:\s+[a-z]+)?|\s+\({_N}(?:\s+[a-z]+)?\))?"
)
_LONE = re.compile(r"[0-9]{1,9}(?:,[0-9]{3})*(?:\.[0-9]{1,9})?")
_PART = re.compile(rf"({_LONE.pattern})\s?(%?)")
_BEGINS_LIST = re.compile(r"[0-9][^:;,(=]*?\s*([:;,=])\s")
_TWICE = re.compile(
    rf"[^0-9]*(?P<one>{_LONE.pattern}\s?%?)(?P<between>[^0-9.(]*[a-z]{{3}}[^0-9.]*)(?P<two>{_LONE.pattern}\s?%?)(?P<behind>[^0-9]*)"
)
_TOTAL = re.compile(
    rf"\b(?:in\s+)?total\b(?:\s+(?:number|count|amount|of|is|was|are|there|[a-z]+s))*\s*[:=,]?\s*(?:is\s+|there\s+are\s+)?{_ABOUT}(?P<behind>{_N})"
    rf"|(?P<before>{_N})(?:\s+[a-z]+){{0,2}}?\s+(?:in\s+total|total(?!\s*[:=a-z])|altogether|in\s+all)\b"
)
_JOINED = re.compile(r"(?:\b(?:or|to|and|plus|minus|times|vs|versus)|[-/*+\u00d7])\s*$")
_JOINED_BEHIND = re.compile(r"\s*(?:(?:or|to|vs|versus|plus|minus|times)\b|[-/*+\u00d7]\s*[0-9])")
_STATED = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?|answer|not|or)\b|=|:|^|[.;!?]\s)\s*(?:(?:about|approximately|around|roughly)\s+)?"
    r"[-+$\u20ac\u00a3]?[0-9][0-9.,]*%?(?=\s*(?:$|[.;,!?]|\b(?:or|and|but|no|so)\b)|\s+[a-z]+\s*[.;,!?])"
)
_FINAL = re.compile(r"\b(?:final|result|hence|therefore|thus|so|correct)\b[^.;]*$")
"""At the end of what stands before a declaration: it is the answer whatever was given before."""
_GIVEN = re.compile(
    rf"(?:^|[.;!?]\s|\b(?:is|are|was|were)\s|[=:])\s*{_ABOUT}(?!{_YEAR}\s+[a-z]){_N}(?!\s*(?:[-+*/^\u00d7\u00f7(]|x\b)\s*[0-9(])(?![0-9.,])"
)


def read_answer(text: str) -> tuple[Quantity | None, Reason]:
    """Read the one number that an answer gives in digits or words.

    It is the only one beside asides (`45 in 2015`, `45 (n=3)`, `45, not 50`), the one called the total, or what is
    declared at the end. A sentence that repeats the question's year (`The number of deals in 2016 is 20.`) declares 20.
    Where another number was stated before (`It is 20. No, it is 30.`, `45 dogs: 30`) there is none.

    Args:
        text: The answer, of capped length.
    """
    if "!" in text and _FACTORIAL.search(text) is not None:
        return None, Reason.NOT_A_NUMBER
    text = in_digits(part_in_digits(from_chinese(normalise(text))))
    text = "0" if text in ("none", "nil") else text
    if _DIGIT.search(text) is None:
        return None, Reason.NOT_A_NUMBER
    quantity, reason = read_quantity(text)
    if quantity is None and (rest := without_asides(text)) != text:
        text = rest
        quantity, _ = read_quantity(text)
    if quantity is None and (total := _total(text)) is not None:
        quantity, _ = read_quantity(total)
    if quantity is not None:
        return quantity, Reason.OK
    declaration = declared(text)
    if declaration is None:
        return None, reason
    quantity, _ = read_quantity(declaration.value)
    if quantity is None or quantity.words_before or quantity.words_after > MAX_WORDS_AFTER:
        return None, reason
    number = re.search(_N, declaration.value)
    # What is declared may have been worked out before: `50 - 30 = 20, so the answer is 20`.
    before = declaration.before
    if number is not None:
        before = re.sub(rf"=\s*{re.escape(number[0])}(?![0-9.%]*[0-9%])", "=", before)
    is_final = declaration.is_explicit or _FINAL.search(before) is not None
    if states_number(before) or (not is_final and _GIVEN.search(before) is not None):
        return None, reason
    return quantity, Reason.OK


def read_year(text: str) -> tuple[Quantity | None, Reason]:
    """Read the year that an answer gives, also beside the number of that year: `2016 (20 deals)`, `in 2016 at 45`.

    Args:
        text: The answer, of capped length.
    """
    named = _OF_YEAR.fullmatch(in_digits(normalise(text)))
    return read_quantity(named["year"].removeprefix("fy").strip()) if named is not None else read_answer(text)


def states_number(text: str) -> bool:
    """Return whether a text already gives a number as an answer: behind `is`, or as a clause of its own.

    Args:
        text: What stands before a declaration, case-folded, of capped length.

    Example:
        >>> states_number("it is 20. no, the value"), states_number("the number of deals in 2016")
        (True, False)
    """
    return _STATED.search(text) is not None


def without_asides(text: str) -> str:
    """Return a text without the numbers that answer nothing beside another: when, against what, made of what.

    Args:
        text: Through `in_digits`.

    Example:
        >>> without_asides("45 in 2015, not 50"), without_asides("45 or 50"), without_asides("2015")
        ('45', '45 or 50', '2015')
        >>> without_asides("the value is 45 at x = 3"), without_asides("4 people, 3 men and 1 woman")
        ('the value is 45', '4 people')
    """
    text = _shortened(text, _NOT.sub(" ", text))
    text = _shortened(text, _BRACKETS.sub(lambda match: _in_brackets(text, match), text))
    for aside in _ASIDES:
        text = _shortened(text, aside.sub(lambda match: match[0] if _RIVAL.search(match[0]) else " ", text))
    opening = _BEGINS_LIST.search(text)
    if opening is not None:
        head, parts = text[: opening.start(1)], text[opening.end(1) :]
        if _adds_up(head, parts) or (opening[1] == ":" and _is_one_part(head, parts)):
            return head.strip()
    twice = _TWICE.fullmatch(text)
    if twice is not None and twice["one"].strip() == twice["two"].strip():
        return (text[: twice.start("between")] + twice["behind"]).strip()
    return text


def _shortened(text: str, rest: str) -> str:
    """Return what is left of a text, or the text itself where no number is left."""
    rest = rest.strip(" ,;:")
    return rest if _DIGIT.search(rest) is not None else text


def _in_brackets(text: str, match: re.Match[str]) -> str:
    """Return nothing for brackets that explain the number in front of them, and those that do not as they are."""
    content = re.sub(rf"^\s*(?:in\s+)?{_YEAR}\s*[:=,]?\s*|\s+in\s+{_YEAR}\s*$", "", match[1])
    before = _PART.findall(text[: match.start()])
    numbers = _PART.findall(content)
    if _RIVAL.search(content) is not None or not before or re.search(r"\bor\W*$", text[: match.start()]) is not None:
        return match[0]
    if len(numbers) > 1:
        return "" if _adds_up("".join(before[-1]), content) else match[0]
    if not numbers:
        return "" if content != match[1] else match[0]
    (number, percent), (whole, whole_percent) = numbers[0], before[-1]
    number_value, whole_value = _value(number, percent), _value(whole, whole_percent)
    is_share = bool(percent) and not whole_percent and whole_value > 1
    has_name = re.search(r"[a-z][^0-9]*[0-9]", content) is not None or (
        re.search(r"[a-z]$", text[: match.start()]) is not None and re.search("[a-z]", content) is not None
    )
    return "" if content != match[1] or number_value == whole_value or is_share or has_name else match[0]


def _adds_up(head: str, parts: str) -> bool:
    """Return whether a number is the sum, and for two also the difference, product or quotient, of several others."""
    whole, numbers = _LONE.findall(head), [_value(number, "") for number in _LONE.findall(parts)]
    if (
        len(whole) != 1
        or len(numbers) < 2
        or re.search(r"\b(?!and\b)[a-z]|[+*/\u00d7-]", parts) is None
        or _RIVAL.search(parts)
    ):
        return False
    results = [sum(numbers), math.prod(numbers)]
    if len(numbers) == 2:
        results += [abs(numbers[0] - numbers[1]), numbers[0] / numbers[1] if numbers[1] else 0]
    return _value(whole[0], "") in results


def _is_one_part(head: str, parts: str) -> bool:
    """Return whether things are counted and then some of them: `5 dogs: 2 brown`."""
    whole, numbers = _LONE.findall(head), _LONE.findall(parts)
    is_counted = (
        re.search(r"(?<![0-9.])[0-9]+\s+[a-z-]+(?:\s+[a-z-]+)?$", head) is not None
        and re.search("[a-z]", parts) is not None
    )
    return is_counted and len(whole) == len(numbers) == 1 and _value(numbers[0], "") < _value(whole[0], "")


def _value(number: str, percent: str) -> Fraction:
    return Fraction(number.replace(",", "")) / (100 if percent else 1)


def _total(text: str) -> str | None:
    """Return a text with all numbers but the one that it calls the total as letters; None where it calls none so.

    Example:
        >>> _total("5 red and 4 blue, 9 in total"), _total("5 or 9 in total")
        ('n red and n blue, 9 in total', None)
    """
    totals = list(_TOTAL.finditer(text))
    if len(totals) != 1:
        return None
    start, end = totals[0].span("behind" if totals[0]["behind"] else "before")
    before, behind = text[:start], text[end:]
    if _JOINED.search(before) is not None or _JOINED_BEHIND.match(behind) is not None:
        return None
    return re.sub(_N, "n", before) + text[start:end] + re.sub(_N, "n", behind)
