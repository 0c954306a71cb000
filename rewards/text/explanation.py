"""What an explanation says of the label in front of it: it agrees, denies, hedges, refuses or states another option.

An explanation states another option where it names its letter, ends a clause with its text or a calculation with its
number, or says `only` of it. Comparing with one (`south of Paris`) states none.
"""

import re
import string
from collections.abc import Sequence
from itertools import zip_longest

from rewards.core.base import Reason
from rewards.text.calculation import adds_up, calculates_another
from rewards.text.denial import DENIED, DENIED_LATER, HEDGE, NO_DOUBT, NOT, REFUSAL, TAKEN_BACK, is_denied, says_none
from rewards.text.number_words import in_digits
from rewards.text.option_texts import OptionTexts, spoken
from rewards.text.plain_text import clean, without_article, without_latex
from rewards.text.refusal import refuses
from rewards.text.statement import COMPARED, SECOND_LABEL, STATEMENT_END, names_another
from rewards.text.yes_no import read_yes_no

PROCLAIMED = re.compile(
    r"\s*\b(?:(?:only|alone)(?![\w'-])"
    r"|(?:is|are|would\s+be|must\s+be|should\s+be|seems)\s+(?:both\s+|clearly\s+)?(?:the\s+|my\s+)?"
    r"(?:(?:correct|right|best|closest|only|final|most\s+\w+)\s+){0,2}"
    r"(?:correct|right|accurate|answer|option|choice|one)s?(?:\s+(?:answer|option|choice|one)s?)?(?![\w'-])(?!\s+(?:of|to|side|hand|angle)\b))"
)
"""`is correct`, `would be the best option`, `only`: what may follow a label without changing what is said."""
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
_COLLECTIVE = re.compile(r"^(?:all|both|none|neither|any)\b|\b(?:above|[ai]+ and [bi]+|1 and 2)\b")
"""Options about other options."""
_BEHIND_STATED = (
    r"\s+(?:(?:in\s+)?(?:side|colou?r)|one|direction|part|corner|half|end|as\s+well|too|instead|here|now)"
    r"|\s+(?:in|on|of|at)\s+(?:the|this)\s+(?:image|picture|photo|figure|graph|chart|diagram|table|map|screen|right|left)"
)
_ORDER = re.compile(r"\bthe\s+(first|second|third|fourth|fifth)\s+(?:option|choice|answer|one)\W*$", re.IGNORECASE)
_ORDERED = dict(zip(("first", "second", "third", "fourth", "fifth"), string.ascii_uppercase, strict=False))
_IS = re.compile(
    r"\b(?:is|are|was|were|(?:must|should|would|has\s+to)\s+be|equals?|reads?|shows?|says?|depicts?|displays?"
    r"|counts?|sees?|finds?|ha(?:s|ve))\s+"
)
_DIGIT = re.compile("[0-9]")
_REASON = re.compile(r"\b(?:because|since|as|due\s+to|given|according\s+to)\b", re.IGNORECASE)
_QUANTIFIER = re.compile(
    r"(?:(?P<none>none|neither)|(?P<all>all|both|any|each|either|everything))(?:\s+(?:of\s+)?(?:them|these|those|(?:the\s+)?"
    r"(?:above|(?:given\s+|above\s+|listed\s+)?(?:options|choices|answers)(?:\s+(?:given|above|listed))?)))?"
    r"(?:\s+(?:is|are|fits?|match(?:es)?|apply|applies)(?:\s+(?:correct|right|true|possible|suitable))?)?"
)
"""`None of these`, `all are correct`: what only an option about other options says."""
_OPEN_ENDED = re.compile(
    r"unknown|unclear|uncertain|insufficient|not enough|cannot|\w+n't|impossible|depends|not sure|no information"
)
"""In an option's text: whoever says that nothing is known may mean this option."""
_SEVERAL = re.compile(r"either\b.*\bor\b|[0-9]+\s*(?:-|/|to\b|and\b|or\b)\s*[0-9]+\W*$", re.IGNORECASE | re.DOTALL)
"""`Either Rome or Oslo`, `1-2`: several answers."""
_CONDITION = re.compile(
    r"(?:only\s+)?(?:if|provided|providing|assuming|supposing|suppose|on\s+condition|as\s+long\s+as|in\s+case)\b",
    re.IGNORECASE,
)
_DENYING = re.compile(
    rf"\b(?!not\s+(?:only|just|merely|necessarily)\b)(?:{NOT}|neither|nor|doubt|nothing(?!\s+but)|no\s+(?:way|chance)|(?:no|without)(?=\s*$))\b",
    re.IGNORECASE,
)
_OF_OPINION = re.compile(
    r"\s*(?:\w+\s+)?(?:think|believe|see|say|claim|suppose|have|be|sure|certain|that)\b", re.IGNORECASE
)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have)\b", re.IGNORECASE)
_ALL_BUT = re.compile(
    r"\b(?:any|every|all)\w*\s+(?:else\s+)?(?:but|except|other\s+than)\s+(?:for\s+|in\s+)?$|\b(?:other\s+than|except(?:\s+for|\s+in)?)\s+$",
    re.IGNORECASE,
)
_TOO_FAR = re.compile(r"\b(?:too\s+\w+\s+(?:for|to\s+be)|far\s+from(?:\s+being)?)\s+(?:an?\s+|the\s+)?$", re.IGNORECASE)
_ASKED = re.compile(
    r"\W*\?\W*(?:no|nope|not|wrong|hardly)\b|\W*(?:it|this|that)\s+(?:is|was)(?:\s+not|n't)\W*$", re.IGNORECASE
)
_SIGN_BLANK = re.compile("(?<=[\u2220\u25b3])\\s+(?=[A-Z])")
_SAID = ("yes", "no", "true", "false")
_NOT = re.compile(r"\s*\bnot\b\s*|(?<=\w)n't\b\s*", re.IGNORECASE)
_CANNOT = re.compile(r"(?:it\s+)?(?:cannot|can\s+not|can't)\s+")
_ONLY = re.compile(r"(?<!not )\b(?:only|just|solely|merely)\s+", re.IGNORECASE)
_EDGES = " .,;:!?-()[]{}\"'*"


