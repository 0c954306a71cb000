"""Kinds of answers that models write to questions with options: what is paid, and what looks like it and is not."""

import random
import re
import string
from pathlib import Path

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.core.base import GoldError, Reason
from rewards.core.config import MatchingConfig, ReadingConfig
from rewards.functions.matching import MatchingReward, vqa_accuracy
from rewards.functions.reading import ReadingReward
from rewards.text import denial, refusal, yes_no
from rewards.text.choices import Choices
from rewards.text.yes_no import _read_fully, read_yes_no

METALS = ("iron", "zinc", "lead", "tin")
CITIES = ("Oslo", "Rome", "Lima", "Bern", "Cairo", "Delhi", "Quito", "Hanoi", "Paris", "Tunis")
ROOTS = ("$\\sqrt{19}$", "5", "$\\sqrt{11}$", "$\\frac{\\sqrt{7}-1}{3}$", "$\\frac{\\pi}{4} + 2$")
CAPITALS = ("Paris, France", "London, England", "Rome, Italy", "Oslo")
COLOURS = ("red", "dark red", "blue", "not red")
AMPERES = ("$3 \\pi x 10^-2 A$", "$\\pi x 10^-1 A$", "$4 \\pi x 10^-2 A$")


def value(answer: str, gold: str = "B", options: tuple[str, ...] = METALS) -> float | None:
    return Choices(options, gold).grade(answer).value


@pytest.mark.parametrize(
    "answer",
    [
        "I'm not able to name people in pictures.",
        "I\u2019m afraid I cannot say.",
        "I`m unable to see it",
        "I\u02bcd need a larger picture",
        "I, as a language model, cannot look at pictures",
        "I... really cannot tell",
        "I - sorry, there is nothing to see",
        "I: unable to answer",
        "I. I'm sorry, I can't help with this.",
        "I don't know",
        "I have no way to find out",
        "i'm sorry",
        "I think it is unclear",
    ],
)
def test_a_refusal_in_the_first_person_is_no_option_i(answer: str) -> None:
    assert value(answer, "I", CITIES) == 0.0


@pytest.mark.parametrize("answer", ["I", "(I)", "I.", "I. Paris", "I is correct", "I think the answer is I.", "i"])
def test_option_i_can_be_named(answer: str) -> None:
    assert value(answer, "I", CITIES) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "(B) is incorrect since it rusts",
        "B. is not correct",
        "B: wrong",
        "B - false",
        "B isn't it",
        "B can't be right",
        "B was ruled out",
        "(B) has been eliminated",
        "B cannot be the answer",
        "Option B does not fit",
        "B is the wrong answer",
        "B is an incorrect choice",
        "B is unlikely",
        "B is clearly not the answer",
        "B, definitely not",
        "B. This option is incorrect",
        "B, which is wrong",
        "B. zinc is incorrect",
        "zinc is wrong",
        "not zinc",
        "'B' is not right",
        "**B** is inaccurate",
        "anything but B",
        "All but B are correct",
        "everything except B is right",
        "never B",
        "Do not choose B",
        "I would not pick B",
        "I doubt it is B",
        "It isn't B.",
        "The answer is not B",
        "The answer is anything but B",
        "The wrong option is B",
        "B is the least likely",
        "No, not B",
        "B? Hardly.",
        "neither B",
        "\u00acB",
        "B \u2717",
        "\u4e0d\u9009B",
        "\u7b54\u6848\u4e0d\u662fB",
    ],
)
def test_a_denied_option_is_not_named(answer: str) -> None:
    assert value(answer) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "'B' or 'D'",
        "\u2018B\u2019 or \u2018D\u2019",
        "`B` or `D`",
        "['B', 'D']",
        '["B", "D"]',
        "B, d",
        "b, a",
        "b, c, d",
        "b/d",
        "b & d",
        "b d",
        "b\nd",
        "b-d",
        "B to D",
        "(B)(D)",
        "BD",
        "B, or maybe d",
        "B (or d)",
        "b; alternatively d",
        "B. But it could be d.",
        "B, maybe",
        "B or none of them",
        "either B or D",
        "zinc or tin",
        "zinc, tin",
        "B. zinc or tin",
        "B. zinc, D. tin",
        "B or zinc or tin",
        "The answer is b or d",
        "The answer is B and the answer is D",
        "The answer is B. The answer is D.",
        "B is correct. D is correct.",
        "B is correct and so is D",
        "It could be D, but the answer is B",
        "B or D. The answer is B",
        "D. The answer is B",
        "It is D. So the answer is B",
        "It is not \\boxed{B}",
        "The answer: iron. The answer: zinc.",
        "It is iron. It is zinc.",
        "\u7b54\u6848\u662fB\uff0c\u4e5f\u53ef\u80fd\u662fD",
        "The roof is made of \\boxed{B} or \\boxed{D}",
        "The roof is made of \\boxed{B}, D",
    ],
)
def test_a_hedge_in_any_spelling_earns_nothing(answer: str) -> None:
    assert value(answer) == 0.0


