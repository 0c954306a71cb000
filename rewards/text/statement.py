"""Which option a plain sentence states or names: `It was taken in Rome`, `There are four`, `(B) has a roof`."""

import re

from rewards.text.denial import UNSURE, is_denied, says_none
from rewards.text.number_words import in_digits
from rewards.text.option_texts import OptionTexts, spoken
from rewards.text.plain_text import clean, without_article, without_latex

SECOND_LABEL = re.compile(
    r"(?<![A-Za-z0-9_'\u2220\u00b0])(?:([A-Z])(?![A-Za-z0-9_'])|([a-z])(?=[)\]:.](?:\s|$)))"
    # In small letters only where nothing but a label stands so: `B, or c`, `B, a`.
    r"|(?:^|[,;/|&]|\b(?:or|and|else|also|alternatively|(?:could|might|may|would)\s+be|maybe|perhaps|possibly|option|choice|answer|letter|not|choose|pick|select|try|use|take|say"
    r"|meant?|go\s+with|make\s+it)\b)"
    r"[\s(\[\"'*]*([a-z])[)\]\"'*]*(?=\s*(?:$|[,;/|&.!?]|\b(?:or|and|instead|too|then)\b))"
)
_WORD_USE = re.compile(
    r"(?:A\s+(?!(?:is|or|and|nor|are|was|because|instead|too)\b)[A-Z]?[a-z]{2}|I(?:'|\s+[a-z])|[A-Z]-[a-z]{3}|(?<=[0-9]\s)(?:A\.D|B\.C|C\.E)\b)"
)
"""`A cat`: an article; `I think`: a first person; `80 A.D.`."""
_SET_ASIDE = re.compile(
    r"\b(?:rul(?:e|es|ed|ing)\s+out|exclud(?:e|es|ed|ing)|eliminat(?:e|es|ed|ing)|dismiss(?:es|ed|ing)?|reject(?:s|ed|ing)?)"
    r"\s+(?:options?\s+)?[A-Z](?:,\s*[A-Z])*(?:,?\s+(?:and|or)\s+[A-Z])?(?![\w'])"
    r"|\b(?:at\s+first|initially|i\s+was\s+going\s+to\s+say)\b[^.;]{0,40}?,?\s+but\b",
    re.IGNORECASE,
)
"""`We can rule out A`, `At first I thought A, but`."""
_NAMED_THING = re.compile(
    r"\b(?:label(?:l?ed)?|marked|named|called|point|graph|figure|image|picture|panel|curve|line|angle|side|vertex|region"
    r"|area|object|structure|circle|triangle|square|set|arrow|group|type|class|vitamin|hepatitis|influenza|plan|step|part|node"
    r"|bar|column|row|box|section|sample|diagram|chart|table|circuit|factor|phase|player|person|city|country|event|model"
    r"|case|species|solution|site|zone|team|company|product|material|block|path|wire|bulb|resistor|investment"
    r"|project|expansion|stock|asset|substance|compound|element|gene|allele|cell|lens|car|train|ball|tank|beaker|tube|map"
    r"|view|state|station|trial|experiment|method|design|plane|force|vector|wave|house|tree|shape|piece|tile|symbol)s?\s+[\"'(*]*$",
    re.IGNORECASE,
)
"""Behind these words a letter names a thing in the picture."""
STATEMENT_END = re.compile(
    r"[.,;:!?()]+(?:\s+|$)|\s-+\s|\s(?=(?:but|and|because|since|so|as|while|whereas|where|which|if|when)\s)"
)
COMPARED = re.compile(
    r"\b(?:not|never|no|nor|neither|\w+n't|cannot|than|unlike|without|with|between|rather|instead|except|excluding|opposite|whereas"
    r"|while|(?<!looks\s)(?<!look\s)(?<!resembles\s)like|beyond|outside|near|if|when|against|versus|vs|and|or|would|for|(?<!known\s)(?<!described\s)(?<!identified\s)(?<!classified\s)as|into|over|under|above|below|behind|before|after"
    r"|(?:north|south|east|west|left|right|front|top|capital|part|half|kind|type|form|out)\s+of|(?:clos\w+|next|prior|similar|compared"
    r"|opposed|relative|due|belongs?|refers?|related)\s+to|(?:far|differ\w*|away|apart|distinct|separate\w*)\s+from|(?:if|because|since|as"
    r"|so|while|which|where)\s+(?!(?:it|this|that|they)\b))(?!\w)",
    re.IGNORECASE,
)
"""In front of an option's text: the clause compares with it, denies it or explains by it."""
_COUNTED = re.compile(
    r"(?:there\s+(?:is|are)|i\s+(?:can\s+)?(?:see|count))\s+(?:exactly\s+|a\s+total\s+of\s+)?(?P<value>[0-9]+)"
    r"(?:\s+(?!(?:missing|more|less|fewer|short|too|and|or|out|absent|hidden|each|per)\b)[a-z]+){0,6}"
)
_OF_SUBJECT = re.compile(r"(?:the|its?|this|that)\s+(?:\w+\s+){0,2}", re.IGNORECASE)
_PLACED = re.compile(
    r"(?:(?:^|\b(?:is|are|was|were)\s+)(?:(?:(?:\w+(?:ed|en|wn|ght)|set|shot)\s+)?(?:in|at|on|to|by|called|named|(?:made|built|out)\s+of)"
    r"|\w+(?:ed|en|wn|ght)\s+by)|\b(?:illustrates?|depicts?|shows?|represents?|portrays?|displays?|contains?|costs?|(?:i|we)\s+(?:can\s+)?see))\s+"
    r"(?:that\s+)?(?:the\s+|an?\s+)?(?:(?:city|town|country|state|animal|color|colour|number|word)\s+(?:of\s+)?)?$",
    re.IGNORECASE,
)
"""In front of the option that a sentence states: `was taken in`, `is painted by`, `depicts a`."""
_SENTENCE_END = re.compile(r"[.!?;]\s+|,?\s+(?:so|thus|hence|therefore)\b,?\s*")
_BEFORE_ANSWER = frozenset(
    ("the", "my", "so", "thus", "hence", "therefore", "final", "correct", "right", "best", "and", "is")
)
"""Words between the last sentence and the declaration."""
_IS_ANSWER = re.compile(
    r"\s+(?:is|corresponds\s+to|means)\s+(?:the\s+)?(?:right|correct|option|answer|choice|[A-Z](?!\w))",
    re.IGNORECASE,
)
_SHOWN = re.compile(
    r"\b(?:(?:is|are|was|were)(?:\s+(?:(?:taken|shot|set|located|photographed|filmed)\s+in|called|named))?|shows?|depicts?|illustrates?"
    r"|represents?|portrays?|displays?|looks?\s+like|recogni[sz]e|see)\s+(?:the\s+|an?\s+)?"
    r"(?:(?:city|town|country|state|animal|color|colour|number|word)\s+(?:of\s+)?)?$",
    re.IGNORECASE,
)
"""In front of the option that a sentence before a declaration gives as what is seen."""
_ASIDE_DENIED = re.compile(
    r"\b(?:not|never|cannot|\w+n't|nothing|nobody|none|hard|difficult|impossible|unable)\b[^.;:!?]*$", re.IGNORECASE
)
_NOT_STATED = re.compile(
    r"\b(?:nothing|nobody|other|another|(?:false|wrong|incorrect|supposed|alleged|hard)ly|pretend\w*|claim\w*|suppos\w*|should|would)\b",
    re.IGNORECASE,
)
_DIGIT = re.compile("[0-9]")
_REASONED = re.compile(r"^(?:because|since|as|given\s+that)\s+", re.IGNORECASE)
_EDGES = " .,;:!?-()[]{}\"'*"


