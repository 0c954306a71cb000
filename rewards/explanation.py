"""What an explanation says of the label in front of it: it agrees, denies, hedges, refuses or states another option.

An explanation states another option where it names its letter, ends a clause with its text or a calculation with its
number, or says `only` of it. Comparing with one (`south of Paris`) states none.
"""

import re
import string
from itertools import zip_longest

from rewards.base import Reason
from rewards.denial import DENIED, DENIED_LATER, HEDGE, NO_DOUBT, NOT, REFUSAL, TAKEN_BACK, UNSURE, is_denied, says_none
from rewards.number_words import in_digits
from rewards.option_texts import OptionTexts
from rewards.plain_text import clean, without_article, without_latex
from rewards.refusal import refuses
from rewards.yes_no import read_yes_no

PROCLAIMED = re.compile(
    r"\s*\b(?:(?:only|alone)(?![\w'-])"
    r"|(?:is|are|would\s+be|must\s+be|should\s+be|seems)\s+(?:both\s+|clearly\s+)?(?:the\s+|my\s+)?"
    r"(?:(?:correct|right|best|closest|only|final|most\s+\w+)\s+){0,2}"
    r"(?:correct|right|accurate|answer|option|choice|one)s?(?:\s+(?:answer|option|choice|one)s?)?(?![\w'-])(?!\s+(?:of|to|side|hand|angle)\b))"
)
"""`is correct`, `would be the best option`, `only`: what may follow a label without changing what is said."""
_SECOND_LABEL = re.compile(
    r"(?<![A-Za-z0-9_'\u2220\u00b0])(?:([A-Z])(?![A-Za-z0-9_'])|([a-z])(?=[)\]:.](?:\s|$)))"
    # In small letters only where nothing but a label stands so: `B, or c`, `B, a`.
    r"|(?:^|[,;/|&]|\b(?:or|and|else|also|alternatively|(?:could|might|may|would)\s+be|maybe|perhaps|possibly|option|choice|answer|letter|not|choose|pick|select|try|use|take|say"
    r"|meant?|go\s+with|make\s+it)\b)"
    r"[\s(\[\"'*]*([a-z])[)\]\"'*]*(?=\s*(?:$|[,;/|&.!?]|\b(?:or|and|instead|too|then)\b))"
)
_WORD_USE = re.compile(
    r"(?:A\s+(?!(?:is|or|and|nor|are|was|because|instead|too)\b)[A-Z]?[a-z]{2}|I(?:'|\s+[a-z])|[A-Z]-[a-z]{3}|(?<=[0-9]\s)(?:A\.D|B\.C|C\.E)\b)"
)
_SET_ASIDE = re.compile(
    r"\b(?:rul(?:e|es|ed|ing)\s+out|exclud(?:e|es|ed|ing)|eliminat(?:e|es|ed|ing)|dismiss(?:es|ed|ing)?|reject(?:s|ed|ing)?)"
    r"\s+(?:options?\s+)?[A-Z](?:,\s*[A-Z])*(?:,?\s+(?:and|or)\s+[A-Z])?(?![\w'])"
    r"|\b(?:at\s+first|initially|i\s+was\s+going\s+to\s+say)\b[^.;]{0,40}?,?\s+but\b",
    re.IGNORECASE,
)
"""`We can rule out A`, `At first I thought A, but`."""
"""`A cat`: an article; `I think`: a first person."""
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
_STATEMENT_END = re.compile(
    r"[.,;:!?()]+(?:\s+|$)|\s-+\s|\s(?=(?:but|and|because|since|so|as|while|whereas|where|which|if|when)\s)"
)
_COMPARED = re.compile(
    r"\b(?:not|never|no|nor|neither|\w+n't|cannot|than|unlike|without|with|between|rather|instead|except|excluding|opposite|whereas"
    r"|while|(?<!looks\s)(?<!look\s)(?<!resembles\s)like|beyond|outside|near|if|when|against|versus|vs|and|or|would|for|(?<!known\s)(?<!described\s)(?<!identified\s)(?<!classified\s)as|into|over|under|above|below|behind|before|after"
    r"|(?:north|south|east|west|left|right|front|top|capital|part|half|kind|type|form|out)\s+of|(?:clos\w+|next|prior|similar|compared"
    r"|opposed|relative|due|belongs?|refers?|related)\s+to|(?:far|differ\w*|away|apart|distinct|separate\w*)\s+from|(?:if|because|since|as"
    r"|so|while|which|where)\s+(?!(?:it|this|that|they)\b))(?!\w)",
    re.IGNORECASE,
)
"""In front of an option's text: the clause compares with it, denies it or explains by it."""
_ORDER = re.compile(r"\bthe\s+(first|second|third|fourth|fifth)\s+(?:option|choice|answer|one)\W*$", re.IGNORECASE)
_ORDERED = dict(zip(("first", "second", "third", "fourth", "fifth"), string.ascii_uppercase, strict=False))
_RIVAL_NUMBER = re.compile(r"\b(?:or|maybe|perhaps|but|actually|rather|no|wait|not|instead)\b")
_IS = re.compile(
    r"\b(?:is|are|was|were|(?:must|should|would|has\s+to)\s+be|equals?|reads?|shows?|says?|depicts?|displays?"
    r"|counts?|sees?|finds?|ha(?:s|ve))\s+"
)
_SENTENCE_END = re.compile(r"[.!?;]\s+|,?\s+(?:so|thus|hence|therefore)\b,?\s*")
_IS_ANSWER = re.compile(
    r"\s+(?:is|corresponds\s+to|means)\s+(?:the\s+)?(?:right|correct|option|answer|choice|[A-Z](?!\w))|\s+\w+$",
    re.IGNORECASE,
)
_BEFORE_ANSWER = frozenset(
    ("the", "my", "so", "thus", "hence", "therefore", "final", "correct", "right", "best", "and", "is")
)
"""Words between the last sentence and the declaration."""
_IS_ANSWER = re.compile(
    r"\s+(?:is|corresponds\s+to|means)\s+(?:the\s+)?(?:right|correct|option|answer|choice|[A-Z](?!\w))|\s+[a-z]+$",
    re.IGNORECASE,
)
_REASONED = re.compile(r"^(?:because|since|as|given\s+that)\s+", re.IGNORECASE)
_EDGES = " .,;:!?-()[]{}\"'*"
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
_SAID = ("yes", "no", "true", "false")
_NOT = re.compile(r"\s*\bnot\b\s*|(?<=\w)n't\b\s*", re.IGNORECASE)
_CANNOT = re.compile(r"(?:it\s+)?(?:cannot|can\s+not|can't)\s+")
_ONLY = re.compile(r"(?<!not )\b(?:only|just|solely|merely)\s+", re.IGNORECASE)
_LAST_NUMBER = re.compile(
    r"(?P<before>(?:.*[^\w.,$/-])?)(?P<value>[$\u20ac\u00a3]?-?(?:\(?\u221a\(?[0-9]+\)?|[0-9][0-9,]*(?:\.[0-9]+)?\u03c0?(?:\u221a\(?[0-9]+\)?)?)(?:/[0-9]+)?)"
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
_BOUND = re.compile(
    r"(?:(?:it|this|that|there)\s+(?:is|are)\s+|it's\s+)?(?:(?P<more>more|greater|higher|larger|over|above|beyond)|(?P<less>less|fewer|lower|smaller|under"
    r"|below)|at\s+(?P<least>least)|at\s+(?P<most>most))(?:\s+than)?\s+(?P<value>[0-9]+(?:\.[0-9]+)?)\W*"
)

_OPERATORS = ("+", "-", "*", "/", "x", "\u00d7", "\u00f7", "^", "<", ">", "minus", "plus", "times")


class Explanations:
    """Reads what is said behind a label, for the options of one question.

    Example:
        >>> explanations = Explanations("AB", OptionTexts(("Oslo", "Rome"), "AB"))
        >>> [explanations.check("B", said).value for said in ("it has arches", "it is not Rome", "the city is Oslo")]
        ['ok', 'contradiction', 'contradiction']
    """

    def __init__(self, labels: str, texts: OptionTexts) -> None:
        self._labels = labels
        self._texts = texts

    def check(self, label: str, rest: str, *, is_conditional: bool = False) -> Reason:
        """Return OK unless what follows a label denies it, hedges, refuses or names another option.

        Args:
            label: Of an option.
            rest: What follows it, through `plain_text.clean`.
            is_conditional: Whether `if ..` at its start makes the label conditional: it does in the same sentence.
        """
        rest = without_latex(NO_DOUBT.sub("", rest))
        by_text = self._texts.with_text(clean(rest)) or self._texts.with_text(rest) or self._in_digits(rest)
        if by_text:
            return Reason.OK if label in by_text else Reason.CONTRADICTION
        own_text = self._texts.text_of(label)
        is_open = _OPEN_ENDED.search(own_text) is not None
        mentions, begun = self._texts.mentions(rest.lstrip(_EDGES)), self._texts.without(rest, label).lstrip(_EDGES)
        is_own_denied = DENIED.match(begun) and any(label in labels and not start for labels, start, _ in mentions)
        if is_open and refuses(rest) and not self.names_another(rest, label) and not is_own_denied:
            return Reason.OK
        if (label == "I" and _FIRST_PERSON.match(rest)) or (not is_open and (REFUSAL.match(rest) or refuses(rest))):
            return Reason.UNREADABLE
        proclaimed = PROCLAIMED.match(rest) if not self._texts.are_verdicts else None
        said = rest[proclaimed.end() :].lstrip(" .,;:!-") if proclaimed is not None else rest
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
        if self.names_another(without_own, label) or _by_order(said) not in ("", label):
            return Reason.AMBIGUOUS
        is_number = _DIGIT.search(own_text) is not None or self._texts.number_of(label) is not None
        counted = in_digits(said.casefold()) if is_number else said
        if is_number and self._calculates_another(counted, label, says_own=says_own):
            return Reason.CONTRADICTION
        if own_text.isdecimal() and _adds_up(counted, int(own_text)):
            return Reason.OK
        if not says_own and (
            any(label not in other for other in map(self._stated_first, (counted, *_IS.split(counted)[1:])) if other)
            or self._ends_with_another(said, label)
        ):
            return Reason.CONTRADICTION
        return Reason.CONTRADICTION if self._states_another(without_own, label) else Reason.OK

    def leads_to_another(self, text: str, label: str) -> bool:
        """Return whether what stands before a declared label states another option: `It is Paris, so B`."""
        words = without_latex(text).split()
        while words and words[-1].strip(_EDGES).casefold() in ("", *_BEFORE_ANSWER):
            words.pop()
        text = " ".join(words)
        said = self._texts.with_text(clean(text))
        if said:
            return label not in said
        others = {labels for labels, _, _ in self._texts.mentions(text)}
        if any(label in labels for labels in others):
            return False
        for sentence in _SENTENCE_END.split(text):
            sentence = _REASONED.sub("", sentence.strip(_EDGES))
            stated = self.stated(clean(sentence))
            if stated is not None and stated != label:
                return True
            if len(others) > 1 or self._texts.number_of(label) is not None or sentence[:3].casefold() == "if ":
                continue
            for _, start, end in self._texts.mentions(sentence):
                is_last = not _STATEMENT_END.split(sentence[end:])[0].strip() or _IS_ANSWER.match(sentence, end)
                if is_last and _COMPARED.search(_STATEMENT_END.split(sentence[:start])[-1]) is None:
                    return True
        return False

    def stated(self, text: str) -> str | None:
        """Return the label of the one option that a plain sentence states: `It was taken in Rome`, `There are four`."""
        if says_none(text.casefold()) and len(none := self._texts.with_text("0")) == 1:
            return none
        if (
            UNSURE.search(text)
            or "?" in text
            or len([part for part in _STATEMENT_END.split(text) if part.strip()]) != 1
        ):
            return None
        counted = _COUNTED.fullmatch(in_digits(text.casefold()))
        if counted is not None:
            labels = self._texts.with_text(counted["value"])
            return labels if len(labels) == 1 else None
        found = [
            (label, match)
            for label, option in zip(self._labels, self._texts.normalised, strict=False)
            if option and (match := re.search(rf"(?<!\w){spoken(without_article(option))}(?!\w)", text, re.IGNORECASE))
        ]
        if len(found) != 1 or text[found[0][1].end() :].strip() not in ("", "side"):
            return None
        label, match = found[0]
        is_verb = match.group().endswith("s") and _OF_SUBJECT.fullmatch(text, 0, match.start())
        return label if is_verb or _PLACED.search(text, 0, match.start()) else None

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
            clause = _STATEMENT_END.split(before)[-1]
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

    def _calculates_another(self, text: str, label: str, *, says_own: bool) -> bool:
        """Return whether a folded text ends in the number of another option: `5 x 4 = 20`, `for a total of 18`."""
        number = self._texts.number_of(label)
        bound = _BOUND.fullmatch(text)
        if bound is not None and number is not None:
            limit = float(bound["value"])
            is_within = (
                number > limit if bound["more"] else number < limit if bound["less"]
                else number >= limit if bound["least"] else number <= limit
            )  # fmt: skip
            return not is_within
        if self._texts.has_other_unit(text.strip(_EDGES), label):
            return True
        is_whole = _ONE_CALCULATION.fullmatch(text) is not None
        last = next((clause for clause in reversed(_NUMBER_CLAUSE.split(text)) if clause.strip(_EDGES)), "")
        ending = _LAST_NUMBER.fullmatch(last.strip(_EDGES))
        if ending is None or not ending["before"].strip():
            return False
        value, behind = ending["value"], ending["behind"] or ""
        unit = behind.split(" ")[0]
        other = self._texts.with_text(f"{value} {unit}") or self._texts.with_text(value)
        if not other or label in other:
            return False
        before = ending["before"]
        is_result = _EQUALS.search(before) is not None and self._gives(before, label, number)
        if not is_whole and not is_result and (says_own or self._gives(text, label, number)):
            return False
        if before.rstrip().endswith(_OPERATORS):
            return False
        return _RESULT.search(before) is not None or _RELATED.search(before) is None

    def _gives(self, text: str, label: str, number: float | None) -> bool:
        """Return whether a text holds the number of an option, or its text where that is no plain number."""
        if number is None:
            return any(label in labels for labels, _, _ in self._texts.mentions(text))
        return number in map(float, re.findall(r"(?<![\w.])[0-9]+(?:\.[0-9]+)?(?!\.?[\w])", text))

    def _tells_of_all(self, own_text: str, text: str, label: str) -> bool:
        """Return whether an option like `all of the above` is explained by its parts: `A, B and C are right`."""
        if _COLLECTIVE.search(own_text) is None:
            return False
        mentions = self._texts.mentions(text)
        others = {labels[0] for labels, _, _ in mentions if label not in labels}
        for _, start, end in reversed(mentions):
            text = f"{text[:start]} {text[end:]}"
        others |= {match[1] for match in _SECOND_LABEL.finditer(text) if match[1]}
        return len(others - {label}) > 1 and not HEDGE.search(text)

    def _ends_with_another(self, text: str, label: str) -> bool:
        """Return whether a clause ends with the text of another option, as what it says: `It was taken in Paris`."""
        others = [
            spoken(without_article(other.split(",")[0]))
            for a, other in zip(self._labels, self._texts.normalised, strict=False)
            if a != label and other[:1].isalpha() and len(other) > 2 and label not in self._texts.with_part(other)
        ]
        own_part = self._texts.text_of(label).split(",")[0]
        if not others or (own_part and re.search(rf"(?<!\w){re.escape(own_part)}(?!\w)", text, re.IGNORECASE)):
            return False
        ending = re.compile(rf"(?:^|(?<=\W))(?:{'|'.join(others)})(?:{_BEHIND_STATED})?\W*$", re.IGNORECASE)
        clauses = _STATEMENT_END.split(text)
        is_one = len([clause for clause in clauses if clause.strip()]) == 1
        for clause in clauses:
            stated = ending.search(clause)
            if (
                stated is not None
                and (is_one or clause[: stated.start()].strip())
                and _COMPARED.search(clause, 0, stated.start()) is None
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

    def names_another(self, text: str, label: str, *, denied_counts: bool = True) -> bool:
        """Return whether a text names an option other than `label` by its letter; not letters of things and words."""
        text = _SET_ASIDE.sub(" ", text)
        for match in _SECOND_LABEL.finditer(text):
            other = (match[1] or match[2] or match[3]).upper()
            if other == label or other not in self._labels or _WORD_USE.match(text, match.start()):
                continue
            if self._texts.are_letters and other == self._texts.text_of(label).upper():
                continue
            if not self._texts.are_letters and _NAMED_THING.search(text, 0, match.start()):
                continue
            behind = text[match.end() :].lstrip(" )]\"'*.,:")
            if denied_counts or not is_denied(behind):
                return True
        return False


def spoken(text: str) -> str:
    """Return a pattern of an option's text and of its inflections: `decreases`, `decrease`, `decreased`."""
    if len(text) < 4 or not text.isalpha():
        return re.escape(text)
    return re.escape(re.sub(r"(?<=\w{3})s$", "", text)) + "(?:e?[sd])?"


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


def _adds_up(text: str, number: int) -> bool:
    """Return whether a text holds the number, or numbers that sum to it: `there are 3: 1 red and 2 blue`."""
    numbers = [int(digits) for digits in re.findall(r"(?<![\w.,/-])[0-9]{1,9}(?![\w.,/-]*[0-9])", text)]
    is_told = number in numbers or (len(numbers) > 1 and sum(numbers) == number)
    return is_told and _RIVAL_NUMBER.search(text) is None