@pytest.mark.parametrize("answer", ["['B']", "B, B", "b.", "'b'", '"B"', "[B]", "B. B"])
def test_one_option_named_twice_or_in_quotes_is_one_option(answer: str) -> None:
    assert value(answer) == 1.0


@pytest.mark.parametrize(
    ("answer", "options", "right", "wrong"),
    [
        ("A: No, red is not below blue.", ("yes", "no"), "", "AB"),
        ("A - yes, red is below blue.", ("yes", "no"), "A", "B"),
        ("B. The metal shown is iron.", METALS, "", "AB"),
        ("B. The metal shown is zinc.", METALS, "B", "A"),
        ("B: It's lead", METALS, "", "BC"),
        ("B. iron, as it rusts", METALS, "", "AB"),
        ("iron (B)", METALS, "", "AB"),
        ("zinc (B)", METALS, "B", "A"),
        ("C. The clock reads ten past.", ("ten past", "ten to", "noon"), "", "AC"),
        ("Iron is A. So the answer is zinc.", METALS, "", "AB"),
        ("The metal is iron. The answer is B.", METALS, "", "AB"),
    ],
)
def test_label_and_sentence_must_agree(answer: str, options: tuple[str, ...], right: str, wrong: str) -> None:
    assert [value(answer, gold, options) for gold in right] == [1.0] * len(right)
    assert [value(answer, gold, options) for gold in wrong] == [0.0] * len(wrong)


@pytest.mark.parametrize(
    "answer",
    [
        "B. Paris",
        "B, Rome",
        "B. The capital is Paris",
        "B. I mean Oslo",
        "B \u2014 but Oslo",
        "B. Since it lies north, it must be Oslo.",
        "B. No wait, Oslo",
        "B. Correction: Rome",
        "B. Rather Rome, Italy",
        "B, also Paris",
        "B: London and Paris",
        "B. London. Oslo is right.",
        "B. London, Oslo too",
        "B. London, England; but Rome, Italy is likelier",
        "B. It may be Oslo",
        "B. Let's go with Oslo",
    ],
)
def test_a_label_that_turns_to_another_option_contradicts_itself(answer: str) -> None:
    assert [value(answer, gold, CAPITALS) for gold in "ABCD"] == [0.0] * 4


@pytest.mark.parametrize(
    "answer",
    [
        "A. Actually, blue.",
        "A. red. Also blue.",
        "A. red; but blue is likelier",
        "A. red and blue",
        "A. red. Also dark red",
        "A: nope",
        "A: nah",
        "A, etc.",
        "A, among others",
        "A. Just kidding",
        "A, I take that back",
    ],
)
def test_a_label_taken_back_or_widened_is_not_named(answer: str) -> None:
    assert value(answer, "A", COLOURS) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold", "options"),
    [
        ("B. London, since Paris is in France", "B", CAPITALS),
        ("B. London lies north of Paris", "B", CAPITALS),
        ("B. The image shows London. Paris, Rome and Oslo have no such bridge.", "B", CAPITALS),
        ("B. Unlike Oslo, it is large", "B", CAPITALS),
        ("B. London, England. Oslo is wrong", "B", CAPITALS),
        ("B. Actually, London", "B", CAPITALS),
        ("A, because blue would need more light", "A", COLOURS),
        ("A. red, but not blue", "A", COLOURS),
    ],
)
def test_an_explanation_may_mention_another_option(answer: str, gold: str, options: tuple[str, ...]) -> None:
    assert value(answer, gold, options) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "B, not D",
        "B (not D)",
        "(B), not (D)",
        "B rather than D",
        "D is wrong, so B",
        "A and D are wrong, so B",
        "It can't be D, so B",
        "It isn't D, it's B",
        "D? No, B.",
        "Not D. Not A. B.",
        "B, neither A nor D",
        "It is zinc, not tin.",
        "zinc, not tin or lead",
        "tin? No, zinc.",
        "tin is wrong, so zinc",
    ],
)
def test_a_denied_option_is_no_rival(answer: str) -> None:
    assert value(answer) == 1.0
    assert value(answer, "D") == 0.0


