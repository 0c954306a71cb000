"""Options that a question lists in its own text: `A. cat B. dog`, in lines or in one line."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestration.data.sources.answers import bare_letter
from rewards.text.plain_text import normalise

LETTERS = string.ascii_uppercase
_STYLES = {
    "brackets": r"[(\[\uff08]\s?({letters})\s?[)\]\uff09]",
    "half": r"({letters})[)\uff09]",
    "dot": r"({letters})[.\uff0e\u3001]",
    "colon": r"({letters})\s?[:\uff1a]",
}
"""How a label is written, by name."""
_SECOND = re.compile(r"[Bb]\s?[)\].:\uff09\uff0e\u3001\uff1a]")
"""The second label of any list."""
_HEADER = re.compile(
    r"(?:^|(?<=[\s.?!:)\u3002\uff1f]))(?:(?:the|answer|possible|given|available|following)\s+)*"
    r"(?:choices?|options?|\u9009\u9879)(?:\s+(?:are|is))?\s*[:\uff1a]?\s*$",
    re.IGNORECASE,
)
"""What announces a list, at the end of the text before it."""
_ENDS = re.compile(r"(?:[.?!:)_\]\u3002\uff1f\uff01\uff1a\uff09\n]|[\u4e00-\u9fff])[ \t]*$")
"""Ends of a text after which a list may begin in the same line without being announced."""
_ORDERS = re.compile(
    r"(?:please\s+|then\s+|now\s+|first\s+)?(?:answer|select|choose|pick|give|provide|respond|reply|output|write|think"
    r"|return|state|your\s+(?:final\s+)?answer|the\s+answer\s+(?:is|should)|only\s+(?:answer|reply|give)"
    r"|\u8bf7|\u4ece)\b",
    re.IGNORECASE,
)
"""How a line begins that says how to answer."""
_ORDER_BEHIND = re.compile(rf"(?:(?<=[.;!)])|(?<=\w))\s+(?={_ORDERS.pattern})", re.IGNORECASE)
_ASKS = re.compile(
    r"[?\uff1f]|^(?:then\s+)?(?:find|calculate|compute|determine|solve|evaluate|prove|draw|name|what|which|who|how|when"
    r"|where|why|is|are|do|does|\u6c42)\b",
    re.IGNORECASE,
)
"""A text that asks: what stands before it is given, and is no list of options."""
_INNER_SENTENCE = re.compile(r"[.?!]\s+\S")
_OPEN_END = re.compile(r"\b(?:and|or|nor|versus|vs)\s*[,;]?$", re.IGNORECASE)
_SMALL_LETTER = re.compile(r"[(\[]?[a-z][)\].:]?")
_MARKS = re.compile(r"^[ \t]*(?:[-*\u2022][ \t]+)?(?:\*\*)?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Label:
    letter: str
    start: int
    end: int
    begins_line: bool


def options_in(question: str, *, is_choice: bool = False) -> tuple[str, tuple[str, ...]] | None:
    r"""Return a question without the list of options in it, and the options; None where it lists none.

    Labels are `A.`, `A:`, `A)` or `(A)`, consecutive from A and at least two, in lines or in one line, behind
    `Choices:` or `Options:` or nothing. A line behind the list that says how to answer stays in the question. Letters
    of persons, points and parts of a figure are no list: without an announcement a list ends the question, stands
    behind the end of a sentence or in lines of its own, and holds no sentences and no further question. Small letters
    are parts of a question, unless `is_choice` says that it is one of multiple choice.

    Example:
        >>> options_in("Which animal?\nChoices:\nA: cat\nB: dog\nAnswer with the letter.")
        ('Which animal?\nAnswer with the letter.', ('cat', 'dog'))
        >>> options_in("Did A. Smith or B. Jones write it?") is None
        True
    """
    if _SECOND.search(question) is None:
        return None
    for style, pattern in _STYLES.items():
        for letters in ("A-Z", "a-z"):
            found = _list_of(question, style, re.compile(_label(pattern, letters)), is_choice=is_choice)
            if found is not None:
                return found
    return None


def options_asked(question: str, answer: str) -> tuple[str, tuple[str, ...]] | None:
    """Return what `options_in` does, where the answer is a letter or the text of an option of that list.

    Example:
        >>> options_asked("Which? (A) cat (B) dog", "(B)"), options_asked("Which? (A) cat (B) dog", "cow")
        (('Which?', ('cat', 'dog')), None)
    """
    found = options_in(question, is_choice=_SMALL_LETTER.fullmatch(answer.strip()) is not None)
    if found is None:
        return None
    options = found[1]
    letter = bare_letter(answer)
    is_letter = letter is not None and LETTERS.index(letter) < len(options)
    texts = [normalise(option) for option in options]
    labelled = re.fullmatch(rf"(?:{'|'.join(_label(pattern, 'A-Z') for pattern in _STYLES.values())})\s*(.+)", answer)
    said = normalise(labelled[labelled.lastindex or 0] if labelled else answer)
    return found if is_letter or (said and said in texts) else None


def _label(pattern: str, letters: str) -> str:
    return rf"(?<![A-Za-z.\\(\[{{$]){pattern.replace('{letters}', f'[{letters}]')}"


def _list_of(
    question: str, style: str, label: re.Pattern[str], *, is_choice: bool
) -> tuple[str, tuple[str, ...]] | None:
    """Return the question without a list whose labels have one style, and the options."""
    labels = [
        _Label(
            match[1].upper(),
            match.start(),
            match.end(),
            bool(_MARKS.fullmatch(question[question.rfind("\n", 0, match.start()) + 1 : match.start()])),
        )
        for match in label.finditer(question)
    ]
    firsts = [index for index, one in enumerate(labels) if one.letter == "A"]
    if not firsts:
        return None
    run = labels[firsts[-1] :]
    lines = [one for one in run if one.begins_line]
    in_lines = run[0].begins_line and _are_consecutive(lines) and not _are_columns(run, lines)
    run = lines if in_lines else run
    if not _are_consecutive(run):
        return None
    before, header = _before(question, run[0])
    ends = [one.start for one in run[1:]]
    texts = [question[one.end : end] for one, end in zip(run, ends, strict=False)]
    last, after = _last(question[run[-1].end :])
    options = tuple(_cleaned(text) for text in (*texts, last))
    if not all(options) or any(_OPEN_END.search(option) for option in options[:-1]):
        return None
    if in_lines and any(_marks_after(question[one.end : end]) for one, end in zip(run, ends, strict=False)):
        return None
    is_lower = not is_choice and question[run[0].start : run[0].end].islower()
    if not header and not _stands_alone(before, options, after, style, is_lower=is_lower, in_lines=in_lines):
        return None
    rest = "\n".join(part for part in (before.rstrip(), after.strip()) if part)
    return (rest, options) if rest else None


def _cleaned(text: str) -> str:
    """Return an option without the list mark of the next one, Markdown around it, and the comma behind it."""
    return " ".join(re.sub(r"\n[ \t]*[-*\u2022][ \t]*$", "", text.rstrip(" \t*")).strip(" \t\n*").rstrip(",;").split())


def _are_consecutive(labels: Sequence[_Label]) -> bool:
    return len(labels) > 1 and [one.letter for one in labels] == list(LETTERS[: len(labels)])


def _are_columns(run: Sequence[_Label], lines: Sequence[_Label]) -> bool:
    """Return whether lines hold several options each: `A. 1  C. 3`, or `A. 1  B. 2`."""
    last = lines[-1].letter if lines else "A"
    return any(not one.begins_line and one.letter > last for one in run) or any(
        not one.begins_line and other.begins_line and other.letter == one.letter for one, other in pairwise(run)
    )


def _marks_after(text: str) -> bool:
    """Return whether an empty line and more text stand within an option: that is no option any more."""
    return "\n\n" in text.strip()


def _before(question: str, first: _Label) -> tuple[str, bool]:
    """Return the text before a list, without what announces the list, and whether something does."""
    text = question[: first.start]
    text = re.sub(r"[ \t]*(?:[-*\u2022][ \t]+)?\*{0,2}$", "", text)
    header = _HEADER.search(text)
    return (text[: header.start()], True) if header else (text, False)


def _last(text: str) -> tuple[str, str]:
    """Return the last option, to the end of its line or to an order in it, and what follows."""
    text = text.lstrip()
    line, _, after = text.partition("\n")
    order = _ORDER_BEHIND.search(line)
    if order is not None:
        line, after = line[: order.start()], f"{line[order.end() :]}\n{after}"
    return line, after


def _stands_alone(
    before: str, options: Sequence[str], after: str, style: str, *, is_lower: bool, in_lines: bool
) -> bool:
    """Return whether what nothing announces is a list of options."""
    after = after.strip()
    if is_lower or not before.strip() or _ASKS.search(after):
        return False
    if in_lines:
        return True
    if any("?" in option or _INNER_SENTENCE.search(option) for option in options):
        return False
    asks = bool(re.search(r"[?\uff1f]\s*$", before))
    return bool(_ENDS.search(before)) and (style == "brackets" or asks or len(options) > 2)