def stated(texts: OptionTexts, text: str) -> str | None:
    """Return the label of the one option that a plain sentence states: `It was taken in Rome`, `There are four`."""
    if says_none(text.casefold()) and len(none := texts.with_text("0")) == 1:
        return none
    if (
        UNSURE.search(text)
        or _NOT_STATED.search(text)
        or "?" in text
        or len([part for part in STATEMENT_END.split(text) if part.strip()]) != 1
    ):
        return None
    counted = _COUNTED.fullmatch(in_digits(text.casefold()))
    if counted is not None:
        labels = texts.with_text(counted["value"])
        return labels if len(labels) == 1 else None
    found = [
        (label, match)
        for label, option in zip(texts.labels, texts.normalised, strict=False)
        if option and (match := re.search(rf"(?<!\w){spoken(without_article(option))}(?!\w)", text, re.IGNORECASE))
    ]
    if len(found) != 1 or text[found[0][1].end() :].strip() not in ("", "side"):
        return None
    label, match = found[0]
    is_verb = match.group().endswith("s") and _OF_SUBJECT.fullmatch(text, 0, match.start())
    return label if is_verb or _PLACED.search(text, 0, match.start()) else None


def leads_to_another(texts: OptionTexts, text: str, label: str) -> bool:
    """Return whether what stands before a declared label states another option: `It is Paris, so B`."""
    words = without_latex(text).split()
    while words and words[-1].strip(_EDGES).casefold() in ("", *_BEFORE_ANSWER):
        words.pop()
    text = " ".join(words)
    whole = texts.with_text(clean(text))
    if whole:
        return label not in whole
    if any(label in _letters(aside) and not _is_denied_aside(text, aside) for aside in _SET_ASIDE.finditer(text)):
        return True
    mentions = texts.mentions(text)
    if any(label in labels for labels, _, _ in mentions):
        return False
    for sentence in _SENTENCE_END.split(text):
        sentence = _REASONED.sub("", sentence.strip(_EDGES))
        is_count = _COUNTED.fullmatch(in_digits(sentence.casefold())) or says_none(sentence.casefold())
        if is_count and stated(texts, clean(sentence)) not in (None, label):
            return True
        if len(mentions) > 1 or _DIGIT.search(texts.text_of(label)) or UNSURE.search(sentence):
            continue
        for _, start, end in texts.mentions(sentence):
            is_shown = _SHOWN.search(sentence, 0, start) and not sentence[end:].strip(_EDGES)
            if is_shown or (not start and (end == len(sentence) or _IS_ANSWER.match(sentence, end))):
                return True
    return False


