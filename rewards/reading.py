"""Reading reward (OCR): normalised edit distance to the best of the accepted texts, 0 where less than half agrees."""

from collections.abc import Sequence

from rewards.base import GoldError, Grade, Reason, RewardRequest
from rewards.declaration import quoted
from rewards.listing import accepted_texts
from rewards.parameters import ReadingConfig
from rewards.plain_text import clean, normalise
from rewards.text_similarity import anls


class ReadingReward:
    """Grades texts read from an image by ANLS; a reference that is a JSON list holds several accepted texts.

    Source:
        Average normalised Levenshtein similarity, Biten et al., 2019: the best of the references counts.

    Example:
        >>> request = RewardRequest(task="ocr", question="What does it say?", response="", answer='["STOP", "Halt"]')
        >>> [grade.value for grade in ReadingReward(ReadingConfig()).grade(request, ["stop", "stob", "go"])]
        [1.0, 0.75, 0.0]
    """

    def __init__(self, config: ReadingConfig) -> None:
        self._config = config

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer as 0 or in [threshold, 1]; see RewardFunction."""
        golds = _golds(request)
        return [self._grade_one(answer, golds) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        """Say how reference and answer were read; see RewardFunction."""
        return [
            f"{text!r} against {gold!r}: {anls(text, gold, self._config.threshold):.4f}"
            for text in _readings(answer[: self._config.max_chars])
            for gold in _golds(request)
        ]

    def _grade_one(self, answer: str, golds: Sequence[str]) -> Grade:
        if len(answer) > self._config.max_chars:
            return Grade(0.0, Reason.TOO_LONG)
        readings = [text for text in _readings(answer) if text]
        if not readings:
            return Grade(0.0, Reason.UNREADABLE)
        value, text = max(
            ((anls(text, gold, self._config.threshold), text) for text in readings for gold in golds),
            key=lambda read: read[0],
        )
        return Grade(value, parsed=text)


def _readings(answer: str) -> list[str]:
    """Return the text of an answer and, of `the sign says X`, also X: the sign may hold those words itself."""
    quotation = quoted(clean(answer))
    return [normalise(answer)] if quotation is None else [normalise(answer), normalise(quotation)]


def _golds(request: RewardRequest) -> list[str]:
    """Read the reference.

    Raises:
        GoldError: If it, or one of its members, normalises to nothing.
    """
    golds = [normalise(text) for text in accepted_texts(request.answer)]
    if not golds or not all(golds):
        raise GoldError(f"ocr reference is {request.answer[:80]!r}; give a text, or a JSON list of accepted texts")
    return golds