@pytest.mark.parametrize(
    "answer",
    ["B, not B", "B, not only D", "D is not wrong, so B", "D is not the only one, B", "B or C, not D", "B? No."],
)
def test_a_denial_leaves_one_option_or_earns_nothing(answer: str) -> None:
    assert value(answer) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "Only B",
        "B only",
        "B alone",
        "Only zinc",
        "zinc (option B)",
        "zinc, which is B",
        "zinc, i.e. B",
        "so B",
        "I would say B",
    ],
)
def test_words_that_add_nothing_to_an_option_are_read_over(answer: str) -> None:
    assert value(answer) == 1.0


@pytest.mark.parametrize(
    "answer",
    ["- A\n- C", "- iron\n- lead", "* A) iron\n* C) lead", "\u2022 **iron**\n\u2022 **lead**", "1. iron\n2. lead"],
)
def test_options_may_stand_on_lines_with_bullets(answer: str) -> None:
    assert value(answer, "A, C") == 1.0
    assert value(answer, "A") == 0.0


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("$\\boxed{\\sqrt{19}}$", "A", 1.0),
        ("\\boxed{ \\sqrt{19} }", "A", 1.0),
        ("$\\boxed{\\text{(A) } \\sqrt{19}}$", "A", 1.0),
        ("\\(\\sqrt {19}\\)", "A", 1.0),
        ("\u221a{19}", "A", 1.0),
        ("The answer is $\\boxed{\\sqrt{19}}$.", "A", 1.0),
        ("\\boxed{\\sqrt{11}}", "A", 0.0),
        ("\\boxed{\\sqrt{1}9}", "A", 0.0),
        ("\\boxed{\\sqrt{19}} or \\boxed{5}", "A", 0.0),
        ("\\boxed{\\sqrt{19}}\\boxed{5}", "A", 0.0),
        ("2\\sqrt{19}", "A", 0.0),
        ("\\dfrac{\\sqrt7 - 1}{3}", "D", 1.0),
        ("(\u221a7-1)/3", "D", 1.0),
        ("\\sqrt{7}-\\frac{1}{3}", "D", 0.0),
        ("\\frac{\\sqrt{7}+1}{3}", "D", 0.0),
        ("$\\frac{\\pi}{4}+2$", "E", 1.0),
        ("\u03c0/4 + 2", "E", 1.0),
        ("\\frac{\\pi}{4+2}", "E", 0.0),
        ("\\( \\text{A} \\) \\sqrt{19}", "A", 1.0),
        ("\\( \\text{(B)} \\) 5", "B", 1.0),
        ("\\( \\text{A} \\) 5", "A", 0.0),
        ("\\( \\text{A} \\) 5", "B", 0.0),
    ],
)
def test_formulas_are_one_text_however_latex_sets_them(answer: str, gold: str, expected: float) -> None:
    assert value(answer, gold, ROOTS) == expected