def names_another(texts: OptionTexts, text: str, label: str, *, denied_counts: bool = True) -> bool:
    """Return whether a text names an option other than `label` by its letter; not letters of things and words."""
    text = _SET_ASIDE.sub(lambda aside: _kept(text, aside, label), text)
    for match in SECOND_LABEL.finditer(text):
        other = (match[1] or match[2] or match[3]).upper()
        if other == label or other not in texts.labels or _WORD_USE.match(text, match.start()):
            continue
        if texts.are_letters and other == texts.text_of(label).upper():
            continue
        if not texts.are_letters and _NAMED_THING.search(text, 0, match.start()):
            continue
        behind = text[match.end() :].lstrip(" )]\"'*.,:")
        if denied_counts or not is_denied(behind):
            return True
    return False


def _kept(text: str, aside: re.Match[str], label: str) -> str:
    """Return nothing for options that a text sets aside, and the words as they are where it denies that."""
    return aside[0] if label in _letters(aside) or _is_denied_aside(text, aside) else " "


def _letters(aside: re.Match[str]) -> list[str]:
    return re.findall(r"(?<!\w)[A-Z](?!\w)", aside[0])


def _is_denied_aside(text: str, aside: re.Match[str]) -> bool:
    """Return whether what sets options aside is itself denied: `We cannot rule out A`."""
    return _ASIDE_DENIED.search(text, 0, aside.start()) is not None
