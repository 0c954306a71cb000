"""Math: symbolic equality, hedges, and answers that would never finish."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import MathConfig
from rewards.functions.grader_process import GraderCrashError
from rewards.functions.mathematics import MathReward


@pytest.fixture(scope="module")
def math() -> Iterator[MathReward]:
    reward = MathReward(MathConfig(timeout_s=60.0))
    yield reward
    reward.close()


def grade(math: MathReward, answer: str, gold: str) -> Grade:
    return math.grade(RewardRequest(task="math", question="", response="", answer=gold), [answer])[0]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\boxed{\\frac{1}{2}}", "0.5"), ("$5$", "5"), ("The answer is 5.", "5"), ("x = 5", "5"), ("5.0", "5"),
        ("1,234", "1234"), ("5\u221a3", "5\\sqrt{3}"), ("60\u00b0", "60^\\circ"), ("2\u03c0", "2\\pi"), ("1e3", "1000"),
        ("12%", "0.12"), ("12\\%", "12"), ("x^2+2x+1", "(x+1)^2"), ("B", "B"), ("x^2y^2", "y^2x^2"),
    ],
)  # fmt: skip
def test_equal_expressions_earn_one(math: MathReward, answer: str, gold: str) -> None:
    assert grade(math, answer, gold).value == 1.0


@pytest.mark.parametrize(
    ("answer", "gold", "reason"),
    [
        ("6", "5", Reason.OK), ("A", "B", Reason.OK), ("12%", "1.2", Reason.OK), ("4 or 5", "5", Reason.AMBIGUOUS),
        ("\\boxed{4}\\boxed{5}", "5", Reason.AMBIGUOUS), ("5 6", "11", Reason.AMBIGUOUS), ("", "5", Reason.UNREADABLE),
        ("\\frac{1}{", "5", Reason.UNREADABLE), ("5" * 200, "5", Reason.TOO_LONG), ("9**9**9", "5", Reason.UNREADABLE),
        ("9^{9^9}", "5", Reason.UNREADABLE), ("9^9^9", "5", Reason.UNREADABLE), ("10^{99999}", "5", Reason.UNREADABLE),
        ("(10^9)!", "5", Reason.UNREADABLE), ("99999!", "5", Reason.UNREADABLE),
    ],
)  # fmt: skip
def test_other_expressions_earn_nothing(math: MathReward, answer: str, gold: str, reason: Reason) -> None:
    result = grade(math, answer, gold)
    assert (result.value, result.reason) == (0.0, reason)


@pytest.mark.parametrize("gold", ["", "???", "9^9^9"])
def test_reference_that_does_not_parse_is_a_failure(math: MathReward, gold: str) -> None:
    with pytest.raises(GoldError):
        grade(math, "5", gold)


def test_endless_work_is_killed_and_the_next_question_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = MathReward(MathConfig(timeout_s=2.0))
    try:
        assert grade(impatient, "5", "5").value == 1.0
        monkeypatch.setattr("rewards.text.formulas._TOWER", __import__("re").compile("never matched"))
        start = time.monotonic()
        result = grade(impatient, "(10^{9})!", "5")
        assert (result.value, result.reason) == (0.0, Reason.TIMEOUT)
        assert time.monotonic() - start < 10.0
        assert grade(impatient, "5", "5").value == 1.0
    finally:
        impatient.close()


def test_a_grader_that_gets_no_processor_for_a_while_decides_nothing() -> None:
    reward = MathReward(MathConfig(timeout_s=1.0))
    try:
        assert grade(reward, "1/2", "0.5").value == 1.0
        worker = reward._process._worker
        assert worker is not None
        os.kill(worker.pid, signal.SIGSTOP)
        threading.Timer(2.5, os.kill, (worker.pid, signal.SIGCONT)).start()
        assert grade(reward, "2/4", "0.5").value == 1.0
    finally:
        reward.close()


def test_a_dead_grader_is_a_crash_and_is_replaced() -> None:
    reward = MathReward(MathConfig(timeout_s=10.0))
    try:
        assert grade(reward, "5", "5").value == 1.0
        worker = reward._process._worker
        assert worker is not None
        worker.stdin.close()
        worker.wait(timeout=20)
        assert reward._ask("5", "5")["equal"]
    finally:
        reward.close()


def test_worker_errors_are_crashes_not_zeros(math: MathReward, monkeypatch: pytest.MonkeyPatch) -> None:
    grade(math, "5", "5")
    monkeypatch.setattr(math._process, "receive", lambda limit: {"error": "ValueError: broken"})
    with pytest.raises(GraderCrashError, match="broken"):
        math._ask("5", "6")
    math._process.close()  # the true answer was never read


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("2\u221a3", "2\u221a{3}"), ("\\sqrt{3}", "\u221a{3}"), ("2\u221a{3}", "2\\sqrt{3}"), ("9", "9\u7c73"),
        ("8", "8\u5398\u7c73"), ("25\u6d77\u91cc", "25"), ("36", "36cm^{2}"), ("9\u03c0", "9\u03c0cm^{2}"),
        ("36cm\xb2", "36"), ("36\\text{ cm}^2", "36cm\xb2"), ("36cm^2", "36 square cm"), ("12:00", "12:00"),
        ("1 - \\frac{1}{\\mathrm{e}}", "1 - \\frac{1}{\\mathrm{e}}"), ("1-1/e", "1 - \\frac{1}{\\mathrm{e}}"),
        ("9pi", "9\u03c0"), ("pi", "\u03c0"), ("4 * pi", "4\u03c0"), ("4\xb7\u03c0", "4\\pi"), ("10^-3", "0.001"),
        ("10^{-3}", "10^-3"), ("\u221e", "\\infty"), ("28 percent", "28\\%"), ("28\\%", "28 percent"),
        ("0.28", "28\\%"), ("\\frac{3\\sqrt{3}}{2}", "\\frac{3}{2}\u221a{3}"),
        ("\\frac{\u221a{3}}{2}", "\\frac{\\sqrt3}{2}"), ("3.6", "3.6\u79d2"), ("3.6 s", "3.6\u79d2"),
        ("80 mm", "8cm"), ("30 degrees", "30\xb0"), ("30\xb0", "30"), ("30^\\circ", "30\u5ea6"), ("east", "East"),
        ("\\text{east}", "east"), ("\\boxed{5}", "5"), ("(\u221a3+1)", "(\u221a{3}+1)\u5c0f\u65f6"),
        ("\u221a3+1 hours", "(\u221a{3}+1)\u5c0f\u65f6"), ("\\sqrt{2(3+5)}", "4"), ("sqrt(2(3+5))", "4"),
        ("\u221b8", "2"), ("\\sqrt[3]{8}", "2"), ("2 1/2", "2.5"), ("2\\frac{1}{2}", "2.5"), ("1,234", "1234"),
        ("1{,}234", "1234"), ("x = 5", "5"), ("h = 5 m", "5m"), ("h = 5 m", "5"), ("5 apples", "5"),
        ("5", "5 apples"), ("\\$5", "5"), ("theta", "\\theta"), ("2ab", "2ba"), ("xy", "yx"), ("x^2y^2", "y^2x^2"),
        ("1:2", "1/2"), ("2:4", "1:2"), ("1:2:3", "2:4:6"), ("(1,2)", "(1,2)"), ("(2,1)", "(2,1)"),
        ("\\angle ABC", "\u2220ABC"), ("\u2220ABC = 30\xb0", "30\xb0"), ("sin 30\xb0", "1/2"),
        ("\\sin 30^\\circ", "0.5"), ("log_2 8", "3"), ("7685413092", "7685413092"), ("8.0", "8"), ("0.333333", "1/3"),
        ("The answer is 5.", "5"), ("so the value is 20.", "20"), ("The length of the segment AB is 5 cm.", "5"),
        ("The area is 9\u03c0.", "9\\pi"), ("5 or 6", "6 or 5"), ("x=1 or x=2", "x=2 or x=1"),
        ("6 km/h", "6 km per hour"), ("5 m/s", "18 km/h"), ("60km", "60 kilometers"), ("2\\pi\\text{ cm}", "2\u03c0"),
        ("\\frac{24}{5}cm", "4.8"), ("4\u221a{3}cm\xb2", "4\\sqrt{3}"), ("2.5\\times 10^{3}", "2500"),
        ("1.6e-19", "1.6\\times 10^{-19}"), ("5\\%", "0.05"), ("about 5", "5"), ("2\u03c0r", "2\\pi r"), ("C", "C"),
        ("24+4\\pi", "4\\pi+24"), ("seven", "7"), ("-2", "\u22122"), ("\\frac{-1}{2}", "-\\frac12"),
        ("\\dfrac{1}{2}", "0.5"), ("x\\geq 5", "x\u22655"), ("160\u221a{3}m", "160\\sqrt3"),
        ("160\\sqrt{3} meters", "160\u221a{3}m"), ("3/4", "0.75"), ("\\frac{\\pi}{3}", "\u03c0/3"),
        ("\\pi/3", "pi/3"), ("2\\sqrt{3} - 2", "2\u221a{3}-2"), ("5 \\text{ cm}", "5cm"), ("5 \\mathrm{~cm}", "5cm"),
        ("9\\text{ square units}", "9"), ("9 units^2", "9"), ("6 sq. cm", "6cm^2"),
        ("6\u5e73\u65b9\u5398\u7c73", "6cm\xb2"), ("3\u7acb\u65b9\u7c73", "3m^3"), ("2 L", "2000 mL"),
        ("1 h", "60 min"), ("12:30", "12:30"), ("3:05", "3:05"), ("n=3k+1", "n=3k+1"), ("f(x)=2x", "f(x)=2x"),
        ("-\\infty", "-\u221e"), ("\\{1,2\\}", "1, 2"), ("[0, 1]", "[0,1]"), ("\\frac{1}{2}mv^2", "mv^2/2"),
        ("The four lines divide the paper into \\boxed{8} sections.", "8"),
        ("There are $\\boxed{6}$ routes. The answer is: 6", "6"),
        ("AB = 1.8 * BC / 1.5 = 1.8 * 9.0 / 1.5 = 10.8", "10.8m"), ("5 = x", "5"), ("Two", "2"),
    ],
)  # fmt: skip
def test_a_value_is_right_however_it_is_spelled_and_every_reference_is_right_for_itself(
    math: MathReward, answer: str, gold: str
) -> None:
    assert grade(math, answer, gold).value == 1.0
    assert grade(math, gold, gold).value == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("1.5", "\\frac{3}{2}\u221a{3}"), ("\u221a3", "2\u221a{3}"), ("seat", "east"), ("neve", "even"),
        ("silent", "listen"), ("\\angle BAC", "\\angle ABC"), ("1.6e-19", "9.1e-31"), ("0.0000001", "0.0000002"),
        ("8pi", "9\u03c0"), ("8 cm", "8 m"), ("36 cm", "36 cm^2"), ("4 or 5", "5"), ("4, 5", "5"), ("4=5", "5"),
        ("x=6=5", "5"), ("more than 5", "5"), ("at least 5", "5"), ("5 or more", "5"), ("\u22655", "5"), (">5", "5"),
        ("x > 5", "5"), ("\\geq 5", "5"), ("5+", "5"), ("not 5", "5"), ("5 6", "11"), ("28", "0.28"),
        ("(1,2)", "(2,1)"), ("(0,0)", "(5,3)"), ("(3,1)", "(2,1)"), ("[1,2]", "(1,2)"), ("1.6e-19x", "9.1e-31x"),
        ("\\frac{3}{2}", "\\frac{3}{2}\\sqrt{3}"), ("3\u221a", "3"), ("no", "on"), ("30", "60\xb0"), ("5 kg", "5 g"),
        ("5\\text{ not}", "5"), ("5 less", "5"), ("between 4 and 6", "5"), ("10^-3", "10^-4"), ("1000001", "1000000"),
        ("3.14", "\\pi"), ("5 seconds", "5 minutes"), ("The value is 20 or 30", "20"),
        ("It is 20. No, the value is 30.", "30"), ("Not 20", "20"), ("2*3*", "6"), ("\\frac{1}{2", "1/2"),
        ("the 5th or 6th", "5"), ("5 \xb1 1", "5"), ("\\pm 5", "5"), ("x^2", "x^3"), ("\\sqrt{\\sqrt{2}", "2"),
        ("\\boxed{4} \\boxed{5}", "5"), ("AB", "CD"), ("7 cats 8", "7"), ("\\infty", "-\\infty"), ("tea", "eat"),
        ("2east", "2seat"), ("4*", "4"), ("(5", "5"), ("5)", "5"), ("4=5=5", "5"), ("3 m/s", "3 m/s^2"),
        ("There are at least \\boxed{6} routes.", "6"), ("\\boxed{6} or 7", "6"), ("\\boxed{6} or 7", "7"),
        ("\\boxed{3}+3", "3"), ("5 cats", "5 dogs"),
    ],
)  # fmt: skip
def test_half_read_formulas_bounds_anagrams_units_and_hedges_earn_nothing(
    math: MathReward, answer: str, gold: str
) -> None:
    assert grade(math, answer, gold).value == 0.0


@pytest.mark.parametrize(
    "gold",
    ["forty two", "the area of a circle", "7 cats and dogs went home", "", "???", "forty-two", "seven", "9^9^9", "1/0"],
)
def test_a_reference_in_prose_or_without_a_value_is_a_failure(math: MathReward, gold: str) -> None:
    with pytest.raises(GoldError):
        grade(math, gold, gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2", "2 thousand"), ("25", "25 million"), ("24", "24 dozen"), ("12", "12_2"), ("25", "25_a"),
        ("1010", "1010_2"),
        ("60\u00b0", "60%"), ("60\u00b0", "60'"), ("5 m", "5%"), ("$20", "20%"), ("$20", "20 cents"),
        ("$20", "\u20ac20"), ("\u20ac5", "5 dollars"), ("(2,5)", "{2,5}"), ("(1,-2)", "\\{1,-2\\}"),
        ("\\{1,2\\}", "(1,2)"), ("[0, 3]", "{0, 3}"),
    ],
)  # fmt: skip
def test_scales_indices_percentages_currencies_and_brackets_are_part_of_the_value(
    math: MathReward, gold: str, answer: str
) -> None:
    assert grade(math, answer, gold).value == 0.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2 million", "2,000,000"), ("2 million", "2 million"), ("144", "12 dozen"), ("1010_2", "1010_{2}"),
        ("$20", "20 dollars"), ("$20", "2000 cents"), ("25", "25\u20ac"), ("\\{1,2\\}", "{2, 1}"),
        ("\\{1,2\\}", "1, 2"),
        ("3\\sqrt{2}", "sqrt18"), ("3\\sqrt{2}", "3sqrt2"), ("3\\sqrt{2}", "3*2^0.5"),
        ("\\frac{\\sqrt{3}}{2}", "\u00bd\u221a3"), ("\\frac{\\sqrt{3}}{2}", "1/2 \u221a3"), ("3.5", "3\u00bd"),
        ("\\frac{1}{3}", "0.\\overline{3}"), ("\\frac{1}{6}", "0.1\\dot{6}"), ("1500", "1.5x10^3"),
        ("1.6e-19", "1.6 x 10^-19"), ("25", "Therefore, 25"), ("2", "\\lg 100"), ("5", "5'"), ("60\u00b0", "60"),
    ],
)  # fmt: skip
def test_scales_roots_and_decimals_are_read_in_any_spelling(math: MathReward, gold: str, answer: str) -> None:
    assert grade(math, answer, gold).value == 1.0