@pytest.mark.parametrize(
    ("options", "right", "wrong"),
    [
        (("$2: 5$", "$1: 3$"), ["2:5", "\\boxed{2:5}", "2 : 5"], ["25", "2-5", "5:2"]),
        (("41J, 7N", "43J,7N"), ["41J,7N", "A (41J, 7N)", "**A (41 J, 7 N)**"], ["41J", "A (43J, 7N)"]),
        (("Y-linked trait (YL)", "none"), ["A Y-linked trait (YL)", "(A) y-linked trait (YL)"], ["B (YL)", "B"]),
        (AMPERES, ["A. \\( 3 \\pi \\times 10^{-2} \\, \\text{A} \\)", "A. It is 3 \\pi x 10^-2 A"], ["C or A"]),
        (("A=12'; B=7'", "A=12'; B=9'"), ["A. A=12';B=7'", "A=12';B=7'"], ["A. A=12';B=9'"]),
        (
            ("36\u00b0", "54\u00b0", "3.6\u00b0"),
            ["36", "36.0", "36 degrees", "A. 36", "36^\\circ"],
            ["36%", "3.6", "-36"],
        ),
        (
            ("4", "5", "45"),
            ["4.0", "4 cm", "The angle is equal to 4 degrees", "4\u00b0", "$4", "04"],
            ["4 or 5", "4x", "4\u03c0", "4th", "4 more", "0.4"],
        ),
        (("5 m", "5 cm", "9 m"), ["5 m", "5m"], ["5", "5 km"]),
        (("16 cm", "14 cm"), ["16 centimeters", "16 centimetres", "16 cm, not 14 cm"], ["16 metres", "14 centimeters"]),
        (("3 kg", "3 g"), ["3 kilograms", "A. 3 kilos"], ["3 grams", "3 pounds"]),
        (("5 km/h", "5 m/s"), ["5 kilometers per hour"], ["5 meters per second"]),
        (("16 cm^2", "16 cm"), ["16 square centimeters"], ["16 centimeters"]),
        (("15%", "20%"), ["15", "15 percent", "15 %"], ["0.15", "15\u00b0"]),
        (("$12.50", "$9"), ["12.5", "$12.5", "12.50"], ["\u20ac12.50"]),
    ],
)
def test_blanks_brackets_and_units_of_an_options_own_text_do_not_hide_it(
    options: tuple[str, ...], right: list[str], wrong: list[str]
) -> None:
    assert [(answer, value(answer, "A", options)) for answer in right] == [(answer, 1.0) for answer in right]
    assert [(answer, value(answer, "A", options)) for answer in wrong] == [(answer, 0.0) for answer in wrong]


@pytest.mark.parametrize(
    "answer",
    [
        "The nearest answer is B",
        "The correct option letter is B.",
        "The option (B) is correct.",
        "The answer (B) is the right one.",
        "B is correct",
        "B is the best choice.",
        "B would be the most suitable answer",
        "I choose B",
        "I'd go with (B).",
        "I believe it's B.",
        "Thus, B",
        "So it is B.",
        "Answer - B",
        "Ans. B",
        "[Answer] B",
        "- B",
        "- **Answer:** B",
        "\u2022 Answer: B",
        "* **Answer**: B",
        "> B",
        "### Answer\nB",
        "Among the options, B is correct.",
        "Zinc is used on roofs. The answer is B.",
        "This is no iron, so the correct option is (B) zinc.",
        "The roof is of metal; therefore B is the right one.",
        "(A) is wrong, so the answer is (B).",
        "The roof marked A shines. Answer: B",
        "The metal on the roof is zinc.",
        "The roof is made of $\\boxed{B}$.",
        "Water boils at 100 \u00b0C, so the answer is (B).\n\n\\boxed{B}",
        "B because it does not rust",
        "\u7b54\u6848\uff1aB",
        "\u56e0\u6b64\uff0c\u6b63\u786e\u7b54\u6848\u662f (B) zinc\u3002",
        "\u6240\u4ee5\u9009B\u3002",
        "\u56fe\u4e2d\u662f\u5c4b\u9876\uff0c\u6545\u9009B\u3002",
    ],
)
def test_politeness_and_declarations_around_one_option_are_read(answer: str) -> None:
    assert value(answer) == 1.0
    assert value(answer, "D") == 0.0


def test_yes_or_no_as_an_option_is_read_with_its_explanation() -> None:
    options = ("Yes", "No", "It cannot be told")
    answers = ("No, the left one is larger.", "Yes, both are round", "Yes and no", "No idea", "Yes, they are. B")
    assert [value(answer, "B", options) for answer in answers] == [1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "options",
    [
        ("one, two", "three (3)", "{four}", "<five>", "**six**"),
        ("!!!", "...", "???", "-"),
        ("A and B", "B or C", "none of A, B", "not A"),
        ("I'm late", "I cannot tell", "No", "B is wrong"),
        ("['x']", "['x', 'y']", "x", "y"),
        ("1", "1.0", "01", "-1"),
        ("The answer is 7", "7 is the answer", "it is 8", "\u7b54\u6848\u662f9"),
        ("\\frac{1}{3}", "\\frac{1}{3b}", "\\frac{1}{3}b", "$m^{2n}$", "$m^2n$"),
        ("A. cat", "B. dog"),
        ("yes", "no", "yes and no", "not yes"),
    ],
)
def test_an_option_written_as_itself_is_named(options: tuple[str, ...]) -> None:
    for label, option in zip(string.ascii_uppercase, options, strict=False):
        for answer in (label, f"({label})", option, f"{label}. {option}", f"({label}) {option}", f"{label}: {option}"):
            named = Choices(options, label).grade(answer)
            assert named.value == 1.0, (answer, named)


