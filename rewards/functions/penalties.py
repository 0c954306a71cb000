"""Penalties of a sum: on length, repetition and mixed languages. A value is how much is wrong, from 0 to 1."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from rewards.core.base import CompletionFunction, Grade, RewardRequest
from rewards.core.parts import LanguageConfig, LengthConfig, RepetitionConfig

_TAG = re.compile(r"</?[a-z_]{1,20}>")
_WORD = re.compile(r"\w+|[^\w\s]")
MAX_CHARS = 100_000
"""Read of a completion by repetition and language; more is no text that anybody reads."""
MAX_SHARE_NAMES = 3


class LengthPenalty(CompletionFunction):
    """Takes away for characters beyond what is free; see LengthConfig.

    Example:
        >>> request = RewardRequest(task="chart", question="", response="x" * 10, answer="4")
        >>> [grade.value for grade in LengthPenalty(LengthConfig(free_chars=5, full_chars=15)).grade_completions(
        ...     [request], [None])]
        [0.5]
    """

    def __init__(self, config: LengthConfig) -> None:
        self._config = config

    def grade_completions(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> list[Grade]:
        """Grade each completion by its length in characters, tags included; see CompletionFunction."""
        return [self._grade(len(request.response)) for request in requests]

    def explain_completion(self, request: RewardRequest, answer: str | None) -> list[str]:
        return [f"{len(request.response)} characters, {self._config.free_chars} are free"]

    def _grade(self, num_chars: int) -> Grade:
        over = (num_chars - self._config.free_chars) / (self._config.full_chars - self._config.free_chars)
        value = min(1.0, max(0.0, over))
        return Grade(value, explanation=f"{num_chars} characters" if value else None)


class RepetitionPenalty(CompletionFunction):
    """Takes away for runs of words that occurred before; see RepetitionConfig.

    Example:
        >>> request = RewardRequest(task="chart", question="", response="a b a b a b", answer="4")
        >>> penalty = RepetitionPenalty(RepetitionConfig(num_words=2, free_frac=0.2))
        >>> round(penalty.grade_completions([request], [None])[0].value, 3)  # 3 of 5 runs: (0.6 - 0.2) / 0.8
        0.5
    """

    def __init__(self, config: RepetitionConfig) -> None:
        self._config = config

    def grade_completions(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> list[Grade]:
        """Grade each completion by the share of its runs of words that repeat earlier ones; see CompletionFunction."""
        return [self._grade(self._share(request.response)) for request in requests]

    def explain_completion(self, request: RewardRequest, answer: str | None) -> list[str]:
        share = self._share(request.response)
        return [f"{share:.1%} of its runs of {self._config.num_words} words repeat earlier ones"]

    def _share(self, response: str) -> float:
        words = _WORD.findall(response[:MAX_CHARS].casefold())
        total = len(words) - self._config.num_words + 1
        if total < 1:
            return 0.0
        runs = {tuple(words[start : start + self._config.num_words]) for start in range(total)}
        return 1.0 - len(runs) / total

    def _grade(self, share: float) -> Grade:
        value = max(0.0, (share - self._config.free_frac) / (1.0 - self._config.free_frac))
        return Grade(value, explanation=f"{share:.0%} repeated" if value else None)


class LanguagePenalty(CompletionFunction):
    """Takes away for letters of scripts that neither question nor reference uses; see LanguageConfig.

    Example:
        >>> request = RewardRequest(task="chart", question="How many?", response="<think>four 四</think>", answer="4")
        >>> LanguagePenalty(LanguageConfig()).grade_completions([request], [None])[0].value  # 1 letter of 5
        0.2
    """

    def __init__(self, config: LanguageConfig) -> None:
        self._allowed = frozenset(name.casefold() for name in config.scripts)

    def grade_completions(self, requests: Sequence[RewardRequest], answers: Sequence[str | None]) -> list[Grade]:
        """Grade each completion by its share of letters of other scripts; see CompletionFunction."""
        first = requests[0]
        told = [text for _, text in first.history]
        allowed = self._allowed | _scripts("".join((first.question, first.answer, *first.options, *told))).keys()
        return [self._grade(request.response, allowed) for request in requests]

    def explain_completion(self, request: RewardRequest, answer: str | None) -> list[str]:
        counts = sorted(_scripts(request.response).items(), key=lambda found: -found[1])
        return [", ".join(f"{count} letters {name}" for name, count in counts) or "no letter"]

    def _grade(self, response: str, allowed: frozenset[str]) -> Grade:
        counts = _scripts(response)
        others = {name: count for name, count in counts.items() if name not in allowed}
        if not others:
            return Grade(0.0)
        names = sorted(others, key=lambda name: -others[name])[:MAX_SHARE_NAMES]
        return Grade(sum(others.values()) / sum(counts.values()), explanation=f"letters of {', '.join(names)}")


def _scripts(text: str) -> dict[str, int]:
    """Count the letters of each script; tags, signs and Greek letters, which are symbols in formulas, are left out."""
    counts: dict[str, int] = {}
    for letter in _TAG.sub(" ", text[:MAX_CHARS]):
        if letter.isalpha() and (script := _script(letter)):
            counts[script] = counts.get(script, 0) + 1
    return counts


@cache
def _script(letter: str) -> str:
    """Return the script of a letter, the first word of its name in Unicode; empty for a symbol."""
    name = unicodedata.name(letter, "").casefold()
    is_letter = any(word in name for word in (" letter ", " ideograph-", " syllable "))
    script = name.partition(" ")[0]
    return script if is_letter and script not in ("greek", "modifier", "mathematical") else ""
