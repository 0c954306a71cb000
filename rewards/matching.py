"""Matching reward: yes/no, multiple choice and exact text; 1 or 0.

Words are compared whole and punctuation inside them counts, so `eyes` is not yes and `-3` is not `3`.
"""

from collections.abc import Sequence

from rewards.base import GoldError, Grade, Reason, RewardRequest
from rewards.choices import Choices
from rewards.parameters import MatchingConfig
from rewards.plain_text import normalise, without_article
from rewards.yes_no import read_yes_no


class MatchingReward:
    """Grades match_yesno, match_mcq and match_text.

    Example:
        >>> request = RewardRequest(task="match_yesno", question="A dog?", response="", answer="yes")
        >>> [grade.value for grade in MatchingReward(MatchingConfig()).grade(request, ["Yes.", "eyes"])]
        [1.0, 0.0]
    """

    def __init__(self, config: MatchingConfig) -> None:
        """Keep the settings."""
        self._max_chars = config.max_chars

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer as 1 or 0; see RewardFunction.

        A request with options is multiple choice; otherwise a yes/no (true/false) reference is yes/no and any other
        is text, unless the task name says which of the three it is.
        """
        kind = _kind(request)
        if kind == "match_mcq":
            choices = Choices(request.options, request.answer)
            return [self._capped(answer) or choices.grade(answer) for answer in answers]
        if kind == "match_yesno":
            gold, _ = read_yes_no(request.answer)
            if gold is None:
                raise GoldError(f"match_yesno reference is {request.answer!r}; use yes, no, true or false")
            return [self._capped(answer) or _grade_yes_no(answer, gold) for answer in answers]
        gold_text = without_article(normalise(request.answer))
        if not gold_text:
            raise GoldError(f"match_text reference is {request.answer!r}, which normalises to nothing")
        return [self._capped(answer) or _grade_text(answer, gold_text) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        """Say how reference and answer were read; see RewardFunction."""
        kind = _kind(request)
        if kind == "match_mcq":
            choices = Choices(request.options, request.answer)
            return [f"multiple choice: {choices.spelled}", f"right is {', '.join(sorted(choices.gold))}"]
        if kind == "match_yesno":
            return [f"yes or no: the first word of {normalise(answer)!r} decides, the opposite must not occur"]
        return [f"text: {without_article(normalise(answer))!r} against {without_article(normalise(request.answer))!r}"]

    def _capped(self, answer: str) -> Grade | None:
        return Grade(0.0, Reason.TOO_LONG) if len(answer) > self._max_chars else None


def _kind(request: RewardRequest) -> str:
    if request.task in ("match_yesno", "match_mcq", "match_text"):
        return request.task
    if request.options:
        return "match_mcq"
    return "match_text" if read_yes_no(request.answer)[0] is None else "match_yesno"


def _grade_yes_no(answer: str, gold: bool) -> Grade:
    label, reason = read_yes_no(answer)
    if label is None:
        return Grade(0.0, reason)
    return Grade(float(label == gold), parsed="yes" if label else "no")


def _grade_text(answer: str, gold_text: str) -> Grade:
    text = without_article(normalise(answer))
    if not text:
        return Grade(0.0, Reason.UNREADABLE)
    return Grade(float(text == gold_text), parsed=text)
