"""Matching reward: yes/no, multiple choice and exact text; 1 or 0.

Words are compared whole and punctuation inside them counts, so `eyes` is not yes and `-3` is not `3`.
"""

import json
import re
from collections.abc import Sequence

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import MatchingConfig
from rewards.text.choices import Choices
from rewards.text.declaration import declared, quoted
from rewards.text.plain_text import clean, compact, normalise, unify, without_article
from rewards.text.yes_no import LABELS, read_yes_no

_NAMED = re.compile(r"[-*\u2022]\s+(?=\S)|(?:the\s+)?(?:text|word|sign|label|name)\s*:\s*(?=\S)", re.IGNORECASE)
"""A list mark, or what an answer calls the text that it gives."""
_TOO_LONG = Grade(0.0, Reason.TOO_LONG)
_GRADES = {
    (label, gold): Grade(float(label is gold), parsed="yes" if label else "no")
    for label in (True, False)
    for gold in (True, False)
}


class MatchingReward:
    """Grades match_yesno, match_mcq and match_text.

    Example:
        >>> request = RewardRequest(task="match_yesno", question="A dog?", response="", answer="yes")
        >>> [grade.value for grade in MatchingReward(MatchingConfig()).grade(request, ["Yes.", "eyes"])]
        [1.0, 0.0]
    """

    def __init__(self, config: MatchingConfig) -> None:
        self._max_chars = config.max_chars
        self._vqa_accuracy = config.vqa_accuracy

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer as 1 or 0; see RewardFunction.

        A request with options is multiple choice; otherwise a yes/no (true/false) reference is yes/no and any other
        is text, unless the task name says which of the three it is. A text reference that is a JSON list holds several
        accepted answers, of which the best counts.
        """
        kind = kind_of(request)
        if kind == "match_mcq":
            choices = Choices(request.options, request.answer)
            return [
                choices.grade(answer)
                if len(answer) <= self._max_chars or answer.strip() in request.options
                else _TOO_LONG
                for answer in answers
            ]
        if kind == "match_yesno":
            gold, _ = read_yes_no(request.answer)
            if gold is None:
                raise GoldError(f"match_yesno reference is {request.answer!r}; use yes, no, true or false")
            return [_grade_yes_no(answer, gold) if len(answer) <= self._max_chars else _TOO_LONG for answer in answers]
        accepted = _accepted_texts(request.answer)
        return [
            self._grade_text(answer, accepted) if len(answer) <= self._max_chars else _TOO_LONG for answer in answers
        ]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        kind = kind_of(request)
        if kind == "match_mcq":
            choices = Choices(request.options, request.answer)
            return [f"multiple choice: {choices.spelled}", f"right is {', '.join(sorted(choices.gold))}"]
        if kind == "match_yesno":
            return [f"yes or no: the first word of {normalise(answer)!r} decides, the opposite must not occur"]
        accepted = dict.fromkeys(_accepted_texts(request.answer))
        return [f"text: {_key(answer)!r} against {' or '.join(map(repr, accepted))}"]

    def _grade_text(self, answer: str, accepted: Sequence[str]) -> Grade:
        text = _key(answer)
        if not text:
            return Grade(0.0, Reason.UNREADABLE)
        if text not in accepted:
            said = _NAMED.sub("", clean(answer))
            if (declaration := declared(" ".join(unify(answer).split()))) is not None and declaration.is_explicit:
                text = _key(declaration.value)
            elif (quotation := quoted(said)) is not None:
                text = _key(re.sub(r"^(?:called|named)\s+", "", quotation))
            elif said != clean(answer):
                text = _key(said)
        num_equal = accepted.count(text)
        value = vqa_accuracy(num_equal, len(accepted)) if self._vqa_accuracy else float(num_equal > 0)
        return Grade(value, parsed=text)


def kind_of(request: RewardRequest) -> str:
    """Return how a request is compared: match_yesno, match_mcq or match_text."""
    if request.task in ("match_yesno", "match_mcq", "match_text"):
        return request.task
    if request.options:
        return "match_mcq"
    return "match_yesno" if normalise(request.answer) in LABELS else "match_text"


def _grade_yes_no(answer: str, gold: bool) -> Grade:
    label, reason = read_yes_no(answer)
    if label is None:
        return Grade(0.0, reason)
    return _GRADES[label, gold]


def vqa_accuracy(num_equal: int, num_answers: int) -> float:
    """Return VQA's accuracy: min(1, number of equal answers / 3), averaged over all ways of leaving one answer out.

    Args:
        num_equal: How many accepted answers the text equals.
        num_answers: How many there are, repeated ones included; ten in VQA. A single one is compared as it stands.

    Source:
        VQA (Antol et al., 2015) and its evaluation code.

    Example:
        >>> vqa_accuracy(1, 10), vqa_accuracy(3, 10), vqa_accuracy(4, 10)
        (0.3, 0.9, 1.0)
    """
    if num_answers == 1:
        return float(num_equal)
    kept, lost = min(3, num_equal), min(3, max(num_equal - 1, 0))
    return ((num_answers - num_equal) * kept + num_equal * lost) / (3 * num_answers)


def _key(text: str) -> str:
    """Return the form in which two texts are compared."""
    return compact(without_article(normalise(text)))


def _accepted_texts(reference: str) -> list[str]:
    """Return the texts that a reference accepts, each as it is compared: one, or those of a JSON list.

    Raises:
        GoldError: If one of them is no text, or normalises to nothing.
    """
    values: object = reference
    if reference.lstrip().startswith("["):
        try:
            values = json.loads(reference)
        except (ValueError, RecursionError):
            values = reference
    texts = values if isinstance(values, list) else [reference]
    if not texts or not all(isinstance(text, (str, int, float)) for text in texts):
        raise GoldError(f"match_text reference is {reference!r}; give a text or a JSON list of accepted texts")
    keys = [_key(str(text)) for text in texts]
    if not all(keys):
        raise GoldError(f"match_text reference is {reference!r}, which normalises to nothing")
    return keys
