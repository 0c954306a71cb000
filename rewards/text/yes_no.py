"""Yes and no (true and false): the first whole word of an answer without a contradiction, or its declaration."""

import re

from rewards.core.base import Reason
from rewards.text.declaration import declared
from rewards.text.denial import TAKEN_BACK, declines, says_none
from rewards.text.plain_text import clean
from rewards.text.refusal import lacks_material, refuses

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
LABELS = {
    "yes": True, "true": True, "yeah": True, "yep": True, "yup": True,
    "no": False, "false": False, "nope": False, "nah": False,
    # Chinese: yes (is), right; no (is not, has not), wrong.
    "\u662f": True, "\u662f\u7684": True, "\u5bf9": True, "\u5bf9\u7684": True, "\u6b63\u786e": True,
    "\u5426": False, "\u4e0d\u662f": False, "\u4e0d\u662f\u7684": False,
    "\u6ca1\u6709": False, "\u4e0d": False, "\u4e0d\u5bf9": False, "\u9519": False,
    "\u9519\u8bef": False, "\u4e0d\u6b63\u786e": False,
}  # fmt: skip
_LONE = {
    spelling: (LABELS[word], Reason.OK)
    for word in ("yes", "no", "true", "false")
    for spelling in (word, word.title(), word.upper(), f"{word}.", f"{word.title()}.")
}
"""Answers that need no reading."""
_SENTENCE = re.compile(r"(?:[Yy]es|[Nn]o)[,.] (?!(?:is|was|would|can|seems|no)\b)([A-Za-z ]+(?<! no))\.?")
"""A lone label and words without marks."""
_TURNING = frozenset(
    (
        "not", "never", "nor", "or", "none", "nothing", "hardly", "scarcely", "cannot", "but", "except", "unless", "if",
        "maybe", "perhaps", "possibly", "might", "may", "could", "unknown", "unsure", "unclear", "uncertain", "doubt",
        "unlikely", "doubtful", "incorrect", "wrong", "untrue", "mistake", "mistaken", "error", "lie", "lied",
        "kidding", "joking", "take", "misread", "misspoke", "change", "changed", "made", "thought", "thoughts",
        "nevermind", "suppose", "supposing", "depending", "provided", "providing", "assuming", "long", "condition",
        "case", "idk", "dunno", "need", "needed", "without", "required", "require", "requires", "unidentified",
        "unrecognizable", "indeterminate", "undetermined", "unanswerable", "blank", "empty", "comment", "see", "clear",
        "recognize", "identify", "mind", "bad", "rethink", "reconsider", "correct", "try", "redo", "scratch",
        "strike", "ignore",
        "disregard", "forget", "delete", "cancel", "undo", "retract", "discard", "mean", "meant", "scrap",
        # What turns to something else, and what refuses.
        "wait", "actually", "sorry", "oops", "hmm", "hold", "hang", "correction", "second", "closer", "reflection",
        "fact",
        "indeed", "well", "uh", "oh", "opposite", "unable", "lack", "nobody", "know", "knows", "tell", "say", "missing",
        "unavailable", "inaccessible", "insufficient", "inadequate", "little", "ai", "language", "text", "impossible",
        "hard", "difficult", "tough", "tricky", "way", "forgot", "determine", "sure", "certain",
        "joke", "answer", "contrary", "please", "failed", "stand",
        "access", "ability", "information", "info", "context", "data", "means", "capability", "idea", "clue",
        "knowledge", "question", "questions", "exception", "exceptions", "mistakes", "problem", "problems", "other",
        "longer", "wonder", "wonders", "others", "doubts",
    )
)  # fmt: skip
_TURNING_YES, _TURNING_NO = (_TURNING | {word for word in LABELS if word != own} for own in ("yes", "no"))
"""Words behind a label of which there is one wherever it is denied, doubted, taken back or refused."""
_ENDING = frozenset(
    (
        "is",
        "are",
        "was",
        "were",
        "does",
        "do",
        "did",
        "has",
        "have",
        "had",
        "can",
        "could",
        "will",
        "would",
        "so",
        "one",
        "some",
    )
)
"""Last words of `it is`, `there is one`: behind a no these may take it back."""
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)")
_NEGATED = re.compile(
    r"(?:\bnot|n't)\s+(?:(?:entirely|really|actually|quite|at|all|a|an|the)\s+){0,2}(yes|no|true|false)\b"
)
_WITHDRAWN = re.compile(
    r"[\s\"'*:,.;/()\[\]-]*(?:and\s+|but\s+)?(?:"
    r"(?:is|was|would\s+be|can|seems)(?:n?'t|\s+not|\s+never|\s+(?:an?\s+|the\s+)?(?:incorrect|wrong|false|unlikely))\b"
    r"|(?:or|nor|maybe|perhaps|possibly|unknown|unsure|unclear|unless|but\s+(?:also|maybe|perhaps|possibly|not(?!\s+in\s+the\s+(?:foreground|background)\b)))\b"
    r"|(?:but\s+)?(?:only\s+)?(?:if(?!\s+(?:you|we|one)\s+(?:look|zoom|count|check|compare|read|examine)\b)|provided|providing|assuming"
    r"|supposing|suppose|depending|in\s+case|as\s+long\s+as|on\s+condition)\b"
    r"|(?:incorrect|wrong|untrue|(?:i\s+\w+\s+)?not)\W*$"
    rf"|{TAKEN_BACK.pattern}"
    r")"
)
"""Behind the first word, in its own brackets or not: it is denied, taken back, or one of several."""
_FILLER = (
    r"(?:(?:and|but|well|actually|wait|sorry|oops|hmm+|uh|oh|(?:hold|hang)\s+on|correction|however|though|although|indeed|in\s+fact"
    r"|on\s+(?:second\s+thoughts?|(?:a\s+)?closer\s+(?:look|inspection)|reflection)|i\s+(?:think|believe|guess|suppose|mean)(?:\s+that)?)\b\W*)"
)
_BE = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|will|would|may|might)"
_ADVERB = r"(?:\s*\b(?:really|just|still|in\s+fact|\w+ly))?"
_YES_DENIED = re.compile(
    rf"^\W*{_FILLER}*(?:(?:(?:most\s+)?(?:likely|probably|presumably|surely|certainly|definitely|absolutely)\s+not)|not\s+(?:really|quite|exactly|at\s+all|true|correct|so)|hardly|never|there\s+(?:is|are|was|were)\s+none\b.*)\W*$"
    r"|\b(?:that|this|which|it|(?:the|this|that)\s+(?:statement|claim|assertion|answer))(?:'s|\s+is|\s+was|\s+would\s+be)(?:\s+\w+ly|\s+just|\s+quite)?"
    r"(?:(?:\s+not|n't)\s+(?:so|correct|right|the\s+case)|\s+(?:an?\s+)?(?:incorrect|wrong|untrue|mistaken?|error|lie))\s*(?:$|[.,;:!)])"
    r"|\bi\s+(?:don't\s+think\s+so|doubt\s+(?:it|that))\b"
    r"|\b(?:the|my)\s+(?:\w+\s+)?answer\s+is\s+negative\b"
    rf"|^\W*{_FILLER}*(?:(?:it|there|that|this|he|she|they|we|i){_ADVERB}\s*)?(?:{_BE}|'s){_ADVERB}\s*"
    r"(?:n?'t|not)(?:\s+(?:see|think|believe|find|know))?(?:\s+(?:one|any|it|that|so|be|really|at\s+all))?\W*$"
)
"""Words that take back a yes, where they would confirm a no: `not really`, `that is wrong`, `wait, there is none`."""
_NEGATION = r"\b(?:no|not|none|never|nobody|nothing|neither|nor|cannot|\w+n't|without|wrong|incorrect|false)\b"
_NO_DENIED = re.compile(
    rf"^\W*{_FILLER}*(?:it|there|that|this|he|she|they|we|i){_ADVERB}\s+{_BE}(?:\s+(?:so|one|some|indeed))?\W*$"
    rf"|^\W*(?=[^\w]*(?:sorry|actually|hmm+|well|in\s+fact|oh)\b){_FILLER}+there\s+(?:is|are|was|were)\s+(?!.*{_NEGATION})"
    rf"|^\W*(?:(?:and|but|oh|hmm+|uh)\W+)*(?:wait|oops|(?:hold|hang)\s+on|correction|on\s+second\s+thoughts?)\b(?!.*{_NEGATION})"
    r"|^\W*(?:on\s+the\s+contrary|the\s+opposite)\b|\b(?:the|my)\s+(?:\w+\s+)?answer\s+is\s+(?:affirmative|positive)\b"
)
"""Words that take back a no: `it is`, `sorry, there is one`, `wait, it has a roof`."""
_TURNS = re.compile(rf"\W*{_FILLER}")
_DETERMINER = re.compile(
    r"\bno(?:\.?\s*[0-9]++(?![0-9.]*\s*%)|\s+(?!(?:it|that|this|there|he|she|they|we|i|you|is|are|was|were|not|wait|actually|sorry|or|and|but|yes|no|nope|nah|true|false"
    r"|to|for|in|on|at|of|from|with|if|when|because|since|as|so)\b)(?![0-9.]+\s*%)(?=\w))"
)
"""A no that is no label: `no clouds`, `No. 5`."""
_IDIOM = re.compile(
    r"no\s+(?:doubt|mistake|wonder|problem|contest|question|kidding|worries|objections?|arguments?|exaggeration|thanks)"
    r"(?:\s+(?:about\s+(?:it|that|this)|at\s+all|there|whatsoever))?\s*(?:$|[.,;:!]|\b(?:that|it|there|this|the|he|she|they)\b)"
)
"""`No doubt` and the like: answers that say neither."""
_EMPHASIS = (
    r"(?:absolutely|definitely|certainly|surely|sure|indeed|of\s+course|clearly|obviously|undoubtedly|exactly"
    r"|naturally)"
)
_EMPHATIC = re.compile(
    rf"{_EMPHASIS}(?:\W+{_EMPHASIS})*(?P<not>\W+not)?(?=$|\s*[.,;:!])|not\s+(?:at\s+all|really)(?=$|\s*[.,;:!])"
)
_EMPHASISED = re.compile(rf"(?:(?:{_EMPHASIS}|(?:most\s+)?(?:likely|probably)|presumably)\W+)+(?=\w)")
_BARE_DENIAL = re.compile(rf"(?:it|there|that|this|he|she|they)\s+{_BE}(?:\s+not|n't|not)")
_NO_AGAIN = re.compile(r"\W*(?:no|nope|nah)\W*")
_ADJECTIVE = re.compile(
    r"\b(?:the|an?|its|their)\s+(?:true|false)\s+(?=[a-z]{3})|(?<=,\s)(?:true|false)\s+(?=(?:teeth|alarms?)\b)"
)
"""`The true value`, `a false ceiling`."""
_SAME = re.compile(r"\bno(?:-\w+|\s+(?:doubt|question|exception|mistake|problem|other|longer|wonder)s?\b)")
"""A no that is none: `no doubt`, `a no-smoking sign`."""
_CONFIRMS_NO = re.compile(
    r"\s*[,.;!]+\s*(?:(?:it|that|this|he|she|they|there|we|i)\s+)?(?:(?:is|was|are|were|does|do|did|has|have|can)\s+)?"
    r"(?:incorrect|wrong|untrue|(?:perhaps\s+|certainly\s+|definitely\s+)?not|\w+n't)\W*$"
)
_STATED = re.compile(
    r"(?:(?:the|this|that|your)\s+(?:\w+\s+)?(?:statement|claim|sentence|caption|assertion|description|proposition|answer)"
    r"(?:\s[^.,;!?]{1,60}?(?=\s(?:is|was)\b))?|it|this|that)?"
    r"(?:'s|\s*(?:is|was)\b)?\s*(?:(?!hardly|barely|scarcely|supposedly|allegedly|possibly|doubtfully|falsely)\w+ly\s+)?(?P<not>not\s+)?(?P<value>true|false|correct|incorrect|untrue|inaccurate|accurate)"
)
"""`The statement is true`, `not true`, `correct`."""
_CLAUSE_END = re.compile(r"[.!?;,]\s|,?\s*\b(?:so|thus|hence|therefore)\b")
_LAST_SENTENCE = re.compile(r"(?s:(?P<before>.*)[.!?;]\s+)(?P<label>[^\W\d_]+)")
_UNSETTLED = re.compile(
    r"\b(?:maybe|perhaps|possibly|doubt|or|unsure|unclear|cannot|can't|if|unless|not\s+sure|don't\s+know)\b"
)


