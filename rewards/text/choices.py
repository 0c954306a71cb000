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

from rewards.core.base import GoldError, Grade, Reason
from rewards.text.declaration import declared
from rewards.text.denial import LACKS, is_denied
from rewards.text.explanation import PROCLAIMED, Explanations, proclaims, quantified, quantifies
from rewards.text.option_texts import OptionTexts
from rewards.text.plain_text import clean
from rewards.text.statement import leads_to_another, names_another, stated
from rewards.text.yes_no import read_yes_no

_OPEN, _CLOSE = r"[(\[{<\"'*`$#.\s]*", r"[)\]}>\"'*`$.,:;!?\s]*"
_LONE = re.compile(rf"{_OPEN}([A-Za-z]){_CLOSE}")
_LEADING_WORD = re.compile(
    r"(?:(?:so|thus|hence|therefore|but|rather|only|just|solely|definitely|certainly|clearly|surely|probably|(?:most\s+)?likely"
    r"|presumably|leaving|by\s+elimination|(?:it|this|that)\s+(?:has\s+to|must)\s+be|(?:it\s+)?looks\s+like"
    r"|that's|(?:of|among)\s+(?:the|these|all)\s+(?:\w+\s+)?(?:two|three|four|five|six|options|choices|answers))\b,?\s+)+(?=\S)",
    re.IGNORECASE,
)
"""Words in front of an answer that change nothing."""
_OPTION_WORD = re.compile(
    r"(?:(?:the\s+)?(?:(?:correct|right|best|closest|final|answer)\s+)?\[?(?:options?|choices?|letters?|answers?|ans\.?)\]?\s*[:-]?\s+)?"
    r"(?=[(\[{\"'*$]*[A-Za-z](?![\w']))",
    re.IGNORECASE,
)
_THING = re.compile(
    r"^(?:the\s+)?(?:(?:missing|correct|right)\s+)?(?:figure|picture|image|shape|diagram|graph|panel)\s+(?:is\s+)?(?=[(\"']?[A-Z](?!\w))",
    re.IGNORECASE,
)
_SURE = re.compile(
    r"\s+(?:without\s+(?:an?y?\s+)?doubt|for\s+(?:sure|certain)|it\s+is)$|(?:\u9009\u9879)?\u662f?\u6b63\u786e\u7684?$|\u9009\u9879$"
)
"""`B for sure`, `B it is`; in Chinese: option B (is right)."""
_PROCLAIMING = ("only", "alone", "correct", "right", "accurate", "answer", "option", "choice", "one", "s")
_LABEL_AND_RAW_TEXT = re.compile(r"\(?([A-Z])[).:] (.*[^\s.,;:!?])")
_LABEL_AND_REST = re.compile(
    r"(?:\"(?P<double>[A-Za-z])\"|'(?P<single>[A-Za-z])'|[(\[{<\"'*`$]*(?P<plain>[A-Za-z]))"
    r"(?P<mark>\s*[)\]}>*`$.,:;!?-]+[)\]}>*`$\"'.,:;!?-]*\s*|\s+-+\s+|\s+(?=\()|\s+(?=(?:because|since|as|given|due)\b)"
    rf"|\s*(?={PROCLAIMED.pattern}(?:[.,;:!]|\s+(?:because|since|as|given|due|with|for|that|which|where)\b)))(?P<rest>\S.*)",
    re.DOTALL,
)
_SENTENCE_MARK = frozenset(".:;!)")
_LABEL_AND_OWN_TEXT = re.compile(r"[(\[{<\"'*`$]*([A-Za-z])[)\]}>\"'*`$.,:;-]*(?:\s+-+)?\s+(\S.*)", re.DOTALL)
_LINK = r"(?:(?:which|that|this)\s+is\s+|i\.e\.,?\s+)?(?:(?:option|choice|answer)\s+)?"
_OWN_TEXT_AND_LABEL = re.compile(
    rf"(.*?\S)\s*(?:[(\[][\"'*]*{_LINK}([A-Za-z])[\"'*]*[)\]]|\s[-:,]?\s*{_LINK}[(\[]?([A-Z])[)\]]?)", re.DOTALL
)
_BETWEEN_WORDS = re.compile(r"[\s,;:&+/|()\[\]{}<>\"'*`$.!?-]+")
_LIST_WORDS = frozenset(("and", "or", "nor", "vs", "both", "either", "to", "through", "option", "options"))
_SUBJECT = re.compile(
    r"(?:(?:and|but|so|it|this|that|because|since|as)\s+)*(?P<denied>.+?)\s+(?P<verb>(?:is|isn't|are|aren't|was|were|can't|cannot"
    r"|can|must|does|doesn't|do|don't|has|have|lacks?|being)\b.*)",
    re.IGNORECASE,
)
"""A clause that may deny what it is about: `because B is wrong`, `A and C have no wheels`."""
_TOO_MUCH = re.compile(r"(?:is|are|was|were)\s+(?:(?:far|much|way)\s+)?too\s+\w+", re.IGNORECASE)
_NO_RIVAL = re.compile(
    r"(?:(?:and|but|so|it|this|that|is|it's|because|since|as)\s+)*(?:(?P<said>.+?)\s+(?:and\s+|but\s+)?)??"
    r"(?:not|neither|none\s+of|isn't|(?:can't|cannot)\s+be|rather\s+than|instead\s+of|unlike|over(?!\s+[0-9]))\s+"
    r"(?!(?:only|just|sure|necessarily)\b)(?P<denied>.+)",
    re.IGNORECASE,
)
"""A clause that denies an option, and what it says before: `not B`, `C rather than B`."""
_LABEL_LIST = re.compile(r"(?<![\w'])([A-Z]),\s*(?:(and|or|nor)\s+)?(?=[A-Z](?![\w']))")
_BRACKETED = re.compile(r"[(\[]([A-Za-z])[)\]]")
_NO = re.compile(r"(?:no|nope|not|hardly)\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"([;:!?()]+\s*|[.,]+(?:\s+|$)|\s-+\s|\s(?=(?:but|so|because|since)\s))", re.IGNORECASE)
_PRONOUN = re.compile(r"(?:it|this|that|they|the\s+(?:answer|statement|result))\s+(?!is\b|was\b|says\b)", re.IGNORECASE)
_CALLED_RIGHT = frozenset(("right", "correct", "yes", "true"))
_VERDICT = re.compile(
    r"(?<!\w)\(?([A-Z])\)?\s*(?:[:=-]|is\b|\()\s*(right|correct|yes|true|wrong|incorrect|no|false)\)?(?!\w)",
    re.IGNORECASE,
)
_FINAL_LABEL = re.compile(
    r"(?:(?<=[.!?*])\s*\n+\s*|\s+(?:\u2192|\u21d2|[-=]>)\s*)(?=[(\[*\"']*[A-Za-z][)\]*\"'.]*\s*$)"
)
"""In front of a label on a last line of its own or behind an arrow: what the text before leads to."""
_IN_BOX = re.compile(r"(?<=\S)\s*(?=\\boxed\{)")
_IT = re.compile(r"^(?:it|this|that)\s+", re.IGNORECASE)
_REASON_BEHIND = re.compile(r"[,.;:]\s+(?=\S)|-+\s+|(?=(?:because|since|as|due)\b)")
_BULLET = re.compile(r"^\s*(?:[-+*\u2022>]\s+(?=\S)|\d[.)]\s+(?=[^\d\s]))", re.MULTILINE)
_LISTED = re.compile(r"\s*(?:[,;&]|\b(?:and|or|nor)\b)\s*", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*(?:[,;&+\n]|\band\b)\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?;]\s+|,?\s+(?:so|thus|hence|therefore)\b,?\s*")
_SPEAKER = re.compile(r"\bI(?:'m)?\s*$")
_SUBJECT_IT = re.compile(r"(?:^|\s)(?:it|this|that|one)\s*$", re.IGNORECASE)
_FROM_IMAGE = re.compile(
    r"\s+(?:from|based\s+on|with|in|by)\s+(?:the|this)\s+(?:(?:given|provided|available)\s+)?(?:image|picture|photo|figure|graph|chart"
    r"|diagram|table|map|information|data)(?:\s+(?:given|provided|alone|shown))?$",
    re.IGNORECASE,
)
_NAME_IS = re.compile(r"^\s*[A-Za-z]\w?\s*=\s*(?=\S)")
_CALCULATION = re.compile(
    r"[\d.\s()$\u20ac\u00b0%]*[\d)\u00b0%]\s*[-+*/x\u00d7\u00f7^][-+*/x\u00d7\u00f7^\d.\s()$\u20ac\u00b0%]*"
)
_IN_BRACKETS = re.compile(rf"(?<=\S)\s*\({_CALCULATION.pattern}\)$")
"""`15 (5 x 3)`."""
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

    @cached_property
    def _explanations(self) -> Explanations:
        return Explanations(self._option_texts)

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
            elif not self._option_texts.with_text(clean(clause)):  # `none of the above` may be one
                parts = _SUBJECT.fullmatch(clause)
                if parts is not None and (
                    is_denied(parts["verb"]) or LACKS.match(parts["verb"]) or _TOO_MUCH.match(parts["verb"])
                ):
                    said, refused = "", self._items(parts["denied"])
                parts = _NO_RIVAL.fullmatch(clause) if not refused and not self._is_own_text(clause) else None
                if parts is not None:
                    said, refused = parts["said"] or "", self._items(parts["denied"])
            denied |= refused
            kept += (said if refused else clause) + (ends[i] if said or not refused else "")
        return kept.strip(" ,;:.-()"), denied

    def _is_own_text(self, clause: str) -> bool:
        """Return whether a clause is a label in front of an option that denies: `C none of the above`."""
        front = _LABEL_AND_OWN_TEXT.fullmatch(clause)
        return front is not None and self._option_texts.with_text(clean(front[2])) != ""

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
        bare = self._bare(text)
        if bare != text and self._is_beside_other(text):
            return frozenset(), Reason.CONTRADICTION
        lone = _LONE.fullmatch(bare) if bare != text else None
        if lone is not None and lone[1].upper() in self._labels and not self._option_texts.with_text(text):
            return _LABEL_SETS[lone[1].upper()], Reason.OK
        own = self._beside_own_text(text) or self._beside_own_text(bare)
        if own is not None:
            return _LABEL_SETS[own], Reason.OK
        spellings: tuple[str, ...] = (text, bare, _PRONOUN.sub("", text, count=1), text.removesuffix(" side"))
        if _FROM_IMAGE.search(bare) or _IN_BRACKETS.search(bare):
            shorter = _IN_BRACKETS.sub("", _FROM_IMAGE.sub("", bare))
            spellings += (shorter, _PRONOUN.sub("", shorter, count=1))
        by_text = next(filter(None, map(self._option_texts.with_text, spellings)), "")
        if by_text:
            return (frozenset(by_text), Reason.OK) if len(by_text) == 1 else (frozenset(), Reason.AMBIGUOUS)
        if _BULLET.match(answer) is not None:
            while _BULLET.match(answer) is not None:
                answer = _BULLET.sub("", answer)
            return self._read(answer)
        judged = self._judged(text)
        if judged is not None:
            return judged
        own = self._yes_no_option(text) or self._about_others(text)
        if own is not None:
            return _LABEL_SETS[own], Reason.OK
        listed = self._listed_labels(bare)
        if listed is not None:
            return listed
        if "\n" in answer:
            bare = self._bare(clean(re.sub(r"\s*\n\s*", ". ", answer.strip())))
        parts = _LABEL_AND_REST.fullmatch(bare)
        label = (parts["double"] or parts["single"] or parts["plain"]).upper() if parts is not None else ""
        reason = Reason.UNREADABLE
        if parts is not None and label in self._labels:
            reason = self._explanations.check(
                label, parts["rest"], is_conditional=not _SENTENCE_MARK.intersection(parts["mark"])
            )
            if reason is Reason.OK:
                return _LABEL_SETS[label], reason
        several = self._read_several(answer) if parts is None or len(self.gold) != 1 else None
        if several is not None:
            return several, Reason.OK
        if reason is Reason.AMBIGUOUS:
            return frozenset(), reason
        named, why_not = self._read_declared(text)
        if why_not is Reason.UNREADABLE and (_FINAL_LABEL.search(answer) or _IN_BOX.search(answer)):
            named, why_not = self._read_declared(
                clean(_IN_BOX.sub(" the answer is ", _FINAL_LABEL.sub(". The answer is ", answer.strip())))
            )
        if why_not is Reason.UNREADABLE and parts is None:
            label, behind = self._option_texts.starting_with(bare)
            mark = _REASON_BEHIND.match(behind)
            if len(label) == 1 and mark is not None:
                is_sentence = not mark.group().startswith(".")
                reason = self._explanations.check(label, behind[mark.end() :], is_conditional=is_sentence)
                if is_denied(_IT.sub("", behind[mark.end() :])):
                    reason = Reason.CONTRADICTION
                return (_LABEL_SETS[label] if reason is Reason.OK else frozenset()), reason
        if why_not is Reason.UNREADABLE and reason is Reason.UNREADABLE and "?" not in answer:
            stated = self._stated(text)
            if stated is not None:
                return _LABEL_SETS[stated], Reason.OK
        return named, why_not if why_not is not Reason.UNREADABLE else reason

    def _bare(self, text: str) -> str:
        """Return a text without the words around a label, where these are no option: `B is right` is B."""
        if self._option_texts.are_letters:
            text = _THING.sub("", text, count=1)
        return _without_politeness(text, self._option_texts.normalised)

    def _beside_own_text(self, text: str) -> str | None:
        """Return the label that precedes or follows its own text: `B 12`, `B (12)`, `12 (B)`."""
        front = _LABEL_AND_OWN_TEXT.fullmatch(text)
        if front is not None and front[1].upper() in self._labels:
            label = front[1].upper()
            spellings = (front[2], clean(front[2].strip("()[]")))
            if any(label in self._option_texts.with_text(spelled) for spelled in spellings) or (
                self._options and front[2] == self._option_texts.written(label)
            ):
                return label
        behind = _OWN_TEXT_AND_LABEL.fullmatch(text)
        if behind is not None:
            label = (behind[2] or behind[3]).upper()
            if self._option_texts.with_text(clean(behind[1].rstrip(" .,;:-"))) == label:
                return label
        return None

    def _stated(self, text: str) -> str | None:
        """Return the label of the option that a sentence states, its label behind it or not: `It is Rome, option B`."""
        behind = _OWN_TEXT_AND_LABEL.fullmatch(text)
        if behind is None:
            return stated(self._option_texts, text)
        said, label = behind[1].rstrip(" .,;:-"), (behind[2] or behind[3]).upper()
        is_own = stated(self._option_texts, said) == label or self._read_declared(said)[0] == frozenset(label)
        return label if label in self._labels and is_own else None

    def _is_beside_other(self, text: str) -> bool:
        """Return whether a label precedes another option's text: `A. B only`, where `only` is no politeness."""
        front = _LABEL_AND_OWN_TEXT.fullmatch(text)
        by_text = self._option_texts.with_text(front[2]) if front is not None else ""
        return front is not None and by_text != "" and front[1].upper() not in by_text

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
        return None if value is None or names_another(self._option_texts, text, meant[value]) else meant[value]

    def _about_others(self, text: str) -> str | None:
        """Return the label of the one option about all or none of the others that an answer means: `None of them`."""
        meant = quantified(text)
        if meant is None:
            return None
        labels = [
            label
            for label, option in zip(self._labels, self._option_texts.normalised, strict=False)
            if quantifies(option) is meant
        ]
        return labels[0] if len(labels) == 1 else None

    def _judged(self, text: str) -> tuple[frozenset[str], Reason] | None:
        """Return the labels that a list of verdicts calls right: `A (wrong), B (right)`, `A: no, B: yes`."""
        verdicts = _VERDICT.findall(text)
        if len(verdicts) < 2 or _VERDICT.sub("", text).strip(" ,;.") or any(a not in self._labels for a, _ in verdicts):
            return None
        right = frozenset(label for label, verdict in verdicts if verdict.casefold() in _CALLED_RIGHT)
        wrong = frozenset(label for label, verdict in verdicts if verdict.casefold() not in _CALLED_RIGHT)
        return (right, Reason.OK) if right and not right & wrong else (frozenset(), Reason.CONTRADICTION)

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

    def _read_declared(self, text: str) -> tuple[frozenset[str], Reason]:
        """Return the option that the text declares at its end, if it names no other before."""
        declaration = declared(text)
        if declaration is None:
            return frozenset(), Reason.UNREADABLE
        before, declared_text = declaration.before, clean(_NAME_IS.sub("", declaration.value))
        value = self._bare(declared_text)
        lone = _LONE.fullmatch(value)
        is_called = declaration.is_explicit or _SUBJECT_IT.search(before) is not None
        if lone is not None and lone[1].upper() in self._labels:
            label = lone[1].upper() if is_called else None
        else:
            by_text, listed = self._option_texts.with_text(value), self._listed_labels(value)
            label = (
                by_text if len(by_text) == 1 else self._beside_own_text(declared_text) or self._beside_own_text(value)
            )
            if label is None and listed is not None and len(listed[0]) == 1:
                label = min(listed[0])
        if label is None:
            return frozenset(), Reason.UNREADABLE
        before = _SPEAKER.sub("", before)
        if leads_to_another(self._option_texts, before, label):
            return frozenset(), Reason.CONTRADICTION
        if names_another(self._option_texts, self._option_texts.without(before, label), label, denied_counts=False):
            return frozenset(), Reason.AMBIGUOUS
        if (
            not is_called
            and not _CALCULATION.fullmatch(before)
            and any(
                re.search(rf"(?<!\w){re.escape(text)}(?!\w)", before, re.IGNORECASE)
                for other, text in zip(self._labels, self._option_texts.normalised, strict=False)
                if other != label and text
            )
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


def _without_politeness(text: str, options: Sequence[str] = ()) -> str:
    """Return a text without the words around a label: `the option B is correct` is B."""
    word = _LEADING_WORD.match(text)
    if word is not None:
        text = text[word.end() :]
    word = _OPTION_WORD.match(text)
    if word is not None:
        text = text[word.end() :]
    text = _SURE.sub("", text)
    if not text.endswith(_PROCLAIMING):
        return text
    for proclaimed in PROCLAIMED.finditer(text):
        if (
            proclaimed.end() == len(text)
            and proclaims(proclaimed, options)
            and not text[: proclaimed.start()].casefold().endswith("there")
        ):
            return text[: proclaimed.start()]
    return text
