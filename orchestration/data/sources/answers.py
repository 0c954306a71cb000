"""Reference answers as sources write them: options as letters, short answers and their kind, captions."""

import json
import re
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType

from orchestration.data.sources.fields import as_answer, as_integer, as_text, is_missing, refuse
from rewards.text.plain_text import normalise
from rewards.text.quantities import read_quantity

LETTERS = string.ascii_uppercase
YEARS = (1800, 2100)
MAX_CHARS = 256
"""Longer references are text, because the chart reward reads no longer answers."""

_TIME = re.compile(r"\byears?\b(?!\s+(?:of\s+)?[0-9])|^\s*(?:since\s+|until\s+|in\s+)?when\b|\bdecade\b", re.IGNORECASE)
_QUANTITY = re.compile(
    r"\b(?:values?|number|amount|total|sum|average|mean|median|difference|ratio|percent(?:age)?|share|rate|population"
    r"|price|cost|count|size)\b",
    re.IGNORECASE,
)
_HOW_MANY = re.compile(r"\bhow\s+(?:many|much|long|often|large|big|high|old)\b", re.IGNORECASE)
_YEAR = re.compile(r"[0-9]{4}")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_OPENS, _CLOSES = re.compile("<answer>", re.IGNORECASE), re.compile("</answer>", re.IGNORECASE)
_FINAL = re.compile(r"(?:^|\n)####[ \t]*([^\n#]{1,64})\s*$")
"""How GSM8K ends a solution."""
ANSWER_KEYS = ("answer", "answers", "text", "value", "ground_truth")
"""Keys of an object that is an answer."""
_OPENING = re.compile(
    r"(?:in (?:the|this) (?:image|picture|photo|photograph),? |(?:the|this) (?:image|picture|photo|photograph)"
    r"(?: vividly| prominently| clearly)? (?:shows|depicts|features|presents|captures|displays|showcases|portrays"
    r"|illustrates) |(?:the image|this) is (?:a|an) (?:image|picture|photo|photograph) of )",
    re.IGNORECASE,
)


def letter(index: int) -> str:
    """Return the letter of an option by its index from 0; a number without a letter stays a number.

    An index beyond the options still becomes a letter, which a later stage rejects.

    Example:
        >>> letter(1), letter(30), letter(-1)
        ('B', '30', '-1')
    """
    return LETTERS[index] if 0 <= index < len(LETTERS) else str(index)


def from_index(value: object, name: str, first: int = 0) -> str:
    """Read one index or a list of indices, counted from `first`, as letters.

    Example:
        >>> from_index(2, "answer"), from_index([0, 2], "answer"), from_index("1", "answer", 1)
        ('C', 'A, C', 'A')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(letter(as_integer(item, name) - first) for item in value)
    return letter(as_integer(value, name) - first)


def from_letters(value: object, name: str) -> str:
    """Read one letter or several; anything else is kept as it is, for a later stage to reject.

    Example:
        >>> from_letters("b", "answer"), from_letters(["A", "C"], "answer"), from_letters("?", "answer")
        ('B', 'A, C', '?')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(from_letters(item, name) for item in value)
    text = as_answer(value, name).strip()
    return text.upper() if len(text) == 1 else text


def from_text(value: object, options: tuple[str, ...], name: str) -> str:
    """Read an answer that repeats the text of an option as the letter of the first such option.

    Example:
        >>> from_text("cat", ("dog", "cat"), "answer"), from_text("cow", ("dog", "cat"), "answer")
        ('B', 'cow')
    """
    text = as_answer(value, name)
    return letter(options.index(text)) if text in options else text


_BARE_LETTER = re.compile(r"\W*(?:(?:option|choice|answer)\W+)?([A-Za-z])\W*", re.IGNORECASE)


def bare_letter(text: str) -> str | None:
    """Return the letter of a text that is one letter, perhaps in brackets, or behind `option`; else None.

    Example:
        >>> bare_letter("(b)"), bare_letter("Option D."), bare_letter("-x"), bare_letter("cat")
        ('B', 'D', None, None)
    """
    found = _BARE_LETTER.fullmatch(text.strip())
    is_formula = any(sign in text for sign in "-+=/^$\\")
    return found[1].upper() if found and not is_formula else None


def is_yes_no(answer: str) -> bool:
    """Return whether the whole answer is yes or no."""
    return answer.strip().casefold() in ("yes", "no")


def is_quantity(answer: str) -> bool:
    """Return whether the answer is one number, perhaps with a unit, as the chart reward reads it: 3, $1 million."""
    if len(answer) > MAX_CHARS:
        return False
    quantity, _ = read_quantity(normalise(answer))
    return quantity is not None and quantity.words_before == 0 and quantity.words_after <= 1


def asks_for_year(question: str, answer: str) -> bool:
    """Return whether a bare four-digit integer is a year, so that 2010 for 2015 is wrong, not within 5 %.

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
    """Return the answer_type of a chart reference: list, year, number or text.

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
    """Return several answers as the list that the chart reward reads."""
    return json.dumps(answers, ensure_ascii=False)


def short_task(answer: str) -> tuple[str, str]:
    """Return (task, answer_type) of a short answer outside charts: yes/no, counts and other numbers, words.

    Example:
        >>> short_task("yes"), short_task("3"), short_task("rubber")
        (('match_yesno', ''), ('chart', 'number'), ('match_text', ''))
    """
    if is_yes_no(answer):
        return "match_yesno", ""
    return ("chart", "number") if is_quantity(answer) else ("match_text", "")


