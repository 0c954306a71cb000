"""The declaration at the end of a short answer: `Denver is the capital of Colorado. The answer is D.` declares D."""

import re
from typing import NamedTuple

from rewards.text.denial import DENIED, NO_DOUBT, UNSURE
from rewards.text.refusal import refuses

_IS = (
    r"(?:(?:\b(?:is|are|was|were|equals?|(?:would|should|must|will)\s+be)|(?<=\b[Ii]t)'s)\b"
    r"(?:\s+(?:equal\s+to|therefore|thus|then)\b)?\s*:?|(?<![!<>])=|:(?=\s))\s*"
)
_CALLED_ANSWER = re.compile(
    rf"\b(?:answers?|ans|options?|choices?|selected|selection|conclusion|guess|(?:correct|right)\s+letter)\b[^.;!?\n:=]{{0,60}}?{_IS}"
    r"|\b(?:choose|chose|pick|select|go(?:ing)?\s+with)\s+"
    r"|(?:\bI(?:\s+(?:would|will|must)|'d|'ll)?(?:\s+have\s+to)?\s+(?:say|answer|think|believe|guess)"
    r"|(?<=\bso)|(?<=\bthus)|(?<=\bhence)|(?<=\bmeans)(?<!\bno means)|(?<=\btherefore))[\s,:]+(?=[^\s,;:]+$)"
    "|(?<!\u4e0d)(?:\u7b54\u6848\\s*(?:\u662f|\u4e3a|\u9009|(?=:))|\u9009(?:\u62e9|\u9879)?(?:\u662f|\u4e3a)?)\\s*:?\\s*",
    re.IGNORECASE,
)
"""Behind `so` and `I say` only a last word is called the answer. The Chinese words: answer is, choose, option."""
_REJECTED = re.compile(
    r"\b(?:exclud|avoid|reject|eliminat|discard|dismiss|rul(?:e|ed|ing)\s+out|cross(?:ed|ing)?\s+out|perhaps|maybe|possibly|might\s+be)",
    re.IGNORECASE,
)
"""Between `the answer` and `is`: `the option to exclude is B` and `the answer, perhaps, is B` declare nothing."""
_REJECTED_LAST = re.compile(
    r"\b(?:exclud\w*|avoid\w*|reject\w*|eliminat\w*|discard\w*|dismiss\w*|rul\w+\s+out|cross\w*\s+out)[\s.:]*(?:the\s*)?$",
    re.IGNORECASE,
)
"""In front of a declared value: `We exclude` a box."""
_WORST = re.compile(r"\b(?:worst|poorest|least\s+\w+)\s+$", re.IGNORECASE)
_OTHERS = re.compile(r"\b(?:other|others|remaining)\s+(?:\w+\s+)?$", re.IGNORECASE)
_FOLLOWS_IS = re.compile(_IS, re.IGNORECASE)
_CONFIRMED = re.compile(
    r"(?:^|(?<=[.,;:!?])\s+|\b(?:so|thus|hence|therefore|that|then|think|believe|conclude|means)\s+)(?:the\s+)?"
    r"(?:(?:answers?|options?|choices?)\s+)?(?P<value>(?!(?:which|it|this|that|one|answer|none|nothing|all|both)\b)[^\s,;:]+)"
    r"\s+(?:is|are|would\s+be|must\s+be)\s+(?:the\s+)?"
    r"(?:(?:most\s+)?(?:correct|right|best|accurate|appropriate|likely|final)\s+)?"
    r"(?:correct|right|accurate|answer|option|choice|one)s?$",
    re.IGNORECASE,
)
"""`B is correct`."""
_FITS = re.compile(
    r"\bonly\s+(?:(?:option|choice|answer)\s+)?(?P<value>(?!(?:it|this|that|one)\b)[^\s,;:]+)\s+(?:fits?|matches|works|applies|remains|qualifies|is\s+left)$",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    r"[.!?;]\s|(?<!\bif\s)\bso\b(?!,)|(?:^|(?<=,\s))so,"
    r"|\b(?:thus|hence|therefore|consequently|means|because|since)\b",
    re.IGNORECASE,
)
"""A `so` with a comma behind it ends a clause only where it also begins one: `if so, ..` goes on."""
_SUBJECT = r"(?:it|they|(?:the|this|that|these|those|its)\s[^.,;:!?\"]{1,60}?)"
_QUOTING = re.compile(
    rf"(?:I\s+(?:think|believe)\s+|(?:in|on)\s+the\s+\w+,?\s+)?(?P<subject>{_SUBJECT})\s+"
    r"(?:(?:(?:says|reads|states|spells|shows|displays)|(?:(?<=\bthey\s)|(?<=s\s))(?:say|read|state|spell|show|display))"
    r"(?:\s+that)?|is|are|was|were)\b[\s:,]*(?=\S)",
    re.IGNORECASE,
)
"""`The sign says stop`, `the word on it is stop`: what follows is the whole of what is said."""
_QUOTED_CHINESE = re.compile('[^"]{0,30}(?:\u662f|\u4e3a|\u5199\u7740|\u663e\u793a)\\s*:?\\s*"(?P<value>[^"]+)"')
"""The text in the picture is .., it is written, it shows."""
_QUOTED_IN_SENTENCE = re.compile(
    r'(?P<subject>(?:the|this|that|it|there)\b[^"]{0,60}\b(?:text|words?|phrase|title|says|reads|shows|states|displays))[\s:,]*"(?P<value>[^"]+)"'
    r"(?:\s+(?:(?:is|are|was|were)\s+)?(?:(?:written|printed|painted|displayed|shown|visible)\s+)?(?:in|on|at|across|above|below)\s+[^\"0-9.,;]{1,40})?",
    re.IGNORECASE,
)
"""`The word "STOP" is written on the sign.`"""
_OF_TEXT = re.compile(
    r"\b(?:lack(?:s|ing)?|miss(?:es|ing)?|letters?|character|half|part|first|last|after|before|next|above|below|beside|instead|without"
    r"|replac\w+|delet\w+|remov\w+)\b",
    re.IGNORECASE,
)
"""In front of a quotation: it is another text, or only a part."""
_HALF_SAID = re.compile(
    r"\b(?:should|would|must|ought|shall|will|used|to|but|seldom|rarely|barely|supposed|meant|opposite|reverse|contrary"
    r"|wrong|former|old|next|previous|(?:wrong|false|incorrect|supposed|alleged|hard|near|almost)ly|almost)\b",
    re.IGNORECASE,
)
"""`The sign should say stop`, `it wrongly says stop` and `the opposite is stop` quote no sign."""
_REPEATED = re.compile(r"[)\]}\"'*]*(?:[.;!]\s|[.;!]?\s*(?:so|thus|hence|therefore)\b)")
_AROUND = " \t.,;:!?()[]{}<>*\"'`$"


