"""Chart reward: |p - g| <= 0.05 |g| for numbers, exact for years, normalised equality for text, item by item for lists.

Source:
    The 5 % tolerance is ChartQA's relaxed accuracy (Masry et al., 2022); that years need an exact match follows
    ChartQAPro (2025).
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import ChartConfig
from rewards.functions.reading import anls
from rewards.text.currencies import CURRENCIES
from rewards.text.declaration import quoted
from rewards.text.number_answers import read_answer, read_year
from rewards.text.plain_text import clean, compact, match_items, normalise, read_list, split_items, without_article
from rewards.text.quantities import Quantity, read_quantity
from rewards.text.units import Unit, named_unit, split_unit
from rewards.text.yes_no import read_yes_no

YEARS = (1800, 2100)
"""A bare four-digit integer within is a year, where the reference's type is not given."""

_PLAIN = re.compile(r"-?(?=[0-9.]{1,15}$)[0-9]+(?:\.[0-9]+)?")
_PLAIN_ANSWER = re.compile(r"-?(?=[0-9.,]{1,15}%?$)(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?%?")
NEAR_EDGE = 1e-9
"""Relative; floats of such numbers are exact to 1e-15."""
_DIGIT = re.compile("[0-9]")
_LATEX_MARKS = frozenset("\\_^{}<>=\u2264\u2265")
_RANGE = re.compile(r"(?<=[0-9%])\s*(?:-|\bto\b)\s*(?=[$\u20ac\u00a3]?[0-9])")
"""Marks between the ends of a range, `18 - 24`, in a reference that is text."""
_RATIO = re.compile(r"(?<=[0-9])\s*:\s*(?=[0-9])")
_NO_YEAR = ("s", "'s", "bc", "bce", "-present", "-now")
"""Suffixes that make a decade or an era of a year: `1990s`."""
_UNIT_ENDS = frozenset(("of", "in", "for", "on", "at", "each", "old"))
"""Words that may follow a unit: `20 kg of rice`."""
_PERCENT = Unit((("percent", 1),), Fraction(1))
_YEAR = Unit((("month", 1),), Fraction(12))
_COUNTED = tuple(((name, 1),) for name in ("percent", *CURRENCIES))
"""What may be given in millions: no lengths or times."""
_DEGREE = Unit((("angle", 1),), Fraction(1))
Grader = Callable[[str], Grade]