def test_an_option_that_is_a_list_or_a_number_is_judged_by_its_text() -> None:
    options: tuple[object, ...] = ("x", ["y", "z"], 3)
    answers = ("B", '["y", "z"]', "['y', 'z']", "y, z", "B. [y, z]", "z", "C", "3")
    with MixedReward(RewardConfig()) as rewards:
        results = rewards.score(
            [
                RewardRequest(
                    task="match_mcq",
                    question="",
                    response=f"<think>a</think><answer>{answer}</answer>",
                    answer="B",
                    options=options,  # type: ignore[arg-type]
                )
                for answer in answers
            ]
        )
    assert [result.task_reward for result in results] == [1.0] * 5 + [0.0] * 3


@pytest.mark.parametrize("options", [METALS, ROOTS, CITIES, ("B", "C", "A"), ("x. y", "y", "Y."), ("a", "A b", "b")])
def test_the_shortcut_for_common_spellings_reads_what_the_full_reading_does(options: tuple[str, ...]) -> None:
    generator = random.Random(7)
    pieces = ["A", "B", "b", "C", "i", "(", ")", ".", ":", " ", "**", "\n", *options, "or", "is"]
    choices, taken = Choices(options, "B"), 0
    answers = ["".join(generator.choices(pieces, k=generator.randint(1, 5))) for _ in range(4000)]
    answers += [form.format(label, text) for form in ("{}", "({}).", "{}. {}", "({}) {}", "{}: {}")
                for label in string.ascii_letters for text in options]  # fmt: skip
    for answer in answers:
        label = choices._shortcut(answer)
        if label is not None:
            taken += 1
            assert choices._read_fully(answer) == (frozenset(label), Reason.OK), answer
    assert taken > 50


def test_the_shortcut_for_yes_and_no_reads_what_the_full_reading_does() -> None:
    for word in ("yes", "No", "TRUE", "false", "\u662f", "\u4e0d\u662f", "maybe", "y", "", "no.", "Yes..", "."):
        assert read_yes_no(word) == _read_fully(word)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ('No, the sign reads "yes".', False),
        ("Yes, 'no entry' is written there", True),
        ("No, that isn't true.", False),
        ("Yes, it is not false", True),
        ("The grass is wet, so the answer is yes.", True),
        ("My answer: no, it is dry.", False),
        ("\u662f\u7684\uff0c\u6709\u4e00\u53ea\u72d7\u3002", True),
        ("\u7b54\u6848\u662f\u5426", False),
        ("No dogs are in sight", False),
        ("I would say yes", True),
        ("I think no", False),
        ("There is a bicycle, so yes.", True),
        ("There is no bicycle, therefore no.", False),
        ("So, yes.", True),
        ("I see a cat, which means yes", True),
        ("I'd have to say no", False),
        ("No, I don't think so", False),
        ("No, that is incorrect.", False),
        ("No, not really", False),
        ("Yes, the wrong sign is shown", True),
        ("Nope", False),
    ],
)
def test_yes_and_no_may_say_the_same_twice_or_in_a_sentence(answer: str, label: bool) -> None:
    assert read_yes_no(answer)[0] is label