class Declaration(NamedTuple):
    """The last statement of an answer, and the text before it."""

    before: str
    """The text before the declaration."""
    value: str
    """The declared value, up to the end of the text."""
    is_explicit: bool
    """Whether it is called the answer, option or choice; otherwise it only follows `is`, `equals`, `=` or `:`."""


def declared(text: str) -> Declaration | None:
    """Return what a text declares at its very end, or None.

    A declaration in a clause that doubts, denies, asks or makes conditions is none, and so is one behind a refusal or
    behind another that declares something else. The caller reads `value` strictly, as a whole, and checks that
    `before` states no rival.

    Args:
        text: Of capped length, through `plain_text.clean`.

    Example:
        >>> declared("Denver is the capital, so the answer is (D)").value
        '(D)'
        >>> declared("The number of deals in 2016 is 20").value
        '20'
        >>> declared("The answer is A. The answer is B"), declared("I doubt that the answer is B")
        (None, None)
    """
    text = NO_DOUBT.sub("", text)
    explicit, confirmed = list(_CALLED_ANSWER.finditer(text)), _CONFIRMED.search(text) or _FITS.search(text)
    if confirmed is not None:
        start, value = confirmed.start(), confirmed["value"]
        explicit = [marker for marker in explicit if marker.end() <= start]
        explicit.append(confirmed)
    elif explicit:
        start, value = explicit[-1].start(), text[explicit[-1].end() :]
    else:
        verbs = list(_FOLLOWS_IS.finditer(text))
        if not verbs:
            return None
        start, value = verbs[-1].start(), text[verbs[-1].end() :]
    before = text[:start]
    if explicit and (_WORST.search(before) or _REJECTED.search(text, explicit[-1].start(), explicit[-1].end())):
        return None
    bare = value.strip(_AROUND).casefold()
    if not bare:
        return None
    clause_starts = [match.end() for match in _CLAUSE_END.finditer(before)]
    if UNSURE.search(before[clause_starts[-1] if clause_starts else 0 :]) or refuses(before):
        return None
    if _REJECTED_LAST.search(before):
        return None
    for earlier in explicit[:-1]:
        rest = text[earlier.end() :].lstrip(_AROUND).casefold()
        if _OTHERS.search(text, 0, earlier.start()) and DENIED.match(rest):
            continue  # `The other options are wrong, so B`
        if not (rest.startswith(bare) and _REPEATED.match(rest, len(bare))):
            return None
    return Declaration(before, value, bool(explicit))


def quoted(text: str) -> str | None:
    """Return what a text says that something says or is: the quotation of a sentence, or None.

    Args:
        text: Of capped length, through `plain_text.clean`. A reader compares the whole quotation: a denial in it
            makes it another text.

    Example:
        >>> quoted("The sign says stop"), quoted("the city is New York"), quoted("No sign says stop")
        ('stop', 'New York', None)
    """
    chinese = _QUOTED_CHINESE.fullmatch(text)
    if chinese is not None:
        return chinese["value"]
    sentence = _QUOTED_IN_SENTENCE.fullmatch(text)
    if sentence is not None and not (UNSURE.search(sentence["subject"]) or _HALF_SAID.search(sentence["subject"])):
        return None if _OF_TEXT.search(sentence["subject"]) else sentence["value"]
    quoting = _QUOTING.match(text)
    if quoting is None or UNSURE.search(quoting["subject"]) or _HALF_SAID.search(quoting["subject"]):
        return None
    return text[quoting.end() :]
