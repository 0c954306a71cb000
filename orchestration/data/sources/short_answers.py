"""What kind of short answer a reference is: yes or no, number, year, list, text."""

import json
import re

from rewards.plain_text import normalise
from rewards.quantities import read_quantity

YEARS = (1800, 2100)
MAX_CHARS = 256
"""Longer references are text: the chart reward reads no more of an answer."""

_TIME = re.compile(r"\byears?\b(?!\s+(?:of\s+)?[0-9])|^\s*(?:since\s+|until\s+|in\s+)?when\b|\bdecade\b", re.IGNORECASE)
_QUANTITY = re.compile(
    r"\b(?:values?|number|amount|total|sum|average|mean|median|difference|ratio|percent(?:age)?|share|rate|population"
    r"|price|cost|count|size)\b",
    re.IGNORECASE,
)
_HOW_MANY = re.compile(r"\bhow\s+(?:many|much|long|often|large|big|high|old)\b", re.IGNORECASE)
_YEAR = re.compile(r"[0-9]{4}")


def is_yes_no(answer: str) -> bool:
    """Tell whether the whole answer is yes or no."""
    return answer.strip().casefold() in ("yes", "no")


def is_quantity(answer: str) -> bool:
    """Tell whether the answer is one number, perhaps with a unit, as the chart reward reads it: 3, $1 million, 45%."""
    if len(answer) > MAX_CHARS:
        return False
    quantity, _ = read_quantity(normalise(answer))
    return quantity is not None and quantity.words_before == 0 and quantity.words_after <= 1


def asks_for_year(question: str, answer: str) -> bool:
    """Tell whether a bare four-digit integer is a year, so that 2010 for 2015 is wrong and not within 5 %.

    It is one in 1800..2100 if the question asks for a time: it has `year` (not `year 2010`), a leading `when`, or
    `decade`, and no `how many`, and no word for a quantity (value, number, total, share ...) before that.

    Example:
        >>> asks_for_year("Which year has the highest value?", "2015")
        True
        >>> asks_for_year("What is the number of deaths in the year 2010?", "1950")
        False
        >>> asks_for_year("How many people voted that year?", "1950")
        False
    """
    answer = answer.strip()
    if not _YEAR.fullmatch(answer) or not YEARS[0] <= int(answer) <= YEARS[1]:
        return False
    time = _TIME.search(question)
    if time is None or _HOW_MANY.search(question):
        return False
    quantity = _QUANTITY.search(question)
    return quantity is None or time.start() < quantity.start()


def chart_type(question: str, answer: str) -> str:
    """Give the answer_type of a chart reference: list, year, number or text.

    Example:
        >>> chart_type("Which countries?", "[India, Brazil]"), chart_type("What share?", "45%")
        ('list', 'number')
    """
    text = answer.strip()
    if text.startswith("[") and text.endswith("]"):
        return "list"
    if asks_for_year(question, answer):
        return "year"
    return "number" if is_quantity(answer) else "text"


def as_list(answers: tuple[str, ...]) -> str:
    """Write several answers that belong together as the list that the chart reward reads."""
    return json.dumps(answers, ensure_ascii=False)


def short_task(answer: str) -> tuple[str, str]:
    """Give (task, answer_type) of a short answer outside charts: yes/no, counts and other numbers, words.

    Example:
        >>> short_task("yes"), short_task("3"), short_task("rubber")
        (('match_yesno', ''), ('chart', 'number'), ('match_text', ''))
    """
    if is_yes_no(answer):
        return "match_yesno", ""
    return ("chart", "number") if is_quantity(answer) else ("match_text", "")
