"""The number that an explanation ends in: the result of a calculation, a total, a bound, or parts that add up."""

import re

from rewards.text.option_texts import OptionTexts

_LAST_NUMBER = re.compile(
    r"(?P<before>(?:.*[^\w.,$/\u221a-])?)(?P<value>[$\u20ac\u00a3]?-?(?:\(?\u221a\(?[0-9]+\)?|[0-9][0-9,]*(?:\.[0-9]+)?\u03c0?(?:\u221a\(?[0-9]+\)?)?)(?:/[0-9]+)?)"
    r"\s*(?P<behind>[%\u00b0]|[a-z]+(?:\s+[a-z]+){0,3})?",
    re.DOTALL,
)
_NUMBER_CLAUSE = re.compile(r"[.,;:!?]+(?:\s+|$)|[()]|\s(?=(?:but|because|since|so|while|whereas|if|when)\s)")
_RESULT = re.compile(
    r"(?:[=\u2248\u2192\u21d2]|->|\b(?:is|are|was|were|be|equals?|equal\s+to|mak(?:es?|ing)|giv(?:es?|ing)|gets?|got|yield(?:s|ing)?"
    r"|leav(?:es?|ing)|lead(?:s|ing)?\s+to|com(?:es?|ing)\s+(?:out\s+)?to|result(?:s|ing)?\s+in|works?\s+out\s+(?:at|to|as)"
    r"|(?:add|sum)(?:s|ing)?\s+(?:up\s+)?to|amount(?:s|ing)?\s+to|total(?:s|ling|ing)?(?:\s+of)?|sum\s+of|answer|result|count|so|hence|thus"
    r"|therefore|have|has|find|obtain))[\s:]*(?:(?:about|exactly|only|just|approximately|the|an?|total|of|\$)\s*)*$"
)
"""In front of the number that a calculation ends in."""
_EQUALS = re.compile(r"(?:[=\u2248\u2192\u21d2]|->|\b(?:equals?|makes?|gives?|yields?|totals?)\b)\s*$")
_RELATED = re.compile(
    r"\b(?:not|no|never|\w+n't|cannot|than|from|between|by|half|twice|double|times|third|quarter|with|without|at|in|on|and|or|to|of|for|as|like"
    r"|unlike|over|under|above|below|minus|plus|per|until|before|after|sides?|first|option)\b|[-+*/x\u00d7\u00f7^<>]\s*$"
)
"""In front of a number: it is a part of a calculation, a place or what is compared with."""
_ONE_CALCULATION = re.compile(r"[\d\s.+*/x\u00d7\u00f7()^%-]+=[\s\d.]+")
_BOUND = re.compile(
    r"(?:(?:it|this|that|there)\s+(?:is|are)\s+|it's\s+)?(?:(?P<more>more|greater|higher|larger|over|above|beyond)|(?P<less>less|fewer|lower|smaller|under"
    r"|below)|at\s+(?P<least>least)|at\s+(?P<most>most))(?:\s+than)?\s+(?P<value>[0-9]+(?:\.[0-9]+)?)\W*"
)
_OPERATORS = ("+", "-", "*", "/", "x", "\u00d7", "\u00f7", "^", "<", ">", "minus", "plus", "times")
_RIVAL_NUMBER = re.compile(r"\b(?:or|maybe|perhaps|but|actually|rather|no|wait|not|instead)\b")
_EDGES = " .,;:!?-()[]{}\"'*"


def calculates_another(texts: OptionTexts, text: str, label: str, *, says_own: bool) -> bool:
    """Return whether a folded text ends in the number of another option: `5 x 4 = 20`, `for a total of 18`.

    Args:
        texts: Of all options.
        text: What is said behind a label, its numbers in digits.
        label: Of the option in front of it.
        says_own: Whether the option's own text is said too.
    """
    number = texts.number_of(label)
    bound = _BOUND.fullmatch(text)
    if bound is not None and number is not None:
        limit = float(bound["value"])
        is_within = (
            number > limit if bound["more"] else number < limit if bound["less"]
            else number >= limit if bound["least"] else number <= limit
        )  # fmt: skip
        return not is_within
    if texts.has_other_unit(text.strip(_EDGES), label):
        return True
    is_whole = _ONE_CALCULATION.fullmatch(text) is not None
    last = next((clause for clause in reversed(_NUMBER_CLAUSE.split(text)) if clause.strip(_EDGES)), "")
    ending = _LAST_NUMBER.fullmatch(last.strip(_EDGES))
    if ending is None or not ending["before"].strip():
        return False
    value, behind = ending["value"], ending["behind"] or ""
    unit = behind.split(" ")[0]
    other = texts.with_text(f"{value} {unit}") or texts.with_text(value)
    if not other or label in other:
        return False
    before = ending["before"]
    is_result = _EQUALS.search(before) is not None and _gives(texts, before, label, number)
    if not is_whole and not is_result and (says_own or _gives(texts, text, label, number)):
        return False
    if before.rstrip().endswith(_OPERATORS):
        return False
    return _RESULT.search(before) is not None or _RELATED.search(before) is None


def adds_up(text: str, number: int) -> bool:
    """Return whether a text holds the number, or numbers that sum to it: `there are 3: 1 red and 2 blue`."""
    numbers = [int(digits) for digits in re.findall(r"(?<![\w.,/-])[0-9]{1,9}(?![\w.,/-]*[0-9])", text)]
    is_told = number in numbers or (len(numbers) > 1 and sum(numbers) == number)
    return is_told and _RIVAL_NUMBER.search(text) is None


def _gives(texts: OptionTexts, text: str, label: str, number: float | None) -> bool:
    """Return whether a text holds the number of an option, or its text where that is no plain number."""
    if number is None:
        return any(label in labels for labels, _, _ in texts.mentions(text))
    return number in map(float, re.findall(r"(?<![\w.])[0-9]+(?:\.[0-9]+)?(?!\.?[\w])", text))
