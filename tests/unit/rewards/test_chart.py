"""Chart: numbers as people write them, years, text, lists; hedges and tricks earn nothing."""

import dataclasses

import pytest

from rewards.base import GoldError, RewardRequest
from rewards.chart import ChartReward
from rewards.parameters import ChartConfig
from rewards.text_similarity import levenshtein


def value(answer: str, gold: str, *, answer_type: str = "", **settings: object) -> float | None:
    request = RewardRequest(task="chart", question="", response="", answer=gold, answer_type=answer_type)
    config = dataclasses.replace(ChartConfig(), **settings)  # type: ignore[arg-type]
    return ChartReward(config).grade(request, [answer])[0].value


RIGHT = [
    ("US$45", "45"), ("45\u20ac", "45"), ("USD 45", "45"), ("-$45", "-45"), ("\u221245", "-45"), ("- 45", "-45"),
    ("+45", "45"), ("45 %", "45%"), ("45 per cent", "0.45"), ("45 percent", "45"), ("45\\%", "0.45"),
    ("4.5 \u00d7 10^1", "45"), ("4.5\u00d710\u00b9", "45"), ("5 x 10^-3", "0.005"), ("4.5\u00b710^1", "45"),
    ("1.0E+03", "1,000"),
    ("45 cm\u00b2", "45"), ("45 km/h", "45"), ("45\u00b0C", "45"), ("45^\\circ", "45"), ("$1.2M", "1200000"),
    ("1.2m", "1,200,000"), ("45 m", "45"), ("2B", "2 billion"), ("45 mn", "45 million"),
    ("1.5 trillion dollars", "1.5e12"),
    ("\u00bd", "0.5"), ("\\frac{1}{2}", "0.5"), ("1 / 2", "50%"), ("~45", "45"), ("x = 45", "45"), ("Value: 45", "45"),
    ("\uff14\uff15", "45"), (".5", "0.5"), ("45 (forty five)", "45"), ("`45`", "45"), ("```\n45\n```", "45"),
    ("Rs. 45", "45"),
    ("1.05", "1"), ("0.95", "1"), ("-0.0", "0"), ("0%", "0"), ("in 2015", "2015"), ("2,015", "2015"),
    ("2,010", "2,015"),
    ("C\u00f4te d\u2019Ivoire", "C\u00f4te d'Ivoire"), ("18\u201329", "18-29"), ("Q3 2015", "q3 2015"),
    ("Yes, it is", "Yes"), ("2 1/2", "2.5"), ("2\u00bd", "2.5"), ("-2 1/2", "-2.5"), ("minus 5", "-5"),
    ("1\u202f200\u202f000", "1.2 million"), ("negative $5", "-5"),
    ("India, Brazil", "[Brazil, India]"), ("Brazil & India", '["Brazil", "India"]'),
    ("- India\n- Brazil", "[Brazil, India]"),
    ("Bosnia and Herzegovina, Serbia", "[Serbia, Bosnia and Herzegovina]"), ("1,234 and 5,678", "[1,234, 5,678]"),
    ("Brazil, India, and China", "[China, Brazil, India]"), ("[45, 100]", "[103, 47]"), ("10,20", "[20,10]"),
]  # fmt: skip
WRONG = [
    ("47.26", "45"), ("1.0501", "1"), ("0.45%", "45"), ("4500%", "45%"), ("2010", "2015"), ("2014", "2015"),
    ("2015%", "2015"),
    ("1,23", "1.23"), ("1_000", "1000"), ("3:45", "345"), ("40-50", "45"), ("45\u201350", "45"), ("40 - 50", "45"),
    ("45~50", "45"), ("45 to 50", "45"), ("45 or 46", "45"), ("45, 46", "45"), ("45\u00b11", "45"), (">45", "45"),
    ("more than 45", "45"), ("at most 45", "45"), ("not 45", "45"), ("nan", "45"), ("inf", "45"), ("1e999", "45"),
    ("9" * 200, "45"), ("-45", "45"), ("Q3", "3"), ("CO2", "2"), ("forty-five", "45"), ("\u0661\u0662", "12"),
    ("\u5341\u4e8c", "12"),
    ("2**3", "8"), ("2 hundred", "2"), ("1e-30", "0"), ("-100", "0"), ("1/0", "1"), ("45/0", "45"),
    ("45 in 2015", "45"), ("", "45"),
    ("Brazil or India", "Brazil"), ("2015", "Q3 2015"), ("1", "Group 1"), ("Brazil, Brazil", "[Brazil, India]"),
    ("Brazil, India, China", "[Brazil, India]"), ("[2007, 2009]", "[2007, 2008]"), ("Yes and no", "Yes"),
    ("", "Brazil"), ("2 1/0", "2"), ("3 2 1/2", "3"), ("1 2", "12"), ("5 minus 10", "-5"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right_answers_however_written(answer: str, gold: str) -> None:
    assert value(answer, gold) == 1.0


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong_hedged_and_malformed_answers(answer: str, gold: str) -> None:
    assert value(answer, gold) == 0.0


def test_the_type_of_the_reference_overrides_its_form() -> None:
    assert value("2010", "2015", answer_type="number") == 1.0
    assert value("2014.9", "2015", answer_type="year") == 0.0
    assert value("3 cats", "3 idiots", answer_type="text") == 0.0
    assert value("b and a", "a, b", answer_type="list") == 1.0


@pytest.mark.parametrize(("gold", "answer_type"), [("!!!", ""), ("[]", ""), ("Q3", "number"), ("5", "boxes"), ("", "")])
def test_unusable_reference_is_a_failure(gold: str, answer_type: str) -> None:
    with pytest.raises(GoldError):
        value("5", gold, answer_type=answer_type)


def test_tolerance_is_relative_to_the_reference_not_to_the_answer() -> None:
    # |100 - 95| is 5 % of 100 but 5.3 % of 95.
    assert value("95", "100") == 1.0
    assert value("100", "95") == 0.0


def test_graded_option_falls_linearly_inside_the_tolerance() -> None:
    assert value("45", "45", graded=True) == 1.0
    assert value("46.125", "45", graded=True) == pytest.approx(0.5)
    assert value("47.3", "45", graded=True) == 0.0


def test_anls_option_forgives_a_misspelling_but_not_another_word() -> None:
    assert value("Brasil", "Brazil", anls=True) == pytest.approx(5 / 6)
    assert value("India", "Brazil", anls=True) == 0.0
    assert levenshtein("kitten", "sitting") == 3


def test_list_items_are_paired_even_where_tolerances_overlap() -> None:
    # 100 is near both references, 105.1 only near 103: first come, first served would fail.
    assert value("[100, 105.1]", "[103, 100]") == 1.0
    assert value("[105.1, 100]", "[103, 100]") == 1.0