def without_opening(caption: str) -> str:
    """Return a caption without a boilerplate opening, which would earn word overlap without describing anything.

    Example:
        >>> without_opening("The image shows a dog."), without_opening("In this picture, two men talk.")
        ('A dog.', 'Two men talk.')
    """
    opening = _OPENING.match(caption)
    rest = caption[opening.end() :] if opening else caption
    return rest[:1].upper() + rest[1:] if opening else caption


def answer_text(value: object, name: str, *, are_alternatives: bool = False) -> str:
    """Read one answer as `solution_text`, or several as the list that rewards read.

    Several are a list of texts and numbers, or of objects with one in `answer`, as VQA has them.
    """
    texts = accepted(value, name, are_alternatives=are_alternatives)
    return texts[0] if len(texts) == 1 else as_list(texts)


def accepted(value: object, name: str, *, are_alternatives: bool = True) -> tuple[str, ...]:
    """Return the answers that a value accepts.

    Args:
        value: A text, a number, an object with an answer in it, or a list of these.
        name: Of its field, for messages.
        are_alternatives: Whether one of a list is enough, so that empty ones can be left out; items of one answer
            cannot.

    Example:
        >>> accepted([{"answer": "cat", "answer_id": 1}, {"answer": "kitten"}], "answers")
        ('cat', 'kitten')
        >>> accepted({"text": ["Nokia"], "answer_start": [3]}, "answers"), accepted("<answer>3</answer>", "answer")
        (('Nokia',), ('3',))
    """
    if isinstance(value, Mapping):
        value = next((value[key] for key in ANSWER_KEYS if value.get(key) is not None), value)
    if not isinstance(value, (list, tuple)):
        return (solution_text(as_answer(value, name)),)
    found = [item for item in value if not (are_alternatives and (is_missing(item) or item == ""))]
    if not found:
        return refuse(name, None, "an answer")
    return tuple(text for index, item in enumerate(found) for text in accepted(item, f"{name}[{index}]"))


def solution_text(text: str) -> str:
    r"""Return the answer of a text that reasons before it: between answer tags, in a box, or behind `####`; else all.

    Example:
        >>> solution_text(r"It is \frac{1}{2}, so \boxed{\frac{1}{2}}."), solution_text("9 - 5 = 4\n#### 4")
        ('\\frac{1}{2}', '4')
    """
    inner = between_tags(text)
    if "<answer>" not in text and "</think>" in text:
        inner = text.rpartition("</think>")[2].strip()
    boxes = _boxes(inner)
    if boxes:
        last_line = inner.rfind("\n", 0, boxes[-1][0]) + 1
        contents = {content for start, content in boxes if start >= last_line}
        return boxes[-1][1] if len(contents) == 1 else inner
    final = _FINAL.search(inner)
    return final[1].strip() if final else inner


def _boxes(text: str) -> list[tuple[int, str]]:
    """Return where boxes begin, and what is in them; one that is not closed is none."""
    found = []
    for match in _BOX.finditer(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            end += 1
        if not depth:
            found.append((match.start(), text[match.end() : end - 1].strip()))
    return found


def between_tags(text: str) -> str:
    """Return the text between the last pair of answer tags, or the whole text.

    Example:
        >>> between_tags("<answer> 145 </answer>"), between_tags("145")
        ('145', '145')
    """
    starts, ends = ([tag.span() for tag in pattern.finditer(text)] for pattern in (_OPENS, _CLOSES))
    return text[starts[-1][1] : ends[-1][0]].strip() if starts and ends and starts[-1][1] <= ends[-1][0] else text


def _from_option(value: object, name: str, options: tuple[str, ...]) -> str:
    return ", ".join(from_text(item, options, name) for item in (value if isinstance(value, list) else [value]))


READERS: Mapping[str, Callable[[object, str, tuple[str, ...]], str]] = MappingProxyType(
    {
        "text": lambda value, name, options: answer_text(value, name),
        "single": lambda value, name, options: as_answer(value, name),
        "integer": lambda value, name, options: str(as_integer(value, name)),
        "index": lambda value, name, options: from_index(value, name),
        "index1": lambda value, name, options: from_index(value, name, 1),
        "letter": lambda value, name, options: from_letters(value, name),
        "option": _from_option,
        "tagged": lambda value, name, options: between_tags(as_answer(value, name)).strip(),
        "caption": lambda value, name, options: as_text(value, name),
        "any": lambda value, name, options: answer_text(value, name, are_alternatives=True),
    }
)
"""How a source writes its answers. text: a text, a number, or a list of those; single: the same without lists;
integer: a whole number; index (from 0), index1 (from 1), letter, option (its text): become letters; tagged: between
<answer> tags; caption: a text; any: a text or several accepted ones, and where there are options a letter, label or
text of one."""


def _chart(question: str, answer: str) -> tuple[str, str, str]:
    return "chart", answer, chart_type(question, answer)


def _plot(question: str, answer: str) -> tuple[str, str, str]:
    return ("match_yesno", answer.strip().lower(), "") if is_yes_no(answer) else _chart(question, answer)


def _short(question: str, answer: str) -> tuple[str, str, str]:
    task, answer_type = short_task(answer)
    return task, answer, answer_type


TASKS: Mapping[str, Callable[[str, str], tuple[str, str, str]]] = MappingProxyType(
    {"chart": _chart, "plot": _plot, "short": _short}
)
"""(question, answer) -> (task, answer, answer_type) where the answer decides. chart: typed for the chart reward; plot:
the same, but yes and no go to matching; short: see short_task."""
