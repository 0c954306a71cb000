"""Counting reward: the exact whole number, in digits or in words."""

import re
from collections.abc import Sequence

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import CountingConfig
from rewards.text.denial import says_none
from rewards.text.number_answers import read_answer, without_asides
from rewards.text.number_words import from_chinese, in_digits, says_none_in_chinese
from rewards.text.plain_text import accepted_texts, normalise

_NO_COUNT = re.compile(
    r"\b(?:lost\s+(?:count|track)|gave\s+up|stopped|got\s+(?:up\s+)?to|counted\s+up\s+to|another)\b|[0-9](?:\s+[a-z-]+){0,2}?\s+(?:(?:more|less|fewer|other|others|further|extra|additional|missing|apiece)\b|(?:(?:in|on|at|per|for)\s+)?(?:each|every|either)(?:\s+[a-z]+)?$"
    r"|per\s+(?!cent)|at\s+a\s+time|couples\b|(?:and|plus)\s+(?:an?|another|some|several|many|more|others?)\b(?!\s+half))|[0-9][^0-9]*\b(?:possibly|maybe|perhaps)\b|[0-9]\s+(?:an?\s+[a-z]+$|of\s+(?:the\s+)?(?:several|many)\b)"
)
"""A part, a rate or a break: `4 more`, `4 per table`, `3 dogs and a cat`, `I lost count at 3`."""


class CountingReward:
    """Grades answers to `How many ..?`; a reference that is a JSON list holds several accepted counts.

    Example:
        >>> request = RewardRequest(task="counting", question="How many dogs?", response="", answer="3")
        >>> [grade.value for grade in CountingReward(CountingConfig()).grade(request, ["three dogs", "3 or 4"])]
        [1.0, 0.0]
    """

    def __init__(self, config: CountingConfig) -> None:
        self._config = config

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer in [0, 1]; see RewardFunction."""
        golds = _golds(request)
        return [self._grade_one(answer, golds) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        count, reason = _count(answer[: self._config.max_chars])
        spelled = str(reason) if count is None else str(count)
        return [f"counts: {spelled} against {' or '.join(map(str, _golds(request)))}"]

    def _grade_one(self, answer: str, golds: Sequence[int]) -> Grade:
        if len(answer) > self._config.max_chars:
            return Grade(0.0, Reason.TOO_LONG)
        count, reason = _count(answer)
        if count is None:
            return Grade(0.0, reason)
        if not self._config.graded:
            return Grade(float(count in golds), parsed=str(count))
        return Grade(max(max(0.0, 1.0 - abs(count - gold) / max(gold, 1)) for gold in golds), parsed=str(count))


def _count(text: str) -> tuple[int | None, Reason]:
    """Return the whole number in a text, or None and why."""
    text = text.strip().removeprefix("- ")
    plain = from_chinese(normalise(text))
    if says_none(in_digits(plain)) or says_none_in_chinese(plain):
        return 0, Reason.OK
    if _NO_COUNT.search(without_asides(in_digits(plain))) is not None:
        return None, Reason.NOT_A_NUMBER
    quantity, reason = read_answer(text)
    if quantity is None:
        return None, reason
    if quantity.percent or quantity.ordinal or quantity.value.denominator != 1 or quantity.value < 0:
        return None, Reason.NOT_A_NUMBER
    return int(quantity.value), Reason.OK


def _golds(request: RewardRequest) -> list[int]:
    """Read the reference.

    Raises:
        GoldError: If it, or one of its members, is no whole number.
    """
    counts = [_count(text)[0] for text in accepted_texts(request.answer)]
    golds = [count for count in counts if count is not None]
    if not counts or len(golds) < len(counts):
        raise GoldError(f"counting reference is {request.answer[:80]!r}; give a whole number, or a JSON list of them")
    return golds
