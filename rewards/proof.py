"""Check of references: as the answer a reference and a plain spelling must score 1, and a changed value must not."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from rewards.changes import Change, changes_of
from rewards.core.base import GoldError, RewardRequest, RewardResult
from rewards.core.config import FUNCTION_NAMES, OpenEndedConfig, RewardConfig
from rewards.core.envelope import write_response
from rewards.core.parts import Part
from rewards.functions.word_table import WordTable
from rewards.mixed import MixedReward
from rewards.text.boxes import parse_boxes
from rewards.text.formulas import DEGREES
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

    kind: Literal["unusable", "not_right", "unearned", "unselective"]
    """unusable: nothing can be graded against it. not_right: it scores less than 1 against itself. unearned: only its
    own LaTeX scores 1, and no plain spelling of it does. unselective: an answer of another value is paid too."""
    detail: str


class ReferenceProof:
    """Checks references with our reward functions of a run; owns a grader process once a math reference was checked.

    Each function of a sum is checked by itself. Functions of the user's own and judges are not asked: what they make of
    a reference says nothing about it, and may cost money. Open-ended references are compared over the table of words: a
    text is as similar to itself in any table.

    Example:
        >>> with ReferenceProof(RewardConfig()) as proof:
        ...     proof.fault(RewardRequest(task="chart", question="", response="", answer="45%")) is None
        True
    """

    def __init__(self, config: RewardConfig) -> None:
        """Keep the settings of the run; weights of words, which its own data may give, are left out."""
        self._config = config
        self._words = WordTable()
        self._rewards: dict[tuple[str, Part], MixedReward] = {}

    def fault(self, request: RewardRequest) -> ReferenceFault | None:
        """Return what is wrong with the reference of a request; None where nothing is.

        Args:
            request: Of a task that has a route; its response is not read.
        """
        parts = self._config.route(request.task, request.source).parts
        faults = (self._fault_of(request, part) for part in parts if part.function in FUNCTION_NAMES)
        return next((fault for fault in faults if fault is not None), None)

    def _fault_of(self, request: RewardRequest, part: Part) -> ReferenceFault | None:
        """Return what is wrong with a reference for one function."""
        function, rewards = part.function, self._reward(request.task, part)
        own, changes = _own_answers(request, function), _changes(request, part)
        results = self._score(rewards, request, [*own, *(change.answer for change in changes)])
        best = max(results[: len(own)], key=_value)
        if best.task_reward is None:
            return ReferenceFault("unusable", best.failure or best.reason.meaning)
        if best.task_reward < 1.0 - TOLERANCE:
            scored = f"{request.answer[:SHOWN_CHARS]!r} scores {best.task_reward:.6g}"
            return ReferenceFault("not_right", f"{scored} ({best.reason}: {best.reason.meaning})")
        for change, result in zip(changes, results[len(own) :], strict=True):
            if _value(result) > change.most:
                return ReferenceFault(
                    "unselective",
                    f"for {request.answer[:SHOWN_CHARS]!r} the answer {change.answer[:SHOWN_CHARS]!r} scores "
                    f"{result.task_reward:.6g}",
                )
        if request.options or function in ("open_ended", "grounding", "pointing", "reading"):
            return None
        tried = [spelling for answer in own for spelling in plain_spellings(answer)]
        if not tried or any(spelling == request.answer for spelling in tried):
            return None
        if any(_value(self._score(rewards, request, [spelling])[0]) >= 1.0 - TOLERANCE for spelling in tried):
            return None
        told = " or ".join(repr(spelling[:SHOWN_CHARS]) for spelling in dict.fromkeys(tried))
        return ReferenceFault("unearned", f"{request.answer[:SHOWN_CHARS]!r} is not earned by {told}")

    def _score(self, rewards: MixedReward, request: RewardRequest, answers: Sequence[str]) -> list[RewardResult]:
        return rewards.score(
            [replace(request, response=write_response(answer, self._config.format)) for answer in answers]
        )

    def _reward(self, task: str, part: Part) -> MixedReward:
        """Return what scores rows of a task by one function alone."""
        part = replace(part, weight=1.0, above=())
        if (task, part) not in self._rewards:
            section = part.parameters
            if isinstance(section, OpenEndedConfig):
                section = replace(section, idf_path="")
            alone: dict[str, Any] = {part.function: section}
            config = replace(self._config, routes={task: part.function}, rules=(), functions={}, judges={}, **alone)
            self._rewards[task, part] = MixedReward(config, self._words.encode, self._words)
        return self._rewards[task, part]

    def close(self) -> None:
        """End the grader process, if one was started."""
        for rewards in self._rewards.values():
            rewards.close()

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
    reference = DEGREES.sub("\u00b0", reference.replace("{}", ""))
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


def _changes(request: RewardRequest, part: Part) -> list[Change]:
    """Return the changed values of a reference; none of one that cannot be read, which its own score tells."""
    try:
        return changes_of(request, part)
    except GoldError:
        return []


def _value(result: RewardResult) -> float:
    return -1.0 if result.task_reward is None else result.task_reward