def read_yes_no(text: str) -> tuple[bool | None, Reason]:
    """Return True for yes or true, False for no or false, None with a reason for anything else.

    The first word is the label, and the opposite one must not occur, unless it is quoted (`Yes, it says "no"`) or
    negated (`No, it is not true`): a negated label counts as its opposite. A text that begins otherwise may declare
    its label at its end.

    Args:
        text: A short answer; callers cap its length.

    Example:
        >>> read_yes_no("Yes, a dog."), read_yes_no("I know it")[0], read_yes_no("Yes and no")[1].value
        ((True, <Reason.OK: 'ok'>), None, 'contradiction')
    """
    lone = _LONE.get(text)
    if lone is not None:
        return lone
    sentence = _SENTENCE.fullmatch(text)
    if sentence is not None:
        words, label = sentence[1].lower().split(), text[0] in "Yy"
        if (_TURNING_YES if label else _TURNING_NO).isdisjoint(words) and (
            label or not (words[-1] in _ENDING or declines(text) or lacks_material(sentence[1].lower()))
        ):
            return label, Reason.OK
    return _read_fully(text)


def _read_fully(text: str) -> tuple[bool | None, Reason]:
    """Return what `read_yes_no` does, without its shortcuts for lone words and plain sentences."""
    cleaned = clean(text)
    folded = cleaned.casefold()
    label, reason = _read_first_word(_EMPHASISED.sub("", folded, count=1) if _EMPHASISED.match(folded) else folded)
    if reason is not Reason.UNREADABLE:
        return label, reason
    emphatic = _EMPHATIC.match(folded)
    if emphatic is not None:
        word = "no" if "not" in emphatic.group() else "yes"
        return _read_first_word(word + folded[emphatic.end() :])
    if _BARE_DENIAL.fullmatch(text.strip(" .!").casefold()) or _says_none(folded):
        return False, Reason.OK
    stated = _STATED.fullmatch(folded)
    if stated is not None:
        return _says_true(stated), Reason.OK
    stated = _STATED.fullmatch(_CLAUSE_END.split(folded)[-1].strip())
    if stated is not None and stated.group().startswith(("it ", "the statement", "this statement", "the claim")):
        before = folded[: -len(stated.group())]
        if (
            not refuses(before)
            and not _UNSETTLED.search(before)
            and not any(map(LABELS.__contains__, _WORD.findall(before)))
        ):
            return _says_true(stated), Reason.OK
    if (declaration := declared(cleaned)) is not None and declaration.is_explicit:
        label, reason = _read_first_word(clean(declaration.value).casefold())
        clauses = map(_STATED.fullmatch, _CLAUSE_END.split(declaration.before.casefold()))
        if any(clause is not None and _says_true(clause) is not label for clause in clauses):
            return None, Reason.CONTRADICTION
        return label, reason
    last = _LAST_SENTENCE.fullmatch(folded)
    label = LABELS.get(last["label"]) if last is not None else None
    if (
        last is None
        or label is None
        or declines(folded)
        or refuses(last["before"])
        or _UNSETTLED.search(last["before"])
    ):
        return None, Reason.UNREADABLE
    said = _SAME.sub(" ", _QUOTED.sub(" ", last["before"]))
    if any(LABELS.get(word, label) != label for word in _WORD.findall(said)):
        return None, Reason.CONTRADICTION
    return label, Reason.OK


