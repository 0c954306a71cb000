"""Math reward: symbolic equality by math-verify, in a process of its own that is killed when it takes too long.

Only the answer block is read, as one boxed expression on both sides; the last-number-wins reading, which pays hedges,
never gets a chance.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypedDict, cast

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import MathConfig
from rewards.functions.grader_process import GraderCrashError, GraderProcess, GraderTimeoutError
from rewards.text.formula_words import in_form_of
from rewards.text.formulas import HEDGE, TUPLE, Formula, read_formula
from rewards.text.number_words import number_word

_SUBSCRIPTED = re.compile(r"[0-9}]\s*_")
"""A number with an index, as of its base: equal to itself alone, as the grader drops the index."""
_SET = re.compile(r"\\\{[^{}]*,[^{}]*\\\}")
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]+")
_CLOCK_RATIO = re.compile(r"([0-9]{1,6})\s*:\s*([0-9]{1,6})")
_PERCENT = re.compile(r"([0-9.]+|\})\s*\\?%")
_KNOWN_GOLDS = 4096
WALL_LIMIT_S = 120.0
"""Beside its CPU time: a worker that was given so little of a processor has failed, and its answer has not."""


class Verdict(TypedDict):
    """The worker's answer."""

    readable: bool
    """Whether the reply parsed."""
    equal: bool


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
        self._config = config
        self._process = GraderProcess(Path(__file__).with_name("math_worker.py"), name="the math grader")
        self._readable_golds: dict[str, bool] = {}

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer as 1 or 0; see RewardFunction."""
        gold, reason = read_formula(request.answer, self._config.max_chars)
        if gold is None or not self._is_readable(gold):
            raise GoldError(f"math reference {request.answer[:80]!r} is no formula that math-verify reads ({reason})")
        if number_word(request.answer.strip().casefold()) is not None:
            raise GoldError(f"math reference {request.answer[:80]!r} is a number in words; write it in digits")
        return [self._grade_one(answer, gold) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        read = [read_formula(text, self._config.max_chars)[0] for text in (request.answer, answer)]
        spelled = ["nothing" if formula is None else repr(formula.latex) for formula in read]
        units = [formula.unit for formula in read if formula is not None and formula.unit is not None]
        return [f"compared as LaTeX: {spelled[1]} with {spelled[0]}", *(f"unit: {unit}" for unit in units)]

    def close(self) -> None:
        """End the grader process."""
        self._process.close()

    def _ask(self, gold: str, reply: str) -> Verdict:
        """Compare two LaTeX expressions.

        Raises:
            GraderTimeoutError: If the worker used up its CPU time; it is gone then.
            GraderCrashError: If the worker raised, died, or got hardly any CPU time in WALL_LIMIT_S.
        """
        limit_s = self._config.timeout_s
        try:
            answer = self._process.ask(
                {"gold": gold, "reply": reply, "cpu_limit_s": limit_s}, WALL_LIMIT_S + 4 * limit_s
            )
        except GraderTimeoutError as error:
            raise GraderCrashError(f"{error}, on a busy machine") from error
        except GraderCrashError as error:
            if error.exit_code == -signal.SIGPROF:
                raise GraderTimeoutError(f"the math grader used up its {limit_s:g} s of CPU time") from error
            raise
        if "error" in answer:
            raise GraderCrashError(str(answer["error"]))
        return cast(Verdict, answer)

    def _is_readable(self, gold: Formula) -> bool:
        if gold.is_word:
            return True
        if gold.latex not in self._readable_golds:
            if len(self._readable_golds) >= _KNOWN_GOLDS:
                self._readable_golds.clear()
            form = _percent_forms(gold.latex, gold.latex)[0][0]
            try:
                self._readable_golds[gold.latex] = self._ask(form, form)["readable"]
            except GraderTimeoutError as error:
                raise GoldError(f"math reference {gold.latex!r}: {error}") from error
        return self._readable_golds[gold.latex]

    def _grade_one(self, answer: str, gold: Formula) -> Grade:
        formula, reason = read_formula(answer, self._config.max_chars)
        if formula is None:
            return Grade(0.0, reason)
        formula, gold = (
            replace(formula, latex=in_form_of(formula.latex, gold.latex)),
            replace(gold, latex=in_form_of(gold.latex, formula.latex)),
        )
        if gold.names and formula.names and gold.names != formula.names:
            return Grade(0.0, parsed=formula.spelled)
        units_agree = gold.unit is None or gold.unit.measures_as(formula.unit)
        if "%" in gold.latex + formula.latex and any(one.unit and one.unit.dimension for one in (gold, formula)):
            units_agree = False  # a percentage is no length, angle or price
        if formula.latex == gold.latex and units_agree and _factor(gold, formula) == 1:
            return Grade(1.0, parsed=formula.spelled)
        if gold.is_repeating and _DECIMAL.fullmatch(formula.latex):
            return Grade(0.0, parsed=formula.spelled)
        ratios = [_CLOCK_RATIO.fullmatch(one.spelled) for one in (gold, formula)]
        if gold.is_word is not formula.is_word and None not in ratios:
            # `10:15` may be a ratio as well, where the other side is one.
            (top, bottom), (other_top, other_bottom) = (
                [int(part) for part in ratio.groups()] for ratio in ratios if ratio
            )
            is_ratio = bottom > 0 and other_bottom > 0
            return Grade(float(is_ratio and top * other_bottom == other_top * bottom), parsed=formula.spelled)
        if HEDGE.search(formula.latex) and not HEDGE.search(gold.latex):
            return Grade(0.0, Reason.AMBIGUOUS, parsed=formula.spelled)
        if formula.is_word or gold.is_word or not units_agree or _are_of_two_kinds(gold.latex, formula.latex):
            return Grade(0.0, parsed=formula.spelled)
        try:
            verdicts = [self._ask(*forms) for forms in _percent_forms(*_in_one_unit(gold, formula))]
        except GraderTimeoutError:
            return Grade(0.0, Reason.TIMEOUT, parsed=formula.spelled)
        reason = Reason.OK if verdicts[0]["readable"] else Reason.UNREADABLE
        return Grade(float(any(verdict["equal"] for verdict in verdicts)), reason, parsed=formula.spelled)


def _are_of_two_kinds(gold: str, expression: str) -> bool:
    """Return whether the grader calls two formulas equal that differ: set and point or interval, 12 and 12 indexed."""
    if _SUBSCRIPTED.search(gold) or _SUBSCRIPTED.search(expression):
        return True
    pair = (gold, expression)
    return any(_SET.fullmatch(one) for one in pair) and any(TUPLE.fullmatch(one) for one in pair)


def _factor(gold: Formula, formula: Formula) -> Fraction:
    """Return what an answer is multiplied by to be in the reference's unit: 1 where either has none."""
    if gold.unit is None or formula.unit is None or not (gold.unit.dimension and formula.unit.dimension):
        return Fraction(1)
    return formula.unit.factor_to(gold.unit)


def _in_one_unit(gold: Formula, formula: Formula) -> tuple[str, str]:
    """Return both in LaTeX, the answer in the reference's unit where both have one."""
    factor = _factor(gold, formula)
    if factor == 1:
        return gold.latex, formula.latex
    # The right side of `h = 80` is what is measured.
    name, equals, value = formula.latex.rpartition("=")
    return gold.latex, f"{name}{equals}({value})\\cdot\\frac{{{factor.numerator}}}{{{factor.denominator}}}"


def _percent_forms(gold: str, expression: str) -> list[tuple[str, str]]:
    """Return the pairs to compare: as written, and as a fraction where only one side has a percent sign."""
    forms = [(_PERCENT.sub(r"\1", gold), _PERCENT.sub(r"\1", expression))]
    if ("%" in gold) != ("%" in expression):
        forms.append(
            (_PERCENT.sub(r"\1\\cdot\\frac{1}{100}", gold), _PERCENT.sub(r"\1\\cdot\\frac{1}{100}", expression))
        )
    return forms
