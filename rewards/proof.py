"""Check of references: given as the answer a reference must score 1, and so must a plain spelling of it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

from rewards.core.base import RewardRequest, RewardResult
from rewards.core.config import FUNCTION_NAMES, RewardConfig, RewardRule
from rewards.core.envelope import write_response
from rewards.functions.word_table import WordTable
from rewards.mixed import MixedReward
from rewards.text.boxes import parse_boxes
from rewards.text.plain_text import clean, compact, without_latex
from rewards.text.units import split_unit

TOLERANCE = 1e-6
"""BMAS of a text with itself is a sum of 32-bit products."""
SHOWN_CHARS = 80
_LATEX = re.compile(r"\\[A-Za-z]|[_^]\{|\u221a\{")
_OTHER_COMMAND = re.compile(
    r"\\(?!(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln|lg|exp|max|min|gcd|lcm|times|cdot|div)[A-Za-z]"
)
"""What nobody types without LaTeX: `\vec{a}`, a matrix."""
_MIXED = re.compile(r"(?<=[0-9])(?=\\[dt]?frac)")
"""The place between a whole number and the fraction after it."""
_ROOT = re.compile(r"\u221a(?:\(([^()]*)\)|([0-9.]+|[A-Za-z]))")
_WRITTEN_OUT = (
    ("\u03c0", "pi "), ("\u00b0", " degrees"), ("\u00d7", "*"), ("\u00f7", "/"), ("\u2264", "<="), ("\u2265", ">="),
    ("\u03b8", "theta"), ("\u03b1", "alpha"), ("\u03b2", "beta"), ("\u221e", "infinity"), ("\\", ""),
)  # fmt: skip
_LISTS_ANSWERS = ("matching", "counting", "reading")
"""Functions to which a JSON list is several accepted answers."""


@dataclass(frozen=True, slots=True)
class ReferenceFault:
    """Why a reference cannot be used by its reward."""

    kind: Literal["unusable", "not_right", "unearned"]
    """unusable: nothing can be graded against it. not_right: it scores less than 1 against itself. unearned: only its
    own LaTeX scores 1, and no plain spelling of it does."""
    detail: str


class ReferenceProof:
    """Checks references with the rewards of a run; owns a grader process once a math reference was checked.

    Open-ended references are compared over the table of words: a text is as similar to itself in any table.

    Example:
        >>> with ReferenceProof(RewardConfig()) as proof:
        ...     proof.fault(RewardRequest(task="chart", question="", response="", answer="45%")) is None
        True
    """

    def __init__(self, config: RewardConfig) -> None:
        """Build the rewards that the run will use; weights of words, which its own data may give, are left out."""
        words = WordTable()
        self._config = config
        # A judge knows no reference by itself, and asking it about each row costs what it costs.
        self._rewards = MixedReward(_without_word_weights(config), words.encode, words, asks_judges=False)

    def fault(self, request: RewardRequest) -> ReferenceFault | None:
        """Return what is wrong with the reference of a request; None where nothing is.

        Args:
            request: Of a task that has a route; its response is not read.
        """
        parts = self._config.route(request.task, request.source).parts
        faults = (self._fault_of(request, part.function) for part in parts if part.weight > 0)
        return next((fault for fault in faults if fault is not None), None)

    def reads_images(self, task: str, source: str) -> bool:
        """Return whether requests of such rows must hold their images; see MixedReward.reads_images."""
        return self._rewards.reads_images(task, source)

    def _fault_of(self, request: RewardRequest, function: str) -> ReferenceFault | None:
        """Return what is wrong with a reference for one function; a value of the user's own says nothing about it."""
        results = [self._score(request, answer) for answer in _own_answers(request, function)]
        best = max(results, key=lambda result: _value(result, function))
        value = _value(best, function)
        if value < 0:
            return ReferenceFault("unusable", best.failure or best.reason.meaning)
        if function not in FUNCTION_NAMES:
            return None
        if value < 1.0 - TOLERANCE:
            scored = f"{request.answer[:SHOWN_CHARS]!r} scores {value:.6g}"
            return ReferenceFault("not_right", f"{scored} ({best.reason}: {best.reason.meaning})")
        if request.options or function in ("open_ended", "grounding", "pointing", "reading"):
            return None
        tried = [spelling for answer in _own_answers(request, function) for spelling in plain_spellings(answer)]
        if not tried or any(spelling == request.answer for spelling in tried):
            return None
        if any(_value(self._score(request, spelling), function) >= 1.0 - TOLERANCE for spelling in tried):
            return None
        told = " or ".join(repr(spelling[:SHOWN_CHARS]) for spelling in dict.fromkeys(tried))
        return ReferenceFault("unearned", f"{request.answer[:SHOWN_CHARS]!r} is not earned by {told}")

    def _score(self, request: RewardRequest, answer: str) -> RewardResult:
        return self._rewards.score([replace(request, response=write_response(answer, self._config.format))])[0]

    def close(self) -> None:
        """End the grader process, if one was started."""
        self._rewards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def plain_spellings(reference: str) -> Iterator[str]:
    r"""Yield what one would type for a reference: itself, unless it holds LaTeX; nothing where that has no plain form.

    Example:
        >>> list(plain_spellings("12 \u20ac")), next(plain_spellings(r"$\frac{\sqrt{3}}{2}$"))
        (['12 \u20ac'], '\u221a3/2')
        >>> list(plain_spellings(r"36\text{ cm}^{2}")), next(plain_spellings(r"3\frac{1}{2}"))
        (['36 cm^2', '36cm^2', '36'], '3 1/2')
    """
    if _LATEX.search(reference) is None:
        yield reference
        return
    spaced = without_latex(clean(_MIXED.sub(" ", reference)))
    if _OTHER_COMMAND.search(spaced) is not None:
        return
    for text in dict.fromkeys((spaced, compact(clean(reference)))):
        typed = text
        while (root := _ROOT.search(typed)) is not None:
            times = "*" if typed[: root.start()][-1:].isdigit() else ""
            typed = f"{typed[: root.start()]}{times}sqrt({root[1] or root[2]}){typed[root.end() :]}"
        for sign, written in _WRITTEN_OUT:
            typed = typed.replace(sign, written)
        yield from dict.fromkeys((text, typed.strip()))
    value, unit = split_unit(typed.strip())
    if unit is not None:
        yield value.strip()


def _own_answers(request: RewardRequest, function: str) -> list[str]:
    """Return the answers that a reference is: itself, each text of a list of accepted ones, the middle of each box."""
    if function == "pointing":
        boxes = [box for box, _ in parse_boxes(request.answer) or [] if box is not None]
        points = ", ".join(f"[{(x1 + x2) / 2}, {(y1 + y2) / 2}]" for x1, y1, x2, y2 in boxes)
        return [f"[{points}]"]
    if function not in _LISTS_ANSWERS or request.options or not request.answer.lstrip().startswith("["):
        return [request.answer]
    try:
        values = json.loads(request.answer)
    except (ValueError, RecursionError):
        return [request.answer]
    return [str(value) for value in values] or [request.answer]


def _value(result: RewardResult, function: str) -> float:
    return result.breakdown.get(function, -1.0)


def _without_word_weights(config: RewardConfig) -> RewardConfig:
    return replace(
        config,
        open_ended=replace(config.open_ended, idf_path=""),
        rules=tuple(_rule_without_word_weights(rule) for rule in config.rules),
    )


def _rule_without_word_weights(rule: RewardRule) -> RewardRule:
    return replace(rule, parameters={key: value for key, value in rule.parameters.items() if key != "idf_path"})
