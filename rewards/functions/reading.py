"""Reading reward (OCR): normalised edit distance to the best of the accepted texts, 0 where less than half agrees."""

import re
from collections.abc import Sequence

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import ReadingConfig
from rewards.text.declaration import quoted
from rewards.text.plain_text import accepted_texts, clean, normalise

_LABEL = re.compile(
    r"(?:the\s+)?(?:text|words?|url|link|website|sign|title|name|price|cost|phone(?:\s+number)?|number|date|time|address"
    r"|email|transcription|ocr(?:\s+text)?|output|reading)(?:\s+(?:in|on)\s+the\s+\w+)?\s*:\s*(?=\S)",
    re.IGNORECASE,
)
"""What an answer calls the text that it has read."""
ANLS_THRESHOLD = 0.5
"""Below it a string is another answer, not a misspelling."""


def levenshtein(left: str, right: str) -> int:
    """Return the least number of insertions, deletions and substitutions that turn one string into the other."""
    row = list(range(len(right) + 1))
    for i, char in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]


def anls(text: str, gold: str, threshold: float = ANLS_THRESHOLD) -> float:
    """Return 1 - distance / longer length, or 0 below the threshold.

    Args:
        text: Normalised answer, of capped length.
        gold: Normalised reference.
        threshold: Below it a string is another answer.

    Returns:
        0 or a value in [threshold, 1].

    Source:
        Average normalised Levenshtein similarity, Biten et al., 2019.

    Example:
        >>> anls("brasil", "brazil")
        0.8333333333333334
    """
    longest = max(len(text), len(gold))
    if longest == 0:
        return 1.0
    # A large difference in length settles it without the quadratic table.
    if abs(len(text) - len(gold)) > (1.0 - threshold) * longest:
        return 0.0
    similarity = 1.0 - levenshtein(text, gold) / longest
    return similarity if similarity >= threshold else 0.0


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
    """Return the text of an answer and, of `the sign says X` and `Text: X`, also X: the sign may hold those words."""
    cleaned = clean(answer)
    label = _LABEL.match(cleaned)
    quotation = quoted(cleaned) if label is None else cleaned[label.end() :]
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
