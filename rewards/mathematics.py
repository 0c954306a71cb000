"""Math reward: symbolic equality by math-verify, in a process of its own that is killed when it takes too long.

Only the answer block is read, as one boxed expression on both sides; the last-number-wins reading, which pays hedges,
never gets a chance.
"""

import re
from collections.abc import Sequence

from rewards.base import GoldError, Grade, Reason, RewardRequest
from rewards.grader_process import GraderProcess, GraderTimeoutError
from rewards.parameters import MathConfig
from rewards.plain_text import unify

_LEAD = re.compile(r"(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)
_DOLLARS = (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$"), ("**", "**"))
_TOWER = re.compile(
    r"\^\s*(?:\{[^{}^]{0,64}\^|[-+(]*(?:[0-9]{1,8}|[A-Za-z])\s*\^|\{?\s*[-+]?[0-9]{5})"
    r"|[!)}]\s*!|[0-9]{4}\s*!|binom\s*\{\s*[0-9]{4}"
)
"""Powers of powers, exponents and factorials that would fill memory before any clock rings."""
_HEDGE = re.compile(r"\bor\b|\\lor\b|\\vee\b|[0-9]\s+[0-9]", re.IGNORECASE)
_SQRT_CALL = re.compile(r"(?:\bsqrt|\u221a)\s*(?:\(([^()]{1,32})\)|([0-9]{1,12}))")
_PERCENT = re.compile(r"([0-9.]+)\s*\\?%")
_EXPONENT = re.compile(r"([0-9.])[eE]([-+]?[0-9]{1,3})(?![0-9A-Za-z])")
_KNOWN_GOLDS = 4096


class MathReward:
    r"""Grades formulas and numbers; starts its grader process with the first request.

    Example:
        >>> request = RewardRequest(task="math", question="Half?", response="", answer="0.5")
        >>> reward = MathReward(MathConfig())
        >>> [grade.value for grade in reward.grade(request, [r"\frac{1}{2}", "1/3"])]
        [1.0, 0.0]
        >>> reward.close()
    """

    def __init__(self, config: MathConfig) -> None:
        """Keep the settings; nothing is started yet."""
        self._config = config
        self._process = GraderProcess(timeout_s=config.timeout_s)
        self._readable_golds: dict[str, bool] = {}

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer as 1 or 0; see RewardFunction."""
        gold, reason = _expression(request.answer, self._config.max_chars)
        if gold is None or not self._is_readable(gold):
            raise GoldError(f"math reference {request.answer[:80]!r} is no formula that math-verify reads ({reason})")
        return [self._grade_one(answer, gold) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        """Say how reference and answer were read; see RewardFunction."""
        read = [_expression(text, self._config.max_chars)[0] for text in (request.answer, answer)]
        return [f"compared as LaTeX: {read[1]!r} with {read[0]!r}"]

    def close(self) -> None:
        """End the grader process."""
        self._process.close()

    def _is_readable(self, gold: str) -> bool:
        if gold not in self._readable_golds:
            if len(self._readable_golds) >= _KNOWN_GOLDS:
                self._readable_golds.clear()
            form = _percent_forms(gold, gold)[0][0]
            try:
                self._readable_golds[gold] = self._process.ask(form, form)["readable"]
            except GraderTimeoutError as error:
                raise GoldError(f"math reference {gold!r}: {error}") from error
        return self._readable_golds[gold]

    def _grade_one(self, answer: str, gold: str) -> Grade:
        expression, reason = _expression(answer, self._config.max_chars)
        if expression is None:
            return Grade(0.0, reason)
        if _HEDGE.search(expression) and not _HEDGE.search(gold):
            return Grade(0.0, Reason.AMBIGUOUS, parsed=expression)
        try:
            verdicts = [self._process.ask(*forms) for forms in _percent_forms(gold, expression)]
        except GraderTimeoutError:
            return Grade(0.0, Reason.TIMEOUT, parsed=expression)
        reason = Reason.OK if verdicts[0]["readable"] else Reason.UNREADABLE
        return Grade(float(any(verdict["equal"] for verdict in verdicts)), reason, parsed=expression)


def _expression(text: str, max_chars: int) -> tuple[str | None, Reason]:
    """Give the one expression of an answer in LaTeX, without box, dollars or lead phrase; or None and why."""
    if len(text) > max_chars:
        return None, Reason.TOO_LONG
    text = unify(text).strip()
    if text.count("\\boxed") > 1:
        return None, Reason.AMBIGUOUS
    for _ in range(3):
        before = text
        text = _without_box(_LEAD.sub("", text, count=1).strip().rstrip(" .,;:"))
        for opening, closing in _DOLLARS:
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = text[len(opening) : -len(closing)].strip()
        if text == before:
            break
    if not text or "**" in text or _TOWER.search(text):
        return None, Reason.UNREADABLE
    text = text.replace("\u00b0", "^\\circ").replace("\u03c0", "\\pi ").replace("\u00d7", "\\times ")
    text = _EXPONENT.sub(r"\1\\times 10^{\2}", text)
    return _SQRT_CALL.sub(lambda match: f"\\sqrt{{{match.group(1) or match.group(2)}}}", text), Reason.OK


def _without_box(text: str) -> str:
    r"""Give the content of `\boxed{..}` if the text is exactly one box, else the text."""
    if not (text.startswith("\\boxed{") and text.endswith("}")):
        return text
    return text[len("\\boxed{") : -1].strip()


def _percent_forms(gold: str, expression: str) -> list[tuple[str, str]]:
    """Give the pairs to compare: as written, and as a fraction where only one side has a percent sign."""
    forms = [(_PERCENT.sub(r"\1", gold), _PERCENT.sub(r"\1", expression))]
    if ("%" in gold) != ("%" in expression):
        forms.append((_PERCENT.sub(r"\\frac{\1}{100}", gold), _PERCENT.sub(r"\\frac{\1}{100}", expression)))
    return forms