class ChartReward:
    """Grades answers to questions about charts.

    Example:
        >>> request = RewardRequest(task="chart", question="How many?", response="", answer="1,200,000")
        >>> [grade.value for grade in ChartReward(ChartConfig()).grade(request, ["1.2 million", "1.2 or 1.3 million"])]
        [1.0, 0.0]
    """

    def __init__(self, config: ChartConfig) -> None:
        self._config = config
        self._tolerance = Fraction(str(config.tolerance))
        self._float_tolerance = float(self._tolerance)

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer in [0, 1] by the type of the reference; see RewardFunction."""
        grader = self._grader(request.answer, request.answer_type)
        limit = self._config.max_chars
        return [Grade(0.0, Reason.TOO_LONG) if len(answer) > limit else grader(answer) for answer in answers]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        self._grader(request.answer, request.answer_type)
        return [
            f"reference of type {request.answer_type or 'unnamed'}: {_spelled(request.answer)}",
            f"answer: {_spelled(answer[: self._config.max_chars])}",
        ]

    def _grader(self, gold: str, answer_type: str) -> Grader:
        """Return the comparison for one reference, read once for the whole group."""
        if answer_type not in ("", "number", "year", "text", "list", "bool"):
            raise GoldError(f"chart answer_type is {answer_type!r}; use number, year, text, list, bool or nothing")
        if answer_type in ("", "number", "year") and _PLAIN.fullmatch(gold) is not None:
            return self._plain_grader(gold, answer_type)
        items = read_list(gold) if answer_type in ("", "list") else None
        if answer_type == "list" and items is None:
            items = split_items(gold, None)
        if items is not None:
            graders = [self._grader(item, "") for item in items]
            if not graders:
                raise GoldError(f"chart reference {gold!r} is an empty list")
            return lambda answer: _grade_list(answer, graders)
        text = normalise(gold)
        if answer_type in ("", "number", "year"):
            quantity, _ = read_quantity(text)
            if answer_type and quantity is None:
                raise GoldError(f"chart reference {gold!r} of type {answer_type} holds no single number")
            unit = None if quantity is None else _unit(quantity, gold)
            if quantity is not None and (answer_type or _is_number_only(quantity, unit)):
                is_year = answer_type == "year" or (not answer_type and _looks_like_year(quantity))
                return lambda answer: self._grade_number(answer, lambda: quantity, is_year, unit)
        label, _ = read_yes_no(gold)
        if label is not None and text in ("yes", "no", "true", "false"):
            return lambda answer: _grade_bool(answer, label)
        if not without_article(text):
            raise GoldError(f"chart reference {gold!r} normalises to nothing")
        return lambda answer: self._grade_text(answer, without_article(text))

    def _plain_grader(self, gold: str, answer_type: str) -> Grader:
        """Return the rule for a reference in plain digits, which compares plain digits without exact fractions.

        Numbers of up to fifteen digits are different floats where they differ at all; on the edge of the tolerance, and
        for all other answers, the long way decides.
        """
        value = float(gold)
        is_year = answer_type == "year" or (not answer_type and gold.isdigit() and YEARS[0] <= value <= YEARS[1])
        is_exact = is_year or value == 0.0
        is_graded = self._config.graded
        allowed = self._float_tolerance * abs(value)

        def grade(answer: str) -> Grade:
            if _PLAIN_ANSWER.fullmatch(answer) is None or (is_graded and not is_exact):
                return self._grade_number(answer, lambda: _quantity(gold), is_year)
            percent = "%" if answer[-1] == "%" else ""
            number = float((answer[:-1] if percent else answer).replace(",", ""))
            is_right = False
            for reading in (number, number / 100.0) if percent else (number,):
                error = abs(reading - value)
                if not is_exact and abs(error - allowed) <= NEAR_EDGE * (allowed + error):
                    return self._grade_number(answer, lambda: _quantity(gold), is_year)
                is_right |= error == 0.0 if is_exact else error < allowed
            spelled = f"{int(number) if number.is_integer() else format(number, 'g')}{percent}"
            return Grade(1.0 if is_right and not (is_year and percent) else 0.0, Reason.OK, spelled)

        return grade

    def _grade_number(
        self, answer: str, read_gold: Callable[[], Quantity], is_year: bool, gold_unit: Unit | None = None
    ) -> Grade:
        quantity, reason = (read_year if is_year else read_answer)(answer)
        if quantity is None:
            return Grade(0.0, reason)
        spelled = _decimal(quantity.value) + ("%" if quantity.percent else "")
        unit = _unit(quantity, answer)
        if is_year and (unit not in (None, _YEAR) or quantity.scale != 1 or quantity.after in _NO_YEAR):
            return Grade(0.0, parsed=spelled)
        gold = read_gold()
        factor = Fraction(1) if gold_unit is None else _conversion(unit, gold_unit)
        if factor is None or (quantity.ordinal and not gold.ordinal):
            return Grade(0.0, parsed=spelled)
        # Charts leave out the million of their axis, but kilograms are no millions.
        has_axis_unit = all(one is None or one.dimension in _COUNTED for one in (unit, gold_unit))
        pairs = _comparable(quantity, gold, has_axis_unit)
        value = max((self._closeness(p * factor, g, is_year) for p, g in pairs), default=0.0)
        return Grade(value, parsed=spelled)

    def _closeness(self, prediction: Fraction, gold: Fraction, is_year: bool) -> float:
        if is_year or gold == 0:
            return float(prediction == gold)
        error = abs(prediction - gold) / (self._tolerance * abs(gold))
        if error > 1:
            return 0.0
        return float(1 - error) if self._config.graded else 1.0

    def _grade_text(self, answer: str, gold: str) -> Grade:
        text = without_article(normalise(answer))
        if not text:
            return Grade(0.0, Reason.UNREADABLE)
        if _DIGIT.search(gold) is not None:
            text, gold = (_RATIO.sub(":", _RANGE.sub("-", one)) for one in (text, gold))
        if text != gold and (quotation := quoted(clean(answer))) is not None:
            text = without_article(normalise(quotation))
        if text != gold and not _LATEX_MARKS.isdisjoint(gold) and compact(text) == compact(gold):
            text = gold
        return Grade(anls(text, gold) if self._config.anls else float(text == gold), parsed=text)


def _spelled(text: str) -> str:
    """Return how this reward reads a text, for a reader."""
    items = read_list(text)
    if items is not None:
        return f"a list of {len(items)}: {', '.join(map(_spelled, items))}"
    quantity, _ = read_quantity(normalise(text))
    if quantity is None:
        return f"text {normalise(text)!r}"
    values = _decimal(quantity.value) + ("%" if quantity.percent else "")
    if quantity.scale != 1:
        values += f" (scaled by {quantity.scale})"
    kind = "a year or number" if _looks_like_year(quantity) else "number"
    return f"{kind} {values}" + ("" if _is_number_only(quantity, _unit(quantity, text)) else f" in {normalise(text)!r}")


def _is_number_only(quantity: Quantity, unit: Unit | None) -> bool:
    """Return whether an untyped reference is a number, perhaps with a unit or one word, not a text that holds one."""
    return quantity.words_before == 0 and (quantity.words_after <= 1 or unit is not None)


def _looks_like_year(quantity: Quantity) -> bool:
    return quantity.bare_integer and YEARS[0] <= quantity.value <= YEARS[1]


def _quantity(gold: str) -> Quantity:
    """Return the number of a reference in plain digits."""
    quantity, _ = read_quantity(gold)
    assert quantity is not None
    return quantity


def _unit(quantity: Quantity, text: str) -> Unit | None:
    """Return the unit of a number that `text` holds, or None where it has none that is known.

    A percent sign is one beside others.

    Args:
        quantity: The number.
        text: What it was read from, in its own case: a case-folded `MW` could be milliwatts.
    """
    if quantity.percent:
        return _PERCENT
    if quantity.currency:
        return named_unit(quantity.currency)
    if not quantity.after:
        return None
    text = clean(text)
    behind = text[len(text) - len(quantity.after) :] if text.casefold().endswith(quantity.after) else quantity.after
    words = behind.split()
    if quantity.scale != 1 and not quantity.may_be_unit:
        words = words[1:]
    end = next((place for place, word in enumerate(words) if place and word.casefold() in _UNIT_ENDS), len(words))
    spelled = " ".join(words[:end])
    # Behind letters, split_unit neither takes a word for what is counted nor a letter for a unit.
    _, unit = split_unit(f"1 {spelled}" if len(spelled) <= 2 else f"1x {spelled}")
    return unit if unit is not None and unit.dimension else None


def _conversion(unit: Unit | None, gold_unit: Unit) -> Fraction | None:
    """Return the factor from an answer's unit to the reference's; None where the two measure different things."""
    if unit is None or _is_bare_degree(unit, gold_unit) or _is_bare_degree(gold_unit, unit):
        return Fraction(1)
    return unit.factor_to(gold_unit) if unit.measures_as(gold_unit) else None


def _is_bare_degree(unit: Unit, other: Unit) -> bool:
    """Return whether a degree without a scale is compared with one of temperature: `20\u00b0` and `20 \u00b0C`."""
    return unit.dimension == _DEGREE.dimension and other.dimension[0][0].startswith("temperature")


def _comparable(prediction: Quantity, gold: Quantity, has_axis_unit: bool) -> list[tuple[Fraction, Fraction]]:
    """Return the pairs to compare: as written, and where only one side has a percent sign or scale word, without it."""
    if (prediction.percent and gold.scale != 1) or (gold.percent and prediction.scale != 1):
        return []
    # An answer to `7 pairs` may leave out a scale below a thousand, one to 7 may not add it.
    readings = (_readings(prediction, gold, 1000, has_axis_unit), _readings(gold, prediction, 2, has_axis_unit))
    pairs = [(p, g) for p in readings[0] for g in readings[1]]
    if prediction.percent and not gold.percent:
        return pairs + [(p / 100, g) for p, g in pairs]
    if gold.percent and not prediction.percent:
        return pairs + [(p, g / 100) for p, g in pairs]
    return pairs


def _readings(quantity: Quantity, other: Quantity, smallest: int, has_axis_unit: bool) -> tuple[Fraction, ...]:
    """Return what a number may mean beside another: with its scale and, where that may be its axis's, without."""
    is_axis_unit = has_axis_unit and other.scale == 1 and quantity.scale >= smallest
    if quantity.may_be_unit or is_axis_unit:
        return quantity.value, quantity.value / quantity.scale
    return (quantity.value,)


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


def _grade_bool(answer: str, gold: bool) -> Grade:
    label, reason = read_yes_no(answer)
    if label is None:
        return Grade(0.0, reason)
    return Grade(float(label == gold), parsed="yes" if label else "no")


def _grade_list(answer: str, graders: Sequence[Grader]) -> Grade:
    items = read_list(answer)
    if items is None or len(items) != len(graders):
        items = split_items(answer, len(graders))
    parsed = f"[{', '.join(items)}]"
    if len(items) != len(graders):
        return Grade(0.0, parsed=parsed)
    values = [[grader(item).value or 0.0 for item in items] for grader in graders]
    return Grade(match_items(values), parsed=parsed)
