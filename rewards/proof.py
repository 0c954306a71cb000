"""Whether a reference can be earned: given as the answer it must score 1, and so must a plain spelling of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

from rewards.base import RewardRequest
from rewards.config import RewardConfig, RewardRule
from rewards.mixed import MixedReward
from rewards.plain_text import clean, compact
from rewards.units import split_unit
from rewards.word_table import WordTable

TOLERANCE = 1e-6
"""BMAS of a text with itself is a sum of 32-bit products."""
SHOWN_CHARS = 80
_ROOT = re.compile(r"\u221a(?:\(([^()]*)\)|([0-9.]+|[A-Za-z]))")
_LATEX = re.compile(r"[\\$]|[_^]\{")
_WRITTEN_OUT = (
    ("\u03c0", "pi "), ("\u00b0", " degrees"), ("\u00d7", "*"), ("\u00f7", "/"), ("\u2264", "<="), ("\u2265", ">="),
    ("\u03b8", "theta"), ("\u03b1", "alpha"), ("\u03b2", "beta"), ("\u221e", "infinity"), ("\u20ac", "EUR "),
    ("\u00a3", "GBP "),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReferenceFault:
    """Why a reference is no use to its reward."""

    kind: Literal["unusable", "not_right", "unearned"]
    """unusable: nothing can be graded against it. not_right: it scores less than 1 against itself. unearned: only its
    own characters score 1, and nobody writes those by hand."""
    detail: str


class ReferenceProof:
    """The rewards of a run, asked about references; owns a grader process once a math reference was asked about.

    Open-ended references are compared over the table of words: a text is as similar to itself in any table.

    Example:
        >>> with ReferenceProof(RewardConfig()) as proof:
        ...     proof.fault(RewardRequest(task="chart", question="", response="", answer="45%")) is None
        True
    """

    def __init__(self, config: RewardConfig) -> None:
        """Build the rewards that the run will use; weights of words, which its own data may give, are left out."""
        words = WordTable()
        self._rewards = MixedReward(_without_word_weights(config), words.encode, words)

    def fault(self, request: RewardRequest) -> ReferenceFault | None:
        """Return what is wrong with the reference of a request; None where nothing is.

        Args:
            request: Of a task that has a route; its response is not read.
        """
        own = replace(request, response=_answering(request.answer))
        result = self._rewards.score([own])[0]
        if result.task_reward is None:
            return ReferenceFault("unusable", result.failure or result.reason.meaning)
        if result.task_reward < 1.0 - TOLERANCE:
            scored = f"{request.answer[:SHOWN_CHARS]!r} scores {result.task_reward:.6g}"
            return ReferenceFault("not_right", f"{scored} ({result.reason}: {result.reason.meaning})")
        tried = list(plain_spellings(request.answer)) if not request.options else [request.answer]
        for spelling in tried:
            if spelling == request.answer:
                return None
            value = self._rewards.score([replace(request, response=_answering(spelling))])[0].task_reward
            if value is not None and value >= 1.0 - TOLERANCE:
                return None
        told = " and ".join(repr(spelling[:SHOWN_CHARS]) for spelling in tried)
        return ReferenceFault("unearned", f"{request.answer[:SHOWN_CHARS]!r} is not earned by {told}")

    def close(self) -> None:
        """End the grader process, if one was started."""
        self._rewards.close()

    def __enter__(self) -> Self:
        """Return the proof itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def plain_spellings(reference: str) -> Iterator[str]:
    r"""Yield what a person would type for a reference: itself, unless it holds LaTeX or signs that keyboards lack.

    Example:
        >>> list(plain_spellings("12 cm")), list(plain_spellings(r"$\frac{\sqrt{3}}{2}$"))
        (['12 cm'], ['sqrt(3)/2'])
        >>> list(plain_spellings("36cm\u00b2")), list(plain_spellings("45\u00b0"))
        (['36cm^2', '36'], ['45 degrees', '45'])
    """
    if _LATEX.search(reference) is None and all(char.isascii() or char.isalpha() for char in reference):
        yield reference
        return
    text = compact(clean(reference))
    while (root := _ROOT.search(text)) is not None:
        times = "*" if text[: root.start()][-1:].isdigit() else ""
        text = f"{text[: root.start()]}{times}sqrt({root[1] or root[2]}){text[root.end() :]}"
    for sign, written in _WRITTEN_OUT:
        text = text.replace(sign, written)
    yield text.strip()
    value, unit = split_unit(text.strip())
    if unit is not None:
        yield value.strip()


def _answering(answer: str) -> str:
    return f"<think>.</think><answer>{answer}</answer>"


def _without_word_weights(config: RewardConfig) -> RewardConfig:
    return replace(
        config,
        open_ended=replace(config.open_ended, idf_path=""),
        rules=tuple(_rule_without_word_weights(rule) for rule in config.rules),
    )


def _rule_without_word_weights(rule: RewardRule) -> RewardRule:
    return replace(rule, parameters={key: value for key, value in rule.parameters.items() if key != "idf_path"})