def _says_true(stated: re.Match[str]) -> bool:
    return (stated["value"] in ("true", "correct", "accurate")) is (stated["not"] is None)


def _says_none(text: str) -> bool:
    """Return whether a folded sentence says that there is none of a kind (`there is no dog`), and refuses nothing."""
    if not text.startswith(("there ", "i ")) or not says_none(text) or refuses(text):
        return False
    words = text[text.find("no ") :].split()[:4] if "no " in text else []
    return not any(lacks_material(" ".join(words[:n])) for n in range(2, len(words) + 1))


def _read_first_word(text: str) -> tuple[bool | None, Reason]:
    first = _WORD.search(text)
    label = LABELS.get(first.group()) if first is not None else None
    if first is None or label is None:
        return None, Reason.UNREADABLE
    if not label and (declines(text[first.start() :]) or _IDIOM.match(text, first.start())):
        return None, Reason.UNREADABLE
    if first.end() == len(text):
        return label, Reason.OK
    if not label and _CONFIRMS_NO.match(text, first.end()):
        return label, Reason.OK
    if not label and _NO_AGAIN.fullmatch(text, first.end()):
        return label, Reason.OK
    if _WITHDRAWN.match(text, first.end()):
        return None, Reason.CONTRADICTION
    said = _ADJECTIVE.sub(" ", _QUOTED.sub(" ", text[first.end() :]))
    settled = _SAME.sub(" ", said)
    if refuses(settled.lstrip(" ,.;:!-")) or (first.group() == "no" and refuses(text[first.start() :])):
        return None, Reason.UNREADABLE
    if _YES_DENIED.search(settled) if label else _NO_DENIED.search(said):
        return None, Reason.CONTRADICTION
    if label:
        said = settled if _TURNS.match(settled) else _DETERMINER.sub(" ", settled)
    said = _NEGATED.sub(lambda match: " no " if LABELS[match[1]] else " yes ", said)
    if any(LABELS.get(word, label) != label for word in _WORD.findall(said)):
        return None, Reason.CONTRADICTION
    return label, Reason.OK