class Explanations:
    """Reads what is said behind a label, for the options of one question.

    Example:
        >>> explanations = Explanations(OptionTexts(("Oslo", "Rome"), "AB"))
        >>> [explanations.check("B", said).value for said in ("it has arches", "it is not Rome", "the city is Oslo")]
        ['ok', 'contradiction', 'contradiction']
    """

    def __init__(self, texts: OptionTexts) -> None:
        self._texts = texts

    def check(self, label: str, rest: str, *, is_conditional: bool = False) -> Reason:
        """Return OK unless what follows a label denies it, hedges, refuses or names another option.

        Args:
            label: Of an option.
            rest: What follows it, through `plain_text.clean`.
            is_conditional: Whether `if ..` at its start makes the label conditional: it does in the same sentence.
        """
        rest = _SIGN_BLANK.sub("", without_latex(NO_DOUBT.sub("", rest)))
        by_text = self._texts.with_text(clean(rest)) or self._texts.with_text(rest) or self._in_digits(rest)
        if by_text:
            return Reason.OK if label in by_text else Reason.CONTRADICTION
        own_text = self._texts.text_of(label)
        is_open = _OPEN_ENDED.search(own_text) is not None
        mentions, begun = self._texts.mentions(rest.lstrip(_EDGES)), self._texts.without(rest, label).lstrip(_EDGES)
        is_own_denied = DENIED.match(begun) and any(label in labels and not start for labels, start, _ in mentions)
        if is_open and refuses(rest) and not names_another(self._texts, rest, label) and not is_own_denied:
            return Reason.OK
        if (label == "I" and _FIRST_PERSON.match(rest)) or (not is_open and (REFUSAL.match(rest) or refuses(rest))):
            return Reason.UNREADABLE
        proclaimed = PROCLAIMED.match(rest)
        is_polite = proclaimed is not None and proclaims(proclaimed, self._texts.normalised)
        said = rest[proclaimed.end() :].lstrip(" .,;:!-") if proclaimed is not None and is_polite else rest
        without_own = self._texts.without(said, label)
        says_own = without_own != said
        begun = without_own.lstrip(_EDGES)
        if self._begins_with_another(said, label):
            return Reason.CONTRADICTION
        is_settled = own_text in _SAID and read_yes_no(f"{own_text}, {begun}")[1] is Reason.OK
        if TAKEN_BACK.match(begun) or (not is_settled and (DENIED.match(begun) or DENIED_LATER.search(without_own))):
            return Reason.CONTRADICTION
        if self._is_denied(label, said) or self._is_contrary(own_text, said):
            return Reason.CONTRADICTION
        if HEDGE.match(begun) or _SEVERAL.match(said) or (is_conditional and _CONDITION.match(begun)):
            return Reason.AMBIGUOUS
        if self._tells_of_all(own_text, said, label):
            return Reason.OK
        if names_another(self._texts, without_own, label) or _by_order(said) not in ("", label):
            return Reason.AMBIGUOUS
        is_number = _DIGIT.search(own_text) is not None or self._texts.number_of(label) is not None
        counted = in_digits(said.casefold()) if is_number else said
        if is_number and calculates_another(self._texts, counted, label, says_own=says_own):
            return Reason.CONTRADICTION
        if own_text.isdecimal() and adds_up(counted, int(own_text)):
            return Reason.OK
        if not says_own and (
            any(label not in other for other in map(self._stated_first, (counted, *_IS.split(counted)[1:])) if other)
            or self._ends_with_another(said, label)
        ):
            return Reason.CONTRADICTION
        return Reason.CONTRADICTION if self._states_another(without_own, label) else Reason.OK

    def _begins_with_another(self, text: str, label: str) -> bool:
        """Return whether a text gives a reason for another option's text: `20 degrees, because two sides are equal`."""
        text = text.lstrip(_EDGES)
        reason = _REASON.search(text)
        if reason is None:
            return False
        first = text[: reason.start()].rstrip(_EDGES)
        labels = self._texts.with_text(clean(first)) or self._in_digits(clean(first))
        return labels != "" and label not in labels

    def _is_denied(self, label: str, text: str) -> bool:
        """Return whether a text denies the option that it says: `it is not Rome`, `anywhere but Rome`, `Rome? No`."""
        for labels, start, end in self._texts.mentions(text):
            if label not in labels:
                continue
            before = text[:start]
            if _ALL_BUT.search(before) or _TOO_FAR.search(before) or _ASKED.match(text, end):
                return True
            clause = STATEMENT_END.split(before)[-1]
            denying = _DENYING.search(clause)
            if denying is not None:
                between = clause[denying.end() :]
                if _OF_OPINION.match(between) or not _VERB.search(between):
                    return True
        return False

    def _in_digits(self, text: str) -> str:
        """Return the labels of all options with a text whose numbers are in words: `six centimeters`."""
        folded = text.casefold()
        digits = in_digits(folded)
        return self._texts.with_text(digits) if digits != folded else ""

    def _is_contrary(self, own_text: str, said: str) -> bool:
        """Return whether a text is about all or no options where the own is not, denies a yes or affirms a no."""
        quantifier = _QUANTIFIER.fullmatch(said.casefold().strip(_EDGES))
        if quantifier is not None:
            if quantifier["all"] == "both" and " and " in own_text:
                return False
            return quantifies(own_text) is not (quantifier["all"] is not None)
        impossible = _CANNOT.match(own_text)
        if impossible is not None and f"can {own_text[impossible.end() :]}" in said.casefold():
            return True
        if own_text in _SAID:
            return read_yes_no(f"{own_text}, {said}")[1] is Reason.CONTRADICTION
        if _NOT.search(said + " " + own_text):
            # `Not visible` and `visible`, `a cat is not chasing a dog` and `a cat is chasing a dog`.
            plain, own_plain = (_NOT.sub(" ", text.casefold()) for text in (clean(said), own_text))
            is_own = without_article(" ".join(plain.split())) == without_article(" ".join(own_plain.split()))
            if is_own and (_NOT.search(said) is None) is not (_NOT.search(own_text) is None):
                return True
        if (
            says_none(said.casefold())
            and (none := self._texts.with_text("0"))
            and own_text not in map(self._texts.text_of, none)
        ):
            return True
        for only in _ONLY.finditer(said):
            other = self._texts.starting_with(said[only.end() :])[0]
            if other and own_text not in map(self._texts.text_of, other):
                return True
        return False

    def _tells_of_all(self, own_text: str, text: str, label: str) -> bool:
        """Return whether an option like `all of the above` is explained by its parts: `A, B and C are right`."""
        if _COLLECTIVE.search(own_text) is None:
            return False
        mentions = self._texts.mentions(text)
        others = {labels[0] for labels, _, _ in mentions if label not in labels}
        for _, start, end in reversed(mentions):
            text = f"{text[:start]} {text[end:]}"
        others |= {match[1] for match in SECOND_LABEL.finditer(text) if match[1]}
        return len(others - {label}) > 1 and not HEDGE.search(text)

    def _ends_with_another(self, text: str, label: str) -> bool:
        """Return whether a clause ends with the text of another option, as what it says: `It was taken in Paris`."""
        others = [
            spoken(without_article(other.split(",")[0]))
            for a, other in zip(self._texts.labels, self._texts.normalised, strict=False)
            if a != label and other[:1].isalpha() and len(other) > 2 and label not in self._texts.with_part(other)
        ]
        own_part = self._texts.text_of(label).split(",")[0]
        if not others or (own_part and re.search(rf"(?<!\w){re.escape(own_part)}(?!\w)", text, re.IGNORECASE)):
            return False
        ending = re.compile(rf"(?:^|(?<=\W))(?:{'|'.join(others)})(?:{_BEHIND_STATED})?\W*$", re.IGNORECASE)
        clauses = STATEMENT_END.split(text)
        is_one = len([clause for clause in clauses if clause.strip()]) == 1
        for clause in clauses:
            stated = ending.search(clause)
            if (
                stated is not None
                and (is_one or clause[: stated.start()].strip())
                and COMPARED.search(clause, 0, stated.start()) is None
            ):
                return True
        return False

    def _stated_first(self, text: str) -> str:
        """Return the labels of the options whose text, or part of it, is what a text begins with."""
        clause = _CLAUSE_START.split(text.lstrip(), maxsplit=2)[1]
        return self._texts.starting_with(text)[0] or self._texts.with_part(clause)

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
                other = self._texts.with_text(clean(stated)) or self._texts.with_part(stated)
                if other and label not in other:
                    return True
            other, behind = self._texts.starting_with(text[start.end() + opening.end() :])
            is_meant = opening["turn"] or PROCLAIMED.match(behind) or _TOO.match(behind)
            if other and label not in other and is_meant and not is_denied(behind):
                return True
        return False


def proclaims(proclaimed: re.Match[str], options: Sequence[str]) -> bool:
    """Return whether `is right` approves what stands before it: it does unless `right` itself is an option."""
    return proclaimed.group().casefold().split()[-1] not in options


def quantifies(option: str) -> bool | None:
    """Return True for an option about all or several others, False for one about none of them, None for any other."""
    if _COLLECTIVE.search(option) is None:
        return None
    return not option.startswith(("none", "neither"))


def quantified(text: str) -> bool | None:
    """Return True for `all of them`, False for `none of these`, None for any other text."""
    quantifier = _QUANTIFIER.fullmatch(text.casefold())
    if quantifier is None or text.casefold().startswith(("any", "either")):
        return None
    return quantifier["all"] is not None


def _by_order(text: str) -> str:
    """Return the label that a text gives by its place: C for `the third option`; empty for none."""
    place = _ORDER.search(text)
    return _ORDERED[place[1].casefold()] if place is not None else ""
