"""Chart: numbers as people write them, years, text, lists; hedges and tricks earn nothing."""

import dataclasses
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.core.base import GoldError, RewardRequest
from rewards.core.config import ChartConfig
from rewards.functions.chart import ChartReward
from rewards.functions.reading import levenshtein
from rewards.text.number_words import number_word


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
    ("\u5341\u4e8c", "12"),
    ("Brazil, India, and China", "[China, Brazil, India]"), ("[45, 100]", "[103, 47]"), ("10,20", "[20,10]"),
]  # fmt: skip
WRONG = [
    ("47.26", "45"), ("1.0501", "1"), ("0.45%", "45"), ("4500%", "45%"), ("2010", "2015"), ("2014", "2015"),
    ("2015%", "2015"),
    ("1,23", "1.23"), ("1_000", "1000"), ("3:45", "345"), ("40-50", "45"), ("45\u201350", "45"), ("40 - 50", "45"),
    ("45~50", "45"), ("45 to 50", "45"), ("45 or 46", "45"), ("45, 46", "45"), ("45\u00b11", "45"), (">45", "45"),
    ("more than 45", "45"), ("at most 45", "45"), ("not 45", "45"), ("nan", "45"), ("inf", "45"), ("1e999", "45"),
    ("9" * 200, "45"), ("-45", "45"), ("Q3", "3"), ("CO2", "2"), ("\u0661\u0662", "12"),
    ("2**3", "8"), ("2 hundred", "2"), ("1e-30", "0"), ("-100", "0"), ("1/0", "1"), ("45/0", "45"),
    ("", "45"),
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


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("90 million euros", "90"), ("78.2 thousand", "78.2"), ("144.29 billion U.S. dollars", "144.29"),
        ("90", "90 million"), ("1.2 million", "1,200,000"), ("45k", "45"), ("45 thousand", "45,000"),
        ("28 percent", "28%"), ("28", "28%"), ("0.28", "28%"), ("28%", "28"), ("about 45", "45"),
        ("approximately 45", "45"), ("~45", "45"), ("45 or so", "45"),
        ("The number of deals that PwC had in 2016 is 20.", "20"),
        ("The sum of the highest value (86.9) and the lowest value (32.53) of the blue bars is 119.43.", "119.43"),
        ("In 2016, the value was 45%.", "45"), ("three", "3"), ("Twenty-one", "21"), ("one hundred and five", "105"),
        ("The answer is 45.", "45"), ("Therefore, the answer is 45 million.", "45"), ("The highest bar is 45", "45"),
        ("The maximum value is 45", "45"), ("45 more than last year", "45"),
        ("The difference between 2010 and 2012 is 5.", "5"), ("The value in 2015 is equal to 20", "20"),
        ("From 2010 to 2012, the share is 12.5%", "12.5"), ("90\u4e07", "900000"), ("90\u4e07", "90"),
        ("9\u4ebf\u5143", "900000000"), ("25\u6d77\u91cc", "25"), ("9\u7c73", "9"), ("3.6\u79d2", "3.6"),
        ("36 cm\xb2", "36"), ("$45", "45"), ("45 dollars", "$45"), ("45.0", "45"), ("forty five", "45"),
        ("1.5 crore", "15000000"), ("The average of 40 and 50 is 45.", "45"), ("2015", "2015"),
        ("The year is 2015.", "2015"), ("The year with the 3 highest bars is 2015.", "2015"),
        ("the value is about 45", "45"), ("It was nearly 45", "45"), ("roughly 45 percent", "45%"),
        ("There were 45 deals", "45"),
    ],
)  # fmt: skip
def test_scale_words_number_words_units_and_declared_numbers_are_read(answer: str, gold: str) -> None:
    assert value(answer, gold) == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("larger than 45", "45"), ("lower than 45", "45"), ("smaller than 45", "45"), ("higher than 45", "45"),
        ("bigger than 45", "45"), ("older than 45", "45"), ("\u2265 45", "45"), ("\u226445", "45"), ("> 45", "45"),
        ("<45", "45"), ("< 45", "45"), ("45 or more", "45"), ("45 or less", "45"), ("45 or fewer", "45"),
        ("45 and above", "45"), ("45 or higher", "45"), ("45 at most", "45"), ("45 at least", "45"),
        ("at least 45", "45"), ("at most 45", "45"), ("up to 45", "45"), ("no fewer than 45", "45"),
        ("no more than 45", "45"), ("not less than 45", "45"), ("minimum of 45", "45"), ("a maximum of 45", "45"),
        ("max 45", "45"), ("min. 45", "45"), ("45+", "45"), ("45 +", "45"), ("45 plus", "45"), ("45 minimum", "45"),
        ("45 max", "45"), ("45% or more", "45%"), ("45 million or more", "45 million"), ("45 cm or more", "45"),
        ("45 or older", "45"), ("45 and up", "45"), ("upwards of 45", "45"), ("in excess of 45", "45"),
        ("exceeds 45", "45"), ("exceeding 45", "45"), ("over 45", "45"), ("under 45", "45"), ("below 45", "45"),
        ("beyond 45", "45"), ("as many as 45", "45"), ("between 40 and 50", "45"), ("starting at 45", "45"),
        ("the value is more than 45", "45"), ("The value is at least 45.", "45"), ("The answer is 45 or more", "45"),
        ("two bars with values larger than 4", "4"), ("the value is 20 or 30", "20"), ("the value is 20 or 30", "30"),
        ("It is 20. No, the value is 30.", "30"), ("It is 20. No, the value is 30.", "20"),
        ("20. No, the value is 30", "30"), ("20 or 30; the answer is 30", "30"),
        ("The answer is 20, or the answer is 30", "30"), ("I am not sure the value is 20 in 2016", "20"),
        ("The value in 2016 is not 20", "20"), ("90 thousand", "90 million"), ("90 billion", "90 million"),
        ("2015 thousand", "2015"), ("2 hundred", "2"), ("twenty or thirty", "20"), ("three four", "3"),
        ("not three", "3"), ("more than three", "3"), ("three or more", "3"), ("nan", "45"), ("40-50", "45"),
        ("45 to 50", "45"), ("\u2260 45", "45"), ("x > 45", "45"), ("\\geq 45", "45"), ("\\ge 45", "45"),
        ("somewhere above 45", "45"), ("less than or equal to 45", "45"), ("greater than or equal to 45", "45"),
        ("45 or greater", "45"), ("45 upwards", "45"), ("45 & up", "45"), ("at minimum 45", "45"),
        ("45 at the very least", "45"), ("a minimum 45", "45"), ("the minimum of 45", "45"),
        ("anything but 45", "45"), ("until 45", "45"), ("within 45", "45"), ("45-", "45"),
        ("The number in 2016 might be 20", "20"), ("Is the value in 2016 20?", "20"), ("two", "3"), ("20", "30"),
        ("If it was 2016, the value is 20", "20"), ("It is 20, not 30", "30"), ("45 and 46", "45"), ("45/46", "45"),
        ("not 45", "45"), ("no less than 45", "45"), ("nothing over 45", "45"), ("45 \u2013 50", "45"),
        ("+45 to -45", "45"), ("(n/2) + 1", "1"), ("n/2 + 1", "1"),
    ],
)  # fmt: skip
def test_bounds_denials_and_rival_declarations_are_no_single_number(answer: str, gold: str) -> None:
    assert value(answer, gold) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("the year before 2014", "2014"), ("the year after 2014", "2014"), ("one year after 2014", "2014"),
        ("before 2014", "2014"), ("prior to 2014", "2014"), ("after 2014", "2014"), ("since 2014", "2014"),
        ("any year but 2014", "2014"), ("excluding 2014", "2014"), ("2014 BC", "2014"), ("2014 B.C.E.", "2014"),
        ("2014 onwards", "2014"), ("from 2014 on", "2014"), ("2014 and on", "2014"), ("2014s", "2014"),
        ("2014th", "2014"), ("the year following the year 2014", "2014"), ("all but 2014", "2014"),
        ("other than 2014", "2014"), ("apart from 2014", "2014"), ("2014 or before", "2014"),
        ("2014 to the present", "2014"), ("2014-present", "2014"), ("besides 2014", "2014"),
        ("far from 40", "40"), ("down from 40", "40"), ("the square root 40", "40"),
        ("half of 40", "40"), ("half of $40", "40"), ("twice 40", "40"), ("double 40", "40"), ("40 squared", "40"),
        ("double that of 40", "40"), ("a third of 40", "40"), ("the square root of 40", "40"), ("ten times 40", "40"),
        ("40 halved", "40"), ("40 minus one", "40"), ("2 and a half", "2"), ("40 hundredths", "40"),
        ("40 dozen", "40"), ("40th", "40"), ("the 40th percentile", "40"), ("40!", "40"), ("\\boxed{40!}", "40"),
        ("hardly 40", "40"), ("shy of 40", "40"), ("just short of 40", "40"), ("tops 40", "40"), ("no 40", "40"),
        ("none of the 40", "40"), ("I don't see 40", "40"), ("page 40", "40"), ("40 unless it rained", "40"),
        ("72 at best", "72"), ("at the best 72", "72"), ("72 at the latest", "72"),
        ("half of fifty", "50"), ("minus fifty", "50"), ("fifty thousand", "50"),
    ],
)  # fmt: skip
def test_words_that_make_another_number_of_it(answer: str, gold: str) -> None:
    assert value(answer, gold) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("the year 2014", "2014"), ("in 2014", "2014"), ("2014 AD", "2014"), ("The peak year was 2014", "2014"),
        ("45 people", "45"), ("a figure of 45", "45"), ("a total of 45", "45"), ("an increase of 45", "45"),
        ("After rounding, it is 45", "45"), ("45 after rounding", "45"), ("45 times", "45"), ("45 months", "45"),
        ("The bar before the red bar shows 45", "45"), ("Third quarter: 45", "45"), ("45 in the third quarter", "45"),
        ("45 half marathons", "45"), ("45 short stories", "45"), ("The answer is 45!", "45"), ("45 each", "45"),
        ("the table shows 45", "45"), ("At the best point it is 45", "45"), ("45 on the left", "45"),
        ("45 square km", "45"), ("Number of times: 45", "45"), ("20th", "20th"), ("20", "20th"), ("7", "7 pairs"),
        ("2 dozen", "24"), ("24", "2 dozen"),
    ],
)  # fmt: skip
def test_words_that_leave_it_the_same_number(answer: str, gold: str) -> None:
    assert value(answer, gold) == 1.0


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("20 kg", ["20000 g", "20,000 grams", "20", "20kg", "20 apples", "20 kg of rice", "It weighs 20 kg."],
         ["20 g", "20 km", "20 lbs", "20%", "$20", "20 g of rice", "It weighs 20 g"]),
        ("20 km", ["2,000,000 cm", "20 km away", "20 in total"], ["20 m", "20 miles", "20 km/h", "20 km^2"]),
        ("20 \u00b0C", ["20", "20\u00b0", "20 degrees", "20 degrees Celsius"], ["20 \u00b0F", "20 kg", "20%"]),
        ("60 km/h", ["60 km per hour", "60 kmh"], ["60 mph", "60 m/s", "60 km"]),
        ("20 MW", ["20000 kW", "20 megawatts"], ["20 kW", "20 W"]),
        ("5 hours", ["300 minutes", "5 h", "5 hours per day"], ["5 minutes", "5 days"]),
        ("3 years", ["36 months", "3 years old"], ["3 months"]),
        ("$20", ["20 dollars", "USD 20", "2000 cents", "20"], ["20 euros", "\u20ac20", "20%", "20 cents"]),
        ("20%", ["20", "20 percent", "20 people"], ["20 kg", "$20", "20 million"]),
        ("40 million", ["40", "40 million people"], ["40%", "40 percent"]),
    ],
)  # fmt: skip
def test_units_of_both_sides_are_compared_and_converted(gold: str, right: list[str], wrong: list[str]) -> None:
    assert [value(answer, gold) for answer in right + wrong] == [1.0] * len(right) + [0.0] * len(wrong)
    assert value(f"The weight in 2014 is {right[0]}", gold) == 1.0
    assert value(f"The weight in 2014 is {wrong[0]}", gold) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("3.5 million", "$ 3.5 million"), ("$3.5 million", "$ 3.5 million"), ("3.5", "$ 3.5 million"),
        ("\u20ac20", "\u20ac 20"), ("20", "\u20ac 20"), ("\u20b920", "\u20b9 20"), ("Rs. 20", "\u20b9 20"),
        ("-$20", "-$ 20"), ("45", "USD 45"), ("$ 45", "45"), ("1500", "1 500"), ("1,500", "1 500"),
        ("1 500 000", "1500000"), ("1 500 000 people", "1,500,000"), ("\u00a31,500", "\u00a3 1 500"),
        ("12345.6", "12 345.6"), ("1500", "Rs 1 500"), ("exactly thirty-five", "35"),
        ("a hundred", "100"), ("about a hundred", "100"), ("one hundred percent", "100"),
        ("one hundred per cent", "100%"), ("thirty-five percent", "35"), ("Fifty Percent.", "50%"),
        ("roughly seventy two", "72"), ("about thirty-five", "35"), ("a thousand", "1000"), ("minus two", "-2"),
        ("18 - 24", "18-24"), ("18 \u2013 24", "18-24"), ("18 to 24", "18-24"), ("$10 - $20", "$10-$20"),
        ("18-24 years", "18 - 24 years"),
    ],
)  # fmt: skip
def test_blanks_within_numbers_and_numbers_in_words(answer: str, gold: str) -> None:
    assert value(answer, gold) == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("1 500 or more", "1500"), ("1 50", "150"), ("2 1 500", "1500"), ("18 24", "18-24"), ("18 - 25", "18-24"),
        ("fifty-sixty percent", "50"), ("at least fifty percent", "50"), 
    ],
)  # fmt: skip
def test_blanks_and_words_join_nothing_else(answer: str, gold: str) -> None:
    assert value(answer, gold) == 0.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("zero", 0), ("nineteen", 19), ("forty two", 42), ("forty-two", 42), ("one hundred", 100),
        ("two thousand and five", 2005), ("three million two hundred thousand", 3_200_000),
        ("two dozen", 24), ("a hundred and five", 105), ("a two", None), ("dozen two", None), ("five forty", None),
        ("twenty twenty", None), ("three four", None), ("hundred", None), ("and", None), ("one thousand million", None),
        ("cat", None), ("", None), ("zero one", None),
    ],
)  # fmt: skip
def test_number_words_add_up_or_are_refused(text: str, number: int | None) -> None:
    assert number_word(text) == number


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


@given(
    st.decimals(-3000, 3000, allow_nan=False, places=3).map(lambda x: x.normalize()),
    st.sampled_from([-0.0500001, -0.05, -0.0499999, 0.0, 0.0499999, 0.05, 0.0500001, 1.0]),
    st.sampled_from(["", "number", "year"]),
)
def test_plain_digits_are_judged_as_the_exact_way_judges_them(gold: Decimal, error: float, answer_type: str) -> None:
    text = f"{gold:f}"
    near = [f"{gold + gold * Decimal(str(error)):f}", text, f"{gold + 1:f}"]
    near += [f"{near[0]}%", f"{gold * 100:,f}%", f"{gold + 1:,f}"]
    # A sign or a space in front changes nothing but the way that is taken.
    spelled = [answer if answer.startswith("-") else f"+{answer}" for answer in near]
    if answer_type != "year":
        assert [value(answer, text, answer_type=answer_type) for answer in near] == [
            value(f"{answer} units", text, answer_type=answer_type) for answer in near
        ]
    assert [value(answer, text, answer_type=answer_type) for answer in near] == [
        value(answer, text, answer_type=answer_type) for answer in spelled
    ]


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
