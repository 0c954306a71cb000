"""Multiple choice: which options an answer names, by label or by text.

Read in this order: a lone label; the exact text of exactly one option; a label beside its own text; a list of labels; a
label and an explanation that neither denies it nor names another option; a declaration at the end of a sentence. Every
answer is read as one set of labels at most, whatever the reference is, so naming several is never worth anything.
A letter inside a word, an article and a first person are no labels.
"""

import re
import string
from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest

from rewards.base import GoldError, Grade, Reason
from rewards.declaration import declared
from rewards.denial import DENIED, DENIED_LATER, HEDGE, LACKS, REFUSAL, TAKEN_BACK, is_denied
from rewards.number_words import in_digits
from rewards.option_texts import OptionTexts
from rewards.plain_text import clean, without_article
from rewards.yes_no import read_yes_no

_OPEN, _CLOSE = r"[(\[{<\"'*`$#.\s]*", r"[)\]}>\"'*`$.,:;!?\s]*"
_LONE = re.compile(rf"{_OPEN}([A-Za-z]){_CLOSE}")
_LEADING_WORD = re.compile(
    r"(?:(?:so|thus|hence|therefore|but|rather|only|just|solely|definitely|certainly|clearly|surely|probably|(?:most\s+)?likely"
    r"|presumably|leaving)\b,?\s+)+(?=\S)",
    re.IGNORECASE,
)
"""Words in front of an answer that change nothing."""
_OPTION_WORD = re.compile(
    r"(?:(?:the\s+)?(?:(?:correct|right|best|closest|final)\s+)?\[?(?:options?|choices?|letters?|answers?|ans\.?)\]?\s*[:-]?\s+)?"
    r"(?=[(\[{\"'*$]*[A-Za-z](?![\w']))",
    re.IGNORECASE,
)
_PROCLAIMED = re.compile(
    r"\s*\b(?:(?:only|alone)(?![\w'-])"
    r"|(?:is|are|would\s+be|must\s+be|should\s+be|seems)\s+(?:both\s+|clearly\s+)?(?:the\s+|my\s+)?"
    r"(?:(?:correct|right|best|closest|only|final|most\s+\w+)\s+){0,2}"
    r"(?:correct|right|accurate|answer|option|choice|one)s?(?:\s+(?:answer|option|choice|one)s?)?(?![\w'-]))"
)
"""`is correct`, `would be the best option`, `only`: what may follow a label without changing what is said."""
_PROCLAIMING = ("only", "alone", "correct", "right", "accurate", "answer", "option", "choice", "one", "s")
_LABEL_AND_RAW_TEXT = re.compile(r"\(?([A-Z])[).:] (.*[^\s.,;:!?])")
_LABEL_AND_REST = re.compile(
    r"(?:\"(?P<double>[A-Za-z])\"|'(?P<single>[A-Za-z])'|[(\[{<\"'*`$]*(?P<plain>[A-Za-z]))"
    r"(?P<mark>\s*[)\]}>*`$.,:;!?-]+[)\]}>*`$\"'.,:;!?-]*\s*|\s+-+\s+|\s+(?=\()|\s+(?=because\b|since\b))(?P<rest>\S.*)",
    re.DOTALL,
)
_LABEL_AND_OWN_TEXT = re.compile(r"[(\[{<\"'*`$]*([A-Za-z])[)\]}>\"'*`$.,:;-]*\s+(\S.*)", re.DOTALL)
_LINK = r"(?:(?:which|that|this)\s+is\s+|i\.e\.,?\s+)?(?:(?:option|choice|answer)\s+)?"
_OWN_TEXT_AND_LABEL = re.compile(
    rf"(.*?\S)\s*(?:[(\[][\"'*]*{_LINK}([A-Za-z])[\"'*]*[)\]]|\s[-:,]?\s*{_LINK}[(\[]?([A-Z])[)\]]?)", re.DOTALL
)
_BETWEEN_WORDS = re.compile(r"[\s,;:&+/|()\[\]{}<>\"'*`$.!?-]+")
_LIST_WORDS = frozenset(("and", "or", "nor", "vs", "both", "either", "to", "through", "option", "options"))
_SECOND_LABEL = re.compile(
    r"(?<![A-Za-z0-9_'\u2220\u00b0])(?:([A-Z])(?![A-Za-z0-9_'])|([a-z])(?=[)\]:.](?:\s|$)))"
    # In small letters only where nothing but a label stands so: `B, or c`, `B, a`.
    r"|(?:^|[,;/|&]|\b(?:or|and|else|also|alternatively|(?:could|might|may|would)\s+be|maybe|perhaps|possibly|option|choice|answer|letter|not|choose|pick|select|try|use|take|say"
    r"|meant?|go\s+with|make\s+it)\b)"
    r"[\s(\[\"'*]*([a-z])[)\]\"'*]*(?=\s*(?:$|[,;/|&.!?]|\b(?:or|and|instead|too|then)\b))"
)
_WORD_USE = re.compile(r"(?:A\s+(?!(?:is|or|and|nor|are|was|because|instead|too)\b)[a-z]{2}|I(?:'|\s+[a-z]))")
"""`A cat`: an article; `I think`: a first person."""
_NAMED_THING = re.compile(
    r"\b(?:label(?:l?ed)?|marked|named|called|point|graph|figure|image|picture|panel|curve|line|angle|side|vertex|region"
    r"|area|object|structure|circle|triangle|square|set|group|type|class|vitamin|hepatitis|influenza|plan|step|part|node"
    r"|bar|column|row|box|section|sample|diagram|chart|table|circuit|factor|phase|player|person|city|country|event|model"
    r"|case|species|solution|site|zone|team|company|product|material|block|path|wire|bulb|resistor|investment"
    r"|project|expansion|stock|asset|substance|compound|element|gene|allele|cell|lens|car|train|ball|tank|beaker|tube|map"
    r"|view|state|station|trial|experiment|method|design|plane|force|vector|wave|house|tree|shape|piece|tile|symbol)s?\s+[\"'(*]*$",
    re.IGNORECASE,
)
"""Behind these words a letter names a thing in the picture."""
_SUBJECT = re.compile(
    r"(?:(?:and|but|so|it|this|that|because|since|as)\s+)*(?P<denied>.+?)\s+(?P<verb>(?:is|isn't|are|aren't|was|were|can't|cannot"
    r"|can|must|does|doesn't|do|don't|has|have|lacks?|being)\b.*)",
    re.IGNORECASE,
)
"""A clause that may deny what it is about: `because B is wrong`, `A and C have no wheels`."""
_NO_RIVAL = re.compile(
    r"(?:(?:and|but|so|it|this|that|is|it's|because|since|as)\s+)*(?:(?P<said>.+?)\s+(?:and\s+|but\s+)?)??"
    r"(?:not|neither|none\s+of|isn't|(?:can't|cannot)\s+be|rather\s+than|instead\s+of|unlike|over)\s+"
    r"(?!(?:only|just|sure|necessarily)\b)(?P<denied>.+)",
    re.IGNORECASE,
)
"""A clause that denies an option, and what it says before: `not B`, `C rather than B`."""
_LABEL_LIST = re.compile(r"(?<![\w'])([A-Z]),\s*(?:(and|or|nor)\s+)?(?=[A-Z](?![\w']))")
_BRACKETED = re.compile(r"[(\[]([A-Za-z])[)\]]")
_NO = re.compile(r"(?:no|nope|not|hardly)\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"([;:!?()]+\s*|[.,]+(?:\s+|$)|\s-+\s|\s(?=(?:but|so|because|since)\s))", re.IGNORECASE)
_CLAUSE_START = re.compile(r"^\s*|[.;:!?]+(?:\s+|$)|[,()]\s*|\s-+\s|\s(?=(?:but|and|plus|as\s+well\s+as)\s)")
_TURN = re.compile(
    r"(?:and\s+)?(?P<turn>(?:(?:actually|rather|better|instead|but|however|also|plus|as\s+well\s+as|both|or|no|wait|sorry"
    r"|oops|apologies|correction|well|hmm|then|so|thus|hence|therefore|in\s+fact|definitely|clearly|perhaps|maybe|probably|likely"
    r"|alternatively|on\s+(?:second\s+thought|reflection)|looks\s+like|make\s+(?:it|that)|let's\s+(?:say|go\s+with)"
    r"|i(?:\s+would|'d)?\s+(?:meant?|say|choose|pick|think|believe|guess|go\s+with)(?:\s+to\s+say)?(?:\s+that)?"
    r"|(?:(?:it|this|that|(?:the|my)\s+(?:\w+\s+)?answer)(?:\s+|(?=')))?"
    r"(?:'s|is|(?:must|should|would|could|may|might|has\s+to)\s+be))\b[\s,:]*)*)",
    re.IGNORECASE,
)
"""Phrases before a second answer: `actually`, `I mean`, `but also`, `no wait`."""
_TOO = re.compile(r"(?:too|also|as\s+well|instead)\b", re.IGNORECASE)
_FIRST_PERSON = re.compile(
    r"(?:am|was|have|had|can|could|do|did|will|would|must|should|shall|think|believe|guess|see|need|want|hope|apologi[sz]e"
    r"|as\s+an?|m|ve|d|ll|being|really|just|also|cannot|\w+n't|sorry|unfortunately|however|afraid|unable|unsure|not|no)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"(?:it|this|that|they)\s+(?!is\b|was\b|says\b)", re.IGNORECASE)
_COLLECTIVE = re.compile(r"^(?:all|both|none|neither|any)\b|\b(?:above|[ai]+ and [bi]+|1 and 2)\b")
"""Options about other options."""
_BEHIND_STATED = (
    r"\s+(?:side|one|colou?r|direction|part|corner|half|end|as\s+well|too|instead|here|now)"
    r"|\s+(?:in|on|of|at)\s+(?:the|this)\s+(?:image|picture|photo|figure|graph|chart|diagram|table|map|screen|right|left)"
)
_STATEMENT_END = re.compile(
    r"[.,;:!?()]+(?:\s+|$)|\s-+\s|\s(?=(?:but|and|because|since|so|as|while|whereas|where|which|if|when)\s)"
)
_COMPARED = re.compile(
    r"\b(?:not|never|no|nor|neither|\w+n't|cannot|than|unlike|without|with|between|rather|instead|except|excluding|opposite|whereas"
    r"|while|like|beyond|outside|near|if|when|against|versus|vs|and|or|would|for|as|into|over|under|above|below|behind|before|after"
    r"|(?:north|south|east|west|left|right|front|top|capital|part|half|kind|type|form|out)\s+of|(?:clos\w+|next|prior|similar|compared"
    r"|opposed|relative|due|belongs?|refers?|related)\s+to|(?:far|differ\w*|away|apart|distinct|separate\w*)\s+from|(?:if|because|since|as"
    r"|so|while|which|where)\s+(?!(?:it|this|that|they)\b))",
    re.IGNORECASE,
)
"""In front of an option's text: the clause compares with it, denies it or explains by it."""
_ORDER = re.compile(r"\bthe\s+(first|second|third|fourth|fifth)\s+(?:option|choice|answer|one)\W*$", re.IGNORECASE)
_ORDERED = dict(zip(("first", "second", "third", "fourth", "fifth"), string.ascii_uppercase, strict=False))
_RIVAL_NUMBER = re.compile(r"\b(?:or|maybe|perhaps|but|actually|rather|no|wait|not|instead)\b")
_BULLET = re.compile(r"^\s*(?:[-+*\u2022>]\s+(?=\S)|\d[.)]\s+(?=[^\d\s]))", re.MULTILINE)
_LISTED = re.compile(r"\s*(?:[,;&]|\b(?:and|or|nor)\b)\s*", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*(?:[,;&+\n]|\band\b)\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?;]\s+|,?\s+(?:so|thus|hence|therefore)\b,?\s*")
_SUBJECT_IT = re.compile(r"(?:^|\s)(?:it|this|that|one)\s*$", re.IGNORECASE)
_IS = re.compile(
    r"\b(?:is|are|was|were|(?:must|should|would|has\s+to)\s+be|equals?|reads?|shows?|says?|depicts?|displays?"
    r"|counts?|sees?|finds?|ha(?:s|ve))\s+"
)
_LABELS_RUN = re.compile(r"[A-Z]{2,}")
_LONE_SPELLINGS = ("{}", "{}.", "({})", "{})", "[{}]", "**{}**", "{}:", "({}).")
_LABELS = string.ascii_uppercase
_LONE_LABEL = {
    form.format(letter): label for label in _LABELS for letter in (label, label.lower()) for form in _LONE_SPELLINGS
}
"""The commonest spellings of a lone label, which need no reading; `_lone_label` reads these and all others."""


class Choices:
    """The options of one question and the set of right ones.

    Example:
        >>> choices = Choices(("10", "12", "14"), "B")
        >>> [choices.grade(text).value for text in ("(B)", "B. 12", "12", "B. 14", "A or B")]
        [1.0, 1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, options: Sequence[str], answer: str) -> None:
        """Resolve the reference; option texts are normalised when the first text is read.

        Args:
            options: Option texts in the order A, B, C, ...; empty allows every label, without texts.
            answer: One label, several (`A, C` or `AC`), or the text of exactly one option.

        Raises:
            GoldError: If the reference names no option, or more options than labels exist.
        """
        if len(options) > len(_LABELS):
            raise GoldError(f"match_mcq has {len(options)} options; labels A..Z allow 26")
        self._options = options
        self._labels = _LABELS[: len(options)] if options else _LABELS
        self.gold: frozenset[str] = frozenset()
        """Labels of the right options."""
        label = self._shortcut(answer)
        if label is not None:
            self.gold = _LABEL_SETS[label]
            return
        named, reason = self._read_fully(answer)
        if reason is Reason.OK:
            self.gold = named
        if not self.gold:
            raise GoldError(f"match_mcq reference {answer!r} names none of the {len(options)} options")

    @cached_property
    def _option_texts(self) -> OptionTexts:
        """Made when the first answer needs them: most name a label."""
        return OptionTexts(self._options, self._labels)

    @property
    def spelled(self) -> str:
        """The options as they are compared, each behind its label."""
        return "; ".join(
            f"{label} {text!r}" for label, text in zip(self._labels, self._option_texts.normalised, strict=False)
        )

    def grade(self, answer: str) -> Grade:
        """Return 1 if the answer names exactly the right options, else 0."""
        label = self._shortcut(answer)
        if label is not None:
            return (_RIGHT if self.gold == _LABEL_SETS[label] else _WRONG)[label]
        return self._graded(*self._read_fully(answer))

    def _graded(self, named: frozenset[str], reason: Reason) -> Grade:
        parsed = ", ".join(sorted(named)) or None
        if len(named) > 1 and (len(self.gold) == 1 or reason is not Reason.OK):
            return Grade(0.0, Reason.AMBIGUOUS, parsed)
        if not named or reason is not Reason.OK:
            return Grade(0.0, reason)
        return Grade(float(named == self.gold), Reason.OK, parsed)

    def _shortcut(self, answer: str) -> str | None:
        """Return the label of an answer in its commonest spellings; `_read_fully` returns the same, in more time."""
        label = _LONE_LABEL.get(answer)
        if label is not None:
            return label if label in self._labels else None
        parts = _LABEL_AND_RAW_TEXT.fullmatch(answer)
        if parts is not None and answer not in self._options:
            place = ord(parts[1]) - ord("A")
            if place < len(self._options) and self._options[place] == parts[2]:
                return parts[1]
        return None

    def _read_fully(self, answer: str) -> tuple[frozenset[str], Reason]:
        """Return the labels that the answer names, and OK; or whatever it hints at, and why that does not count."""
        named, reason = self._read(answer)
        if reason is not Reason.OK:
            text = _BRACKETED.sub(r"\1", clean(answer))
            # `A, C and D are wrong` is one clause; `B, A and C are wrong` are two.
            for spelled in dict.fromkeys((_LABEL_LIST.sub(r"\1 and ", text), text)):
                said, denied = self._without_denied(spelled)
                if said and denied:
                    rest = self._read(said)
                    if rest[1] is Reason.OK and not rest[0] & denied:
                        return rest
        return named, reason

    def _without_denied(self, text: str) -> tuple[str, frozenset[str]]:
        """Return an answer without the clauses that deny an option (`C, not B`), and the labels that these deny."""
        pieces = _CLAUSE_END.split(text)  # clauses, and between them what ends each
        clauses, ends = pieces[::2], [*pieces[1::2], ""]
        kept, denied = "", frozenset[str]()
        for i, clause in enumerate(clauses):
            said, refused = clause, frozenset[str]()
            if "?" in ends[i] and _NO.match(clauses[i + 1]):
                said, refused = "", self._items(clause)
            elif i and "?" in ends[i - 1] and denied and _NO.fullmatch(clause):
                continue
            else:
                parts = _SUBJECT.fullmatch(clause)
                if parts is not None and (is_denied(parts["verb"]) or LACKS.match(parts["verb"])):
                    said, refused = "", self._items(parts["denied"])
                parts = _NO_RIVAL.fullmatch(clause) if not refused else None
                if parts is not None:
                    said, refused = parts["said"] or "", self._items(parts["denied"])
            denied |= refused
            kept += (said if refused else clause) + (ends[i] if said or not refused else "")
        return kept.strip(" ,;:.-()"), denied

    def _items(self, text: str) -> frozenset[str]:
        """Return the labels of `B`, `iron` or `B nor iron`; none if any item names no option."""
        labels = [
            self._read_item(_without_politeness(clean(item))) or self._option_texts.with_part(item)
            for item in _LISTED.split(text)
        ]
        return frozenset("".join(label or "" for label in labels)) if all(labels) else frozenset()

    def _read(self, answer: str) -> tuple[frozenset[str], Reason]:
        """Return what `_read_fully` does for an answer that denies no other option."""
        text = clean(answer)
        lone = _LONE.fullmatch(text)
        if lone is not None and lone[1].upper() in self._labels:
            return _LABEL_SETS[lone[1].upper()], Reason.OK
        identical = self._option_texts.identical(answer.strip())
        if len(identical) == 1:
            return _LABEL_SETS[identical], Reason.OK
        bare = _without_politeness(text)
        lone = _LONE.fullmatch(bare) if bare != text else None
        if lone is not None and lone[1].upper() in self._labels and not self._option_texts.with_text(text):
            return _LABEL_SETS[lone[1].upper()], Reason.OK
        own = self._beside_own_text(bare)
        if own is not None:
            return _LABEL_SETS[own], Reason.OK
        by_text = next(
            filter(None, map(self._option_texts.with_text, (text, bare, _PRONOUN.sub("", text, count=1)))), ""
        )
        if by_text:
            return (frozenset(by_text), Reason.OK) if len(by_text) == 1 else (frozenset(), Reason.AMBIGUOUS)
        if _BULLET.match(answer) is not None:
            return self._read(_BULLET.sub("", answer))
        own = self._yes_no_option(text)
        if own is not None:
            return _LABEL_SETS[own], Reason.OK
        listed = self._listed_labels(bare)
        if listed is not None:
            return listed
        if "\n" in answer:
            bare = _without_politeness(clean(re.sub(r"\s*\n\s*", ". ", answer.strip())))
        parts = _LABEL_AND_REST.fullmatch(bare)
        label = (parts["double"] or parts["single"] or parts["plain"]).upper() if parts is not None else ""
        reason = Reason.UNREADABLE
        if parts is not None and label in self._labels:
            reason = self._check_rest(label, parts["rest"])
            if reason is Reason.OK:
                return _LABEL_SETS[label], reason
        several = self._read_several(answer) if parts is None or len(self.gold) != 1 else None
        if several is not None:
            return several, Reason.OK
        if reason is Reason.AMBIGUOUS:
            return frozenset(), reason
        named, why_not = self._read_declared(text)
        if why_not is Reason.UNREADABLE and answer.find("\\boxed{") > 0:
            # A box at the end of a sentence is what the sentence declares.
            named, why_not = self._read_declared(clean(answer.replace("\\boxed{", " the answer is \\boxed{")))
        return named, why_not if why_not is not Reason.UNREADABLE else reason

    def _beside_own_text(self, text: str) -> str | None:
        """Return the label that precedes or follows its own text: `B 12`, `B (12)`, `12 (B)`."""
        front = _LABEL_AND_OWN_TEXT.fullmatch(text)
        if front is not None and front[1].upper() in self._labels:
            label = front[1].upper()
            if label in self._option_texts.with_text(front[2]) or (
                self._options and front[2] == self._option_texts.written(label)
            ):
                return label
        behind = _OWN_TEXT_AND_LABEL.fullmatch(text)
        if behind is not None:
            label = (behind[2] or behind[3]).upper()
            if self._option_texts.with_text(behind[1].rstrip(" .,;:-")) == label:
                return label
        return None

    def _yes_no_option(self, text: str) -> str | None:
        """Return the label of the option yes or no, where the options are these and an answer begins with one."""
        meant = {
            _YES_NO[option]: label
            for label, option in zip(self._labels, self._option_texts.normalised, strict=False)
            if option in _YES_NO
        }
        if len(meant) < 2:
            return None
        value = read_yes_no(text)[0]
        return None if value is None or self._names_another(text, meant[value]) else meant[value]

    def _listed_labels(self, text: str) -> tuple[frozenset[str], Reason] | None:
        """Return the labels of a text made of nothing but several: `A, b`, `['A', 'C']`, `B or C`, `AC`."""
        if _LABELS_RUN.fullmatch(text) and list(text) == sorted(set(text)) and set(text) <= set(self._labels):
            return (frozenset(text), Reason.OK) if len(self.gold) != 1 else None
        words = [word for word in _BETWEEN_WORDS.split(text) if word]
        letters = [word.upper() for word in words if len(word) == 1]
        if len(letters) < 2 or any(len(word) > 1 and word.casefold() not in _LIST_WORDS for word in words):
            return None
        if any(letter not in self._labels for letter in letters):
            return None
        named = frozenset(letters)
        is_open = any(word.casefold() in ("or", "nor", "vs", "either", "to", "through") for word in words)
        return named, Reason.AMBIGUOUS if is_open and len(named) > 1 else Reason.OK

    def _check_rest(self, label: str, rest: str) -> Reason:
        """Return OK unless what follows a label denies it, hedges, refuses or names another option."""
        by_text = self._option_texts.with_text(clean(rest)) or self._option_texts.with_text(rest)
        if by_text:
            return Reason.OK if label in by_text else Reason.CONTRADICTION
        if (label == "I" and _FIRST_PERSON.match(rest)) or REFUSAL.match(rest):
            return Reason.UNREADABLE
        proclaimed = _PROCLAIMED.match(rest)
        said = rest[proclaimed.end() :].lstrip(" .,;:!-") if proclaimed is not None else rest
        own_text = self._option_texts.text_of(label)
        without_own = (
            re.sub(rf"(?<!\w){re.escape(own_text)}(?!\w)", " ", said, flags=re.IGNORECASE) if own_text else said
        )
        says_own = without_own != said
        begun = without_own.lstrip(" .,;:!-")
        if DENIED.match(begun) or DENIED_LATER.search(without_own) or TAKEN_BACK.match(begun):
            return Reason.CONTRADICTION
        if HEDGE.match(begun):
            return Reason.AMBIGUOUS
        if self._tells_of_all(own_text, said, label):
            return Reason.OK
        if self._names_another(without_own, label) or _by_order(said) not in ("", label):
            return Reason.AMBIGUOUS
        counted = in_digits(said.casefold()) if own_text.isdecimal() else said
        if counted is not said and _adds_up(counted, int(own_text)):
            return Reason.OK
        if not says_own and (
            any(label not in other for other in map(self._stated_first, (counted, *_IS.split(counted)[1:])) if other)
            or self._ends_with_another(said, label)
        ):
            return Reason.CONTRADICTION
        return Reason.CONTRADICTION if self._states_another(without_own, label) else Reason.OK

    def _tells_of_all(self, own_text: str, text: str, label: str) -> bool:
        """Return whether an option like `all of the above` is explained by its parts: `A, B and C are right`."""
        if _COLLECTIVE.search(own_text) is None:
            return False
        labels = {match[1] for match in _SECOND_LABEL.finditer(text) if match[1] and match[1] != label}
        folded = text.casefold()
        texts = {other for other in self._option_texts.normalised if other and other != own_text and other in folded}
        return max(len(labels), len(texts)) > 1 and not HEDGE.search(text)

    def _ends_with_another(self, text: str, label: str) -> bool:
        """Return whether a clause ends with the text of another option, as what it says: `It was taken in Paris`."""
        others = [
            re.escape(re.sub(r"(?<=\w{3})s$", "", without_article(other.split(",")[0])))
            for a, other in zip(self._labels, self._option_texts.normalised, strict=False)
            if a != label
            and other[:1].isalpha()
            and len(other) > 2
            and label not in self._option_texts.with_part(other)
        ]
        own_part = self._option_texts.text_of(label).split(",")[0]
        if not others or (own_part and re.search(rf"(?<!\w){re.escape(own_part)}(?!\w)", text, re.IGNORECASE)):
            return False
        ending = re.compile(rf"(?:^|(?<=\W))(?:{'|'.join(others)})(?:e?[sd])?(?:{_BEHIND_STATED})?\W*$", re.IGNORECASE)
        for clause in _STATEMENT_END.split(text):
            stated = ending.search(clause)
            if (
                stated is not None
                and clause[: stated.start()].strip()
                and _COMPARED.search(clause, 0, stated.start()) is None
            ):
                return True
        return False

    def _stated_first(self, text: str) -> str:
        """Return the labels of the options whose text, or part of it, is what a text begins with."""
        clause = _CLAUSE_START.split(text.lstrip(), maxsplit=2)[1]
        return self._option_texts.starting_with(text)[0] or self._option_texts.with_part(clause)

    def _states_another(self, text: str, label: str) -> bool:
        """Return whether a clause of a text is another option's text or part of it, or turns to that: `rather Oslo`."""
        starts = list(_CLAUSE_START.finditer(text))
        for start, following in zip_longest(starts, starts[1:]):
            clause = text[start.end() : following.start() if following is not None else None]
            opening = _TURN.match(clause)
            assert opening is not None  # it may be empty
            stated = clause[opening.end() :]
            if not stated.strip():
                continue
            # Between two commas a text may be one of many in a sentence: `Rome, Oslo and Paris have none`.
            is_whole = not start.start() or following is None or following.group()[0] in ".;:!?)"
            if is_whole or opening["turn"]:
                other = self._option_texts.with_text(clean(stated)) or self._option_texts.with_part(stated)
                if other and label not in other:
                    return True
            other, behind = self._option_texts.starting_with(text[start.end() + opening.end() :])
            is_meant = opening["turn"] or _PROCLAIMED.match(behind) or _TOO.match(behind)
            if other and label not in other and is_meant and not is_denied(behind):
                return True
        return False

    def _names_another(self, text: str, label: str, *, denied_counts: bool = True) -> bool:
        """Return whether a text names an option other than `label` by its letter; not letters of things and words."""
        for match in _SECOND_LABEL.finditer(text):
            other = (match[1] or match[2] or match[3]).upper()
            if other == label or other not in self._labels or _WORD_USE.match(text, match.start()):
                continue
            if _NAMED_THING.search(text, 0, match.start()):
                continue
            behind = text[match.end() :].lstrip(" )]\"'*.,:")
            if denied_counts or not is_denied(behind):
                return True
        return False

    def _read_declared(self, text: str) -> tuple[frozenset[str], Reason]:
        """Return the option that the text declares at its end, if it names no other before."""
        declaration = declared(text)
        if declaration is None:
            return frozenset(), Reason.UNREADABLE
        before, value = declaration.before, _without_politeness(clean(declaration.value))
        lone = _LONE.fullmatch(value)
        is_called = declaration.is_explicit or _SUBJECT_IT.search(before) is not None
        if lone is not None and lone[1].upper() in self._labels:
            label = lone[1].upper() if is_called else None
        else:
            by_text, listed = self._option_texts.with_text(value), self._listed_labels(value)
            label = by_text if len(by_text) == 1 else self._beside_own_text(value)
            if label is None and listed is not None and len(listed[0]) == 1:
                label = min(listed[0])
        if label is None:
            return frozenset(), Reason.UNREADABLE
        if self._names_another(before, label, denied_counts=False):
            return frozenset(), Reason.AMBIGUOUS
        if not is_called and any(
            re.search(rf"(?<!\w){re.escape(text)}(?!\w)", before, re.IGNORECASE)
            for other, text in zip(self._labels, self._option_texts.normalised, strict=False)
            if other != label and text
        ):
            return frozenset(), Reason.AMBIGUOUS
        for sentence in _SENTENCE_END.split(before):
            if self._option_texts.with_text(clean(sentence)) not in ("", label):
                return frozenset(), Reason.CONTRADICTION
            earlier = declared(sentence)
            if earlier is not None and self._option_texts.with_text(clean(earlier.value)) not in ("", label):
                return frozenset(), Reason.CONTRADICTION
        return _LABEL_SETS[label], Reason.OK

    def _read_several(self, answer: str) -> frozenset[str] | None:
        """Return the labels of a list such as `cat, C. cow`; None if any item names no option."""
        text = re.sub(r"\s*\n\s*", "\n", answer.strip()) if "\n" in answer else clean(answer)
        text = re.sub(r"^(?:(?:options|choices|answers)\s*:?|both)\s+", "", text.strip("()[]{} "), flags=re.IGNORECASE)
        items = [item for item in _SEPARATOR.split(text) if item]
        if not 2 <= len(items) <= len(self._labels) + 1:
            return None
        labels = [self._read_item(_without_politeness(clean(item))) for item in items]
        return frozenset(label for label in labels if label) if all(labels) else None

    def _read_item(self, text: str) -> str | None:
        lone = _LONE.fullmatch(text)
        if lone is not None and lone[1].upper() in self._labels:
            return lone[1].upper()
        by_text = self._option_texts.with_text(text)
        return by_text if len(by_text) == 1 else self._beside_own_text(text)


_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_LABEL_SETS = {label: frozenset(label) for label in _LABELS}
_RIGHT = {label: Grade(1.0, Reason.OK, label) for label in _LABELS}
_WRONG = {label: Grade(0.0, Reason.OK, label) for label in _LABELS}


def _by_order(text: str) -> str:
    """Return the label that a text gives by its place: C for `the third option`; empty for none."""
    place = _ORDER.search(text)
    return _ORDERED[place[1].casefold()] if place is not None else ""


def _adds_up(text: str, number: int) -> bool:
    """Return whether a text holds the number, or numbers that sum to it: `there are 3: 1 red and 2 blue`."""
    numbers = [int(digits) for digits in re.findall(r"(?<![\w.,/-])[0-9]{1,9}(?![\w.,/-]*[0-9])", text)]
    is_told = number in numbers or (len(numbers) > 1 and sum(numbers) == number)
    return is_told and _RIVAL_NUMBER.search(text) is None


def _without_politeness(text: str) -> str:
    """Return a text without the words around a label: `the option B is correct` is B."""
    word = _LEADING_WORD.match(text)
    if word is not None:
        text = text[word.end() :]
    word = _OPTION_WORD.match(text)
    if word is not None:
        text = text[word.end() :]
    if not text.endswith(_PROCLAIMING):
        return text
    for proclaimed in _PROCLAIMED.finditer(text):
        if proclaimed.end() == len(text) and not text[: proclaimed.start()].casefold().endswith("there"):
            return text[: proclaimed.start()]
    return text
