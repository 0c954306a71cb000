"""Math: symbolic equality, hedges, and answers that would never finish."""

import time
from collections.abc import Iterator

import pytest

from rewards.base import GoldError, Grade, Reason, RewardRequest
from rewards.grader_process import GraderCrashError
from rewards.mathematics import MathReward
from rewards.parameters import MathConfig


@pytest.fixture(scope="module")
def math() -> Iterator[MathReward]:
    reward = MathReward(MathConfig(timeout_s=10.0))
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
        monkeypatch.setattr("rewards.mathematics._TOWER", __import__("re").compile("never matched"))
        start = time.monotonic()
        result = grade(impatient, "(10^{9})!", "5")
        assert (result.value, result.reason) == (0.0, Reason.TIMEOUT)
        assert time.monotonic() - start < 10.0
        assert grade(impatient, "5", "5").value == 1.0
    finally:
        impatient.close()


def test_a_dead_grader_is_a_crash_and_is_replaced() -> None:
    reward = MathReward(MathConfig(timeout_s=10.0))
    try:
        assert grade(reward, "5", "5").value == 1.0
        worker = reward._process._worker
        assert worker is not None
        monkey_ask = reward._process.ask
        worker.stdin.close()
        worker.wait(timeout=20)
        assert monkey_ask("5", "5")["equal"]
    finally:
        reward.close()


def test_worker_errors_are_crashes_not_zeros(math: MathReward, monkeypatch: pytest.MonkeyPatch) -> None:
    grade(math, "5", "5")
    monkeypatch.setattr(math._process, "_read", lambda worker, limit: {"error": "ValueError: broken"})
    with pytest.raises(GraderCrashError, match="broken"):
        math._process.ask("5", "6")
