"""Which number answers, what counts nothing, whose money it is, and what names bind: right answers and neighbours."""

from collections.abc import Iterator

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest


@pytest.fixture(scope="module")
def rewards() -> Iterator[MixedReward]:
    with MixedReward(RewardConfig()) as mixed:
        yield mixed


def check(rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str]) -> None:
    expected = dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)
    requests = [
        RewardRequest(task=task, question="", response=f"<think>a</think><answer>{answer}</answer>", answer=gold)
        for answer in expected
    ]
    paid = (result.task_reward for result in rewards.score(requests))
    assert dict(zip(expected, paid, strict=True)) == expected


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        # The first number stated answers; parts, places and comparisons do not.
        ("3", ["There are three people: two standing, one sitting.", "Three people: one sitting",
               "3 (two standing, one sitting)"], ["3 (two standing, two sitting)"]),
        ("2", [], ["There are three people: two standing, one sitting.", "There are five dogs: 2 brown.",
                   "6 birds (flying: 2)", "Total: 5\nRed: 2", "dogs: 5\ncats: 2", "Seven people, two of them sitting"]),
        ("5", ["There are five dogs: 2 brown.", "Total: 5\nRed: 2", "Red: 2\nBlue: 3\nTotal: 5",
               "2 red, 3 blue. The total is 5."], ["5 red, 7 in total", "5 red, 4 blue and 3 green, 12 in total"]),
        ("4", ["There are 4 people, 3 men and 1 woman.", "There are 4 people in the image, including 1 child.",
               "4 people, 3 of whom are men"], ["There are 4 people, 3 men and 2 women.", "4, 3 and 1"]),
        ("12", ["12 (3 rows of 4)", "5 red, 4 blue and 3 green, 12 in total", "12 = 3 x 4"],
         ["3 rows of 4, or 12 in total", "12 (3 rows of 5)"]),
        # A pronoun, a part, a rate or a doubt is no count.
        ("1", ["one of them", "Only one of the dogs", "There is a single dog.", "one can be seen", "\u4e00\u4e2a"],
         ["One cannot tell", "One would need a better image.", "one of several", "One of the three dogs",
          "one missing", "one more", "One has to guess", "not a single dog", "one less", "one never knows"]),
        ("4", ["four, I think", "\u56db", "\u56db\u4e2a", "\u56fe\u4e2d\u67094\u4e2a\u4eba\u3002"],
         ["4? I am not sure.", "4, though I can't be sure", "4, but there could be more", "4, but I might be wrong",
          "4 is too many", "4 more", "4 each", "4 per table", "4x2", "4 other dogs", "4 at a time",
          "\u81f3\u5c11\u56db\u4e2a", "\u4e0d\u662f\u56db\u4e2a", "\u56db\u4e94\u4e2a", "\u5341\u56db"]),
        ("3", ["3 dogs on a sofa"], ["3 dogs and a cat", "I lost count at 3", "3 dogs plus some cats"]),
        ("0", ["The image does not contain any dogs.", "The image shows no dogs.", "Nobody is in the image.",
               "There is no one in the image.", "None of the people are wearing hats.", "No one.", "Not one.",
               "In the image, there are no dogs.", "No, there are no dogs.", "I can't see any dog.",
               "\u96f6", "\u6ca1\u6709", "\u56fe\u4e2d\u6ca1\u6709\u72d7"],
         ["There is no telling", "There are no dogs besides the one on the left.", "no dogs until the third row",
          "No dogs can be ruled out", "No one knows", "No one is sure", "No, there are dogs", "not one but two",
          "The image does not contain any information", "None of the dogs are missing", "\u6ca1\u6709\u56fe\u7247"]),
    ],
)  # fmt: skip
def test_counts(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "counting", gold, right, wrong)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("45", ["The value is 45 at x = 3.", "45 (n=3)", "45 in group: 3", "45 (2010: 30)", "45 (average: 30)",
                "45 (was 30)", "45 while the average is 30", "It is 45 compared to India which is 30",
                "While the average is 30, it is 45.", "45 for the 18-24 age group", "Group 3 has 45", "45 (65 - 20)",
                "Product 7 sold 45 units", "It increased from 20 to 65, a difference of 45.",
                "45, 15 more than Brazil"],
         ["45 (or 30)", "45 (30)", "45 (actually 30)", "45 (no, 30)", "45 (more likely 30)",
          "45 (65 - 30)", "45 or 15 more than Brazil", "from 45 to 65"]),
        ("3", [], ["The value is 45 at x = 3.", "The maximum 45 occurs at x = 3", "45 (n=3)", "45 in group: 3"]),
        ("30", [], ["45 (2010: 30)", "45 (average: 30)", "45 (was 30)", "45 while the average is 30", "45: 30",
                    "It is 45 compared to India which is 30"]),
        ("45", ["rose to 45", "rose by 45", "45 times", "45 years old", "of 45"],
         ["rose from 45", "versus 45", "compared to 45", "!= 45", "45 is too high", "By no means 45", "one in 45",
          "out of 45", "ln 45", "cos 45", "45 times higher", "45-fold", "45 trillionths", "45 reduced by half",
          "rank 45", "45-year-olds", "beneath 45", "per 45"]),
        ("2015", ["2015 (45%)", "2015, with 45 million"], ["2014 (45%)"]), ("1.5", ["one and a half"], ["a half"]),
        ("3:2", ["3 : 2"], ["2 : 3"]), ("1234", ["1'234"], ["1'23"]),
        ("12%", ["12"], ["12 basis points", "12 bps"]),
        # Money.
        ("$45", ["45", "45 dollars", "USD 45", "C$45"],
         ["\u00a345", "\u00a545", "45 yen", "\u20b945", "45 GBP", "CHF 45", "45 pounds", "45 Swiss francs"]),
        ("\u00a345", ["45 pounds", "GBP 45", "45"], ["$45", "\u20ac45", "45 yen"]),
        ("\u00a545", ["45 yen", "45 yuan", "JPY 45"], ["$45", "45 won"]), ("45 yen", ["\u00a545"], ["45 yuan"]),
        ("CAD 45", ["C$45", "45 dollars"], ["USD 45", "US$45", "A$45"]), ("3 m/s", ["3 m/s"], ["3 m/s^2"]),
    ],
)  # fmt: skip
def test_chart_numbers(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "chart", gold, right, wrong)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("(2,3)", ["x=2, y=3", "y = 3, x = 2", "(x,y) = (2,3)", "(y,x)=(3,2)", "P(2,3)", "x = 2 and y = 3"],
         ["y=2, x=3", "(y,x) = (2,3)", "P(3,2)"]),
        ("x=2, y=3", ["y=3, x=2", "(2,3)"], ["y=2, x=3", "(3,2)", "a=2, b=3"]),
        ("5", ["f(2) = 5", "x is 5", "x equals 5", "Area: 5", "\u7b54\u6848\u662f5", "\u7b54\u6848\uff1a5"],
         ["reject x = 5", "discard x = 5", "rule out x = 5", "5 fails", "other than x = 5", "x = 5 is extraneous",
          "any value but x = 5", "The wrong answer: 5", "f(2) = 6", "x is not 5"]),
        ("12", ["There are 12 ways.", "12 possible outcomes"],
         ["There are 12 or 13 ways", "12 wrong answers", "12 other ways", "There are at least 12 ways"]),
        ("12 m/s", ["12 m s^{-1}", "12 ms^{-1}"], ["12 m s^{-2}", "12 km s^{-1}"]),
        ("2\\sqrt{3}", ["2 root 3"], ["2 root 2"]), ("\\sqrt{2}", ["2^{0.5}", "root 2"], ["2^{0.6}"]),
        ("30^\\circ", ["\u22201=30\u00b0"], ["\u22201=31\u00b0"]), ("2:3", ["2 to 3"], ["3 to 2"]),
        ("[0,2)", ["0 \\le x < 2", "0 <= x < 2"], ["0 < x < 2", "0 \\le x \\le 2"]),
        ("(2,\\infty)", ["x > 2"], ["x \\ge 2", "x < 2"]),
        ("\\{1,2\\}", ["x = 1 or x = 2", "x=1, x=2"], ["x = 1 or x = 3", "x = 1"]), ("1", [], ["x = 1 or x = 2"]),
        ("\\$5", ["5 dollars"], ["\u00a35", "5 euros"]),
    ],
)  # fmt: skip
def test_formulas(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "math", gold, right, wrong)