@pytest.mark.parametrize(
    "answer",
    [
        "Yes, but no.",
        "Yes, it is not true.",
        "No, it is not false",
        "Yes or maybe not",
        "Yes and maybe",
        "Yes / unknown",
        "Yes, I guess not",
        "Yes is incorrect",
        '"No" is not the answer',
        "Yes: wrong",
        "No idea",
        "No answer can be given",
        "No image was provided",
        "I don't think the answer is yes",
        "The answer isn't no",
        "The answer is yes or no",
        "Is it yes?",
        "Maybe yes",
        "Yes. Or no.",
        "\u662f\uff0c\u4e0d\u662f",
        "Yes (wrong)",
        "Yes (false)",
        "Yes, this is a mistake",
        "Yes, though I doubt it",
        "yes, not really",
        "yes, just kidding",
        "Yes, that is incorrect",
        "Yes, this isn't right.",
        "Yes... I take that back",
        "yes, but I was wrong",
        "No, only joking",
        "Yes - nope",
        "I would not say yes",
        "I would say yes or no",
    ],
)
def test_yes_and_no_hedged_denied_or_refused_are_neither(answer: str) -> None:
    assert read_yes_no(answer)[0] is None


def graded_text(answer: str, gold: str, **settings: bool) -> float | None:
    request = RewardRequest(task="match_text", question="", response="", answer=gold)
    return MatchingReward(MatchingConfig(**settings)).grade(request, [answer])[0].value


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("it says stop", 1.0),
        ("It reads: STOP.", 1.0),
        ('The sign on the left says "stop"', 1.0),
        ("The word is stop", 1.0),
        ("I'd say stop", 1.0),
        ("It is red, so stop", 1.0),
        ("The sign never says stop", 0.0),
        ("No sign says stop", 0.0),
        ("It says stop or go", 0.0),
        ("Suppose it moves, the answer is stop", 0.0),
        ("If so, the answer is stop", 0.0),
        ("The opposite of the answer is stop", 0.0),
    ],
)
def test_a_text_may_be_quoted_in_a_sentence(answer: str, expected: float) -> None:
    assert graded_text(answer, "stop") == expected


def test_text_read_from_an_image_may_be_quoted_in_a_sentence() -> None:
    def read(answer: str, gold: str) -> float | None:
        request = RewardRequest(task="ocr", question="", response="", answer=gold)
        return ReadingReward(ReadingConfig()).grade(request, [answer])[0].value

    answers = ("it says stop", "The sign reads: stob", "no sign says stop")
    assert [read(answer, "stop") for answer in answers] == [1.0, 0.75, 0.0]
    assert read("it says stop", "It says STOP") == 1.0


def test_the_best_of_several_accepted_texts_counts() -> None:
    gold = '["sofa", "the couch", "2 seats"]'
    answers = (
        "sofa",
        "Couch.",
        "a couch",
        "2 seats",
        "It is red, so the answer is sofa.",
        "chair",
        "sofa or couch",
        gold,
    )
    assert [graded_text(answer, gold) for answer in answers] == [1.0] * 5 + [0.0] * 3


def test_vqa_accuracy_pays_by_agreement() -> None:
    gold = '["red", "red", "red", "red", "dark red", "pink", "pink", "rose", "ruby", "wine"]'
    values = [graded_text(answer, gold, vqa_accuracy=True) for answer in ("red", "pink", "wine", "blue")]
    assert values == pytest.approx([1.0, 0.6, 0.3, 0.0])
    assert vqa_accuracy(3, 10) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert (vqa_accuracy(1, 1), vqa_accuracy(0, 1)) == (1.0, 0.0)


@pytest.mark.parametrize("gold", ['["sofa", "!!!"]', "[]", '[["sofa"]]', '["sofa", null]'])
def test_an_accepted_text_that_is_none_is_a_failure(gold: str) -> None:
    with pytest.raises(GoldError):
        graded_text("sofa", gold)


def test_plain_sentences_behind_a_label_are_read_as_without_the_shortcut() -> None:
    # Words that the rules themselves are written with, so that each rule meets sentences of its own.
    sources = "".join(Path(module.__file__ or "").read_text(encoding="utf-8") for module in (denial, refusal, yes_no))
    words = sorted(set(re.findall(r"(?<![a-z\\])[a-z]+", sources)))
    assert len(words) > 400
    generator = random.Random(0)
    settled = 0
    for _ in range(30_000):
        label, mark, end = (generator.choice(texts) for texts in (("Yes", "No", "yes", "no"), ",.", ("", ".")))
        text = f"{label}{mark} {' '.join(generator.choices(words, k=generator.randint(1, 6)))}{end}"
        assert read_yes_no(text) == _read_fully(text), text
        settled += read_yes_no(text)[0] is not None
    assert settled > 5_000
