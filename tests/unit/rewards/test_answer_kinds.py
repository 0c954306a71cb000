"""Kinds of answers that were once misread, with neighbours of each: what is paid, and what only looks like it."""

from collections.abc import Iterator

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.proof import ReferenceProof

CITIES = ("Oslo", "Rome", "Paris", "Berlin")
LATEX = ("$10^\\circ$", "$15^\\circ$", "$20^\\circ$", "$25^\\circ$")
TRENDS = ("Increases", "Decreases", "No change")
DIGITS = ("0", "1", "2", "3")
FATE = ("Increase", "Decrease", "Same", "Cannot be determined")
ANIMALS = ("cat", "dog", "cow", "All of the above")
BOX = "[10, 10, 50, 50]"


@pytest.fixture(scope="module")
def rewards() -> Iterator[MixedReward]:
    with MixedReward(RewardConfig()) as mixed:
        yield mixed


def values(
    rewards: MixedReward, task: str, gold: str, answers: list[str], options: tuple[str, ...] = ()
) -> dict[str, float | None]:
    requests = [
        RewardRequest(
            task=task, question="", response=f"<think>a</think><answer>{answer}</answer>", answer=gold, options=options,
            image_sizes=((400, 300),),
        )
        for answer in answers
    ]  # fmt: skip
    return {answer: result.task_reward for answer, result in zip(answers, rewards.score(requests), strict=True)}


def check(
    rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str], options: tuple[str, ...] = ()
) -> None:
    expected = dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)
    assert values(rewards, task, gold, list(expected), options) == expected


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        # A refusal is no count of nothing, and neither is a denial that something lacks.
        ("0", ["no dogs", "None are visible.", "I don't see any dogs.", "No dogs are visible in the image",
            "none found",
               "There isn't a dog", "No, there are none", "no people on the beach", "no dogs can be seen",
               "nothing", "no"],
         ["There are no images", "no visual input", "no accurate number can be given", "no access to images",
          "There is no file", "no exact count", "no numeric answer", "no estimate", "no comment", "no context",
          "No objects can be determined", "No image provided", "no picture was attached", "no reliable estimate",
          "no definite figure can be given", "there is no visible image here", "no such number",
          "no visible content", "no image to analyze",
          "no question asked"]),
        ("0", ["no dogs or cats"],
         ["no shortage of dogs", "no lack of dogs", "no end of dogs", "no small number of dogs", "no dog is missing",
          "no dogs or maybe a few", "no scarcity of dogs", "no dog is hidden", "no dogs, but maybe one",
          "no limit to dogs", "no several dogs", "None, 3"]),
        # Digits and words are read by one reader.
        ("5", ["a total of five dogs are visible in the image", "five, not six", "5 dogs (3 brown, 2 black)",
            "5 out of 7",
               "I can count five distinct dogs in this photograph of a park."],
         ["5 or six", "5, maybe six", "5 to six", "five or 6", "5 (or six)", "5/six", "5, no, six", "5 and six",
          "5 then six", "5 vs six", "five; alternatively six", "either five or 6", "five less one", "5 or one"]),
        ("6", [], ["five or 6", "There are five or 6 dogs"]),
        ("3", ["There are three dogs in the picture: one black and two brown.", "3 dogs: 1 black, 2 brown",
               "three (one red, two blue)", "three or so"], ["3 dogs: 1 black, 1 brown", "three or four"]),
        # What denies, doubts or takes back a number.
        ("5", ["5 wrong answers"],
         ["5 is incorrect", "5? No.", "I doubt it is 5", "5 maybe", "5 wrong", "5? Nope.", "5 is not right",
             "perhaps 5",
          "5, possibly more", "It could be 5", "5. I take that back.", "5, or perhaps a few more"]),
    ],
)  # fmt: skip
def test_counts(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "counting", gold, right, wrong)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("45", ["the two bars total 45", "the left one is 45", "45 (forty-five)"],
         ["45 or fifty", "45, perhaps fifty", "45 vs. fifty", "45 less five", "45 times two", "forty or 45",
             "45 and fifty",
          "45 plus ten", "45 divided by two", "45, fifty"]),
        ("45", ["45 wrong answers"],
         ["45 is wrong", "45 is not right", "45 cannot be right", "I doubt it is 45", "45 incorrect", "45? no",
             "45 isn't correct",
             "maybe 45",
          "45. Wrong.", "45; scratch that", "45. Ignore that.", "45, maybe", "Is it 45?"]),
        # Numbers that say when, against what or out of how many.
        ("45", ["45 in 2015", "2015: 45", "45, not 50", "45, up from 30", "45 out of 100", "45 (2015)", "In 2015, 45",
                "45\n\nThe bar for Brazil reaches 45.", "45 instead of 50", "45 compared to 30 in 2014",
                "not 50 but 45",
                "45 per 100 people", "In May 2015 it was 45", "45, down from 60 in 2010"],
         ["45 in 2015 or 50 in 2016", "45, or 50 in 2016", "45 50", "not 45"]),
        ("0.45", ["0.45 (45%)", "45% (0.45)"], ["0.45 (50%)"]),
        # Minutes are no minimum.
        ("30 minutes", ["30 min", "30 mins", "30"], ["min 30", "30 minimum", "30 hours"]),
        ("30", ["30 min"], ["min 30", "min. 30", "30 max"]),
        ("30 min", ["30", "30 minutes", "0.5 hours"], ["30 s"]),
        # A scale may be the axis's, but kilograms are no millions and a year has no unit.
        ("20 kg", ["20", "20000 g"], ["20 million", "20k", "20 thousand"]),
        ("5 million", ["5", "5 million people"], ["5 km", "5 kg", "5 years", "5 meters"]),
        ("2015", ["2015", "in 2015"], ["2015 kg", "2015 km"]),
        # LaTeX is read as match_text reads it.
        ("CO_{2}", ["CO_2"], ["CO"]), ("x_{1}", ["x_1"], ["x"]), ("H_{2}O", ["H_2O"], ["HO"]),
        ("\\leq 5", ["<= 5", "\u2264 5"], [">= 5", "5"]),
    ],
)  # fmt: skip
def test_chart_numbers_and_texts(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "chart", gold, right, wrong)


@pytest.mark.parametrize(
    ("gold", "options", "right", "wrong"),
    [
        ("D", DIGITS, ["D. There are 3: 1 red and 2 blue", "D. There are 2 red and 1 blue.", "D. 1 + 2 = 3", "three",
                       "D. There are three"],
         ["D. There are two", "D. There are 2", "D: one", "D. There are 2 red and 2 blue", "D. I count two",
             "D. There is one"]),
        ("A", TRENDS, ["A. It increases", "It increases", "A. Increases, because the volume decreases"],
         ["A. It decreases", "A. The pressure decreases.", "A. Because it decreases", "A. It will decrease"]),
        ("A", ("left", "right"), ["A. It's on the left."],
         ["A. It's on the right.", "A, on the right", "A. The car is on the right side", "A: to the right"]),
        ("B", CITIES, ["B. Rome is south of Paris", "B. It lies south of Paris",
            "B, unlike Paris it has a Colosseum"],
         ["B. The picture was taken in Paris", "B. The city of Paris", "B. In Paris", "B. Could also be Paris",
          "B. However, the Eiffel Tower suggests Paris", "B. Otherwise Paris.", "B. I see Paris"]),
        ("B", CITIES, ["B (I'm fairly confident)", "Probably B", "Most likely B", "B, probably"],
         ["B. Hmm, no.", "B. Ignore that.", "B. Sorry, I meant the third.", "B. choose c", "B. the third option",
          "B. Never mind.", "B. Wait, no", "B. My mistake", "B. pick d", "Maybe B", "B. select d instead"]),
        ("B", CITIES, ["A, C, and D are incorrect, so the answer is B.", "Not A, C or D, so B", "C is not right; B",
                       "C does not fit. B", "None of A, C, D; B", "A, C and D can be ruled out, leaving B",
                       "B since A, C and D have no Colosseum", "B over C", "B, A and C are wrong",
                       "B - unlike options A and C, it shows the Colosseum."],
         ["A, B and C are incorrect", "A is incorrect, so B or C", "Not B, so C", "Not A, so B or C"]),
        ("B", ("3 m/s", "6 m/s", "9 m/s"), ["6", "6.0 m/s", "6 meters per second"], ["9", "6 km/h", "6 kg"]),
        ("B", ("5 g/cm^3", "6 g/cm^3"), ["6"], ["5"]), ("B", ("5 m^2", "6 m^2"), ["6", "6 square meters"], ["5"]),
        ("B", ("5 N/m", "6 N/m"), ["6"], ["5"]),
        ("D", ANIMALS, ["D, since A, B, and C are all correct", "D. Cat, dog, and cow all appear"],
         ["D. The cat", "D, but A is right"]),
        ("C", ("A only", "B only", "Both A and B", "Neither"), ["C, since A and B are both right"], []),
        ("D", FATE, ["It cannot be determined", "Can not be determined",
            "can't be determined"], ["It can be determined"]),
        ("A", ("Yes", "No"), ["Yes, no doubt", "Yes, no question"], ["Yes, there isn't", "Yes, no"]),
        # What a polite reply begins with, and a marker of the decoder at its end.
        ("B", CITIES, ["Sure! The answer is (B) Rome. It has a Colosseum.", "Okay, based on the image:\n\nB", "B.</s>",
                       "Based on the image, the answer to your question is (B).",
                       "The city is old, so the answer is B.</s>"],
         ["Sure! The answer is (C) Paris.", "Based on the image:\nB or C",
          "Based on the image, it is not B"]),
        ("B", CITIES, ["The photo on the left is taken in Rome.", "The picture depicts Rome.", "It is located in Rome"],
         ["The picture never depicts Rome.", "If the picture shows Rome", "It is located in Paris"]),
        ("A", ("Bernini", "Donatello"), ["The figure on the left is created by Bernini.", "It is carved by Bernini"],
         ["It was not created by Bernini", "The figure was copied from Donatello by Bernini"]),
        # LaTeX, fractions and words: the own text denied, another option's text with a reason, the longer of two texts.
        ("B", LATEX, ["B. $15^\\circ$ because the triangle is isosceles.", "B ($15^\\circ$)", "B. $x = 15^\\circ$",
          "15\u00ba",
                      "fifteen degrees", "B. It is not $20^\\circ$"],
         ["B. $15^\\circ$ is incorrect.", "B ($15^\\circ$) is wrong.",
          "B. $20^\\circ$ because the triangle is isosceles.",
          "B. So $x = 20^\\circ$.", "B. 20 degrees, because of the sum.", "B. $180^\\circ - 160^\\circ = 20^\\circ$"]),
        ("C", ("1/2", "1/3", "2/3", "3/4"), ["C. 4/6 = 2/3", "C. $\\frac{2}{3}$"],
         ["C. 2/6 = 1/3", "C. $\\frac{1}{3}$ because 2 of 6 are red.", "C. $\\frac{2}{3}$ is wrong."]),
        ("A", ("one", "two", "three"), ["1", "A. 1"], ["A. 2", "A. There are 2 dogs", "2"]),
        ("C", ("red", "green", "blue", "light blue"), ["C. The car is blue."], ["C. The car is light blue."]),
        ("B", ("Yes", "Not visible", "Unknown"), ["B. It is not visible."], ["B. It is visible.", "B. Visible"]),
        ("B", DIGITS, ["B. There is one dog."], ["B. There are no dogs.", "B. 1-2",
          "There are two dogs. The answer is B."]),
        # What stands before a declaration: a refusal, another option.
        ("B", CITIES, ["The image shows Rome. The answer is B.", "The Colosseum is visible.\n\n**B**",
          "The arena is old \u2192 B",
                       "There is no doubt that the answer is B.", "At first I thought A, but the answer is B."],
         ["I cannot see the image. The answer is B.", "No image was provided, so B.", "I don't know. The answer is B.",
          "Unclear. The answer is B.", "The image shows Paris. The answer is B.",
          "It was taken in Oslo, so the answer is B.",
          "Because the city is Paris, the answer is B."]),
        # What stands behind a label or a text.
        ("B", CITIES, ["B. A Roman arena is visible.", "B. We can rule out A.", "B without a doubt.",
          "B. It is none other than Rome.",
                       "Rome because of the Colosseum.", "Rome. The Colosseum is visible.", "Sure! B",
          "Answer choice B", "Final: B",
                       "I'm going with B.", "B as the Colosseum is visible.", '{"answer": "Rome"}', "B \u2713"],
         ["B. The image is blank.", "B. The city is unknown.", "B. I need the image to answer.", "B. idk",
          "B. Undetermined.",
          "B. It looks like Paris.", "B. Either Rome or Oslo", "B: \u2717", "~~B~~", "Rome. No, Paris.",
          "\u65e0\u6cd5\u786e\u5b9a, \u9009B", "\u4e0d\u5e94\u9009B", "\u9519\u8bef\u7b54\u6848\u662fB"]),
        ("A", ("left", "right", "top"), ["on the left", "Left side", "The ball is on the left."],
         ["A. It is right", "A. The answer is right.", "on the right"]),
        ("C", ("A", "B", "C", "D"), ["Figure C", "The missing figure is C."], ["C. Figure A",
          "C. The answer is figure D."]),
        ("C", ("decrease", "increase", "nothing", "none of the above"), ["(C) nothing"], ["(C) none of the above"]),
        ("B", ("Yes", "No"), ["B. No, not at all."], ["B. Yes, it is."]),
        # What an explanation sets aside, an arrow, a reason that is one, and what only sounds like another option.
        ("B", CITIES, ["The photographer is unknown. The answer is B.",
                       "The image is black and white. The answer is B.",
                       "B. No further information is needed.", "The value falls in April. The answer is B."],
         ["B. We cannot rule out A.", "B. Nothing excludes A.", "We can rule out B. The answer is B.", "A \u2192 B",
          "We can rule out\nB", "We exclude \\boxed{B}", "We can eliminate \u2192 B",
          "Rome, if the Colosseum is visible.", "Rome. It isn't.", "Nothing shows Rome.",
          "It is not clear, so the answer is B.", "I was not given an image. The answer is B."]),
        ("A", ("Increase", "Decrease", "Same"), ["The volume decreases. The answer is A."],
         ["The trend is decrease. The answer is A."]),
        ("C", LATEX, ["C. $20^\\circ$ because $\\angle A = 40^\\circ$."],
         ["The angle is 15 degrees \u2192 C", "The angle is $15^\\circ$.\n\nC"]),
        ("B", ("10", "12", "14"), ["12 \u2713"], ["12 \u2717", "B. 12 \u2717"]),
        ("A", ("left", "right"), ["A. That is the right answer."], ["A. It is right."]),
        # A unit on one side of a formula; two units are two options.
        ("B", ("160m", "160\u221a{3}m", "(160-160\u221a{3})m"), ["160\u221a{3}", "$160\\sqrt{3}$", "160\u221a3 m"],
         ["160", "160\u221a{3} cm", "160-160\u221a{3}"]),
        ("A", ("$\\frac{15}{4}$ cm", "$\\frac{15}{4}$ m", "4 m"), ["$\\frac{15}{4}$ cm"],
         ["$\\frac{15}{4}$", "15/4 km"]),
    ],
)  # fmt: skip
def test_choices(rewards: MixedReward, gold: str, options: tuple[str, ...], right: list[str], wrong: list[str]) -> None:
    check(rewards, "match_mcq", gold, right, wrong, options)


def test_yes_and_no(rewards: MixedReward) -> None:
    check(
        rewards, "match_yesno", "no",
        ["No photos are on the table.", "No picture is hanging on the wall", "No, incorrect.", "No, wrong",
            "No, is not",
         "No image of a dog is seen", "No data is missing", "The statement is false.", "This is not true.",
         "The dog is inside. No."],
        ["No image was provided", "No picture available", "No photo was attached", "No clear answer", "No, maybe"],
    )  # fmt: skip
    check(
        rewards, "match_yesno", "yes",
        ["The statement is true.", "There is a dog in the image. Yes.", "Yes; no doubt",
            "Yes, there is a no-smoking sign.",
         "Yes, no question about it"],
        ["Yes, there isn't", "Yes, it does not", "Yes, they aren't", "Yes, there are none", "Yes, it's not",
         "The statement is not true", "There is no dog. Yes or no"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        # A refusal behind a label is a refusal; what another cannot see, or what is not there, is an answer.
        ("no", ["No, I cannot see any dog", "No, there is no picture on the wall", "No, the man is not sure",
          "No, there is no table",
                "No, it is impossible for a dog to fly", "No, the sign is not readable",
          "No one is visible in the image"],
         ["No, I cannot see the image", "No, there is no image attached", "No: no image was provided.",
          "No, hard to tell",
          "No, I'm not able to see images.", "No. I cannot answer this question.", "No, it cannot be determined",
          "No, there is not enough information.", "No, I am not sure", "No, I do not know", "No one knows",
          "Nobody can tell",
          "No one can say for sure", "No, the photo was not attached", "No, the answer is unknown"]),
        ("yes", ["Yes, I cannot see any cars", "Yes, it is impossible to miss"],
         ["Yes, I cannot determine it.", "Yes, but I cannot see the image.", "Yes, but I am not sure",
          "Yes, but nobody knows",
          "Yes, but it is not certain", "Yes, the image was not provided"]),
        # A no in front of a noun is no second label; one that stands alone or behind a turn is.
        ("yes", ["Yes, the car has no roof.", "Yes, there are no clouds in the sky.", "Yes, no one is in the picture.",
                 "Yes, there is no dog other than the brown one.", "Yes, the sign says no parking", "Yes, it is No. 1.",
                 "Yes, the room is empty with no people."],
         ["Yes, no", "Yes, no it is not", "Yes, but no dog is there", "Yes. No dog? No.",
          "Yes, to some, no to others", "Yes... no."]),
        # Taken back behind a filler.
        ("yes", ["Yes, wait, it is", "Yes, actually it is"],
         ["Yes. Actually it is not.", "Yes. Wait, it is not.", "Yes. Sorry, it is not.", "Yes, hold on, it does not",
          "Yes, scrap that", "Yes, but there is none.", "Yes, I think there is none",
          "Yes, on closer look there is none."]),
        ("no", ["No, actually the car is blue", "No, wait, it is not", "No problem is visible"],
         ["No, wait, there is one", "No. Actually, there is a dog.", "no, sorry, it is", "No, oops, it is",
          "No, it does.",
          "No doubt", "No doubt, it is", "No mistake about it", "no wonder", "No problem", "No worries", "No contest"]),
        # A condition, a refusal or a denial around the declaration; what concedes something else takes nothing back.
        ("yes", ["Based on the image, yes.", "Probably yes.", "### Answer\nYes",
                 "Yes, but not in the foreground.", "That's correct.", "The sum is 5, so the statement is true."],
         ["Yes, if there is a dog.", "The answer is yes if there is a dog.",
          "I can't see the image. The answer is yes.",
          "It is unclear, so yes.", "The statement is false. The answer is yes.", "Yes 50%, no 50%", "Yes, it can't.",
          "\u274c Yes", "~~Yes~~", "Yes, I would need the image."]),
        ("no", ["No, no.", "Most likely no.", "No, the true value is 5.", "Based on the image, no."],
         ["No doubt there is a dog.", "Cannot be determined, so no.", "No, I am an AI.",
          "No, if the animal is a cat."]),
        ("yes", ["Yes. If you look closely, you can see a dog."],
         ["Yes, although the answer is no.", "Yes, but not in the image.", "Yes, supposing there is one.",
          "I doubt it. It is true.", "It is hardly true."]),
        ("no", ["No, if you look closely, there is none."], ["No, although yes.", "No, true enough."]),
        # Other words for yes and no.
        ("yes", ["Absolutely", "Definitely yes", "Certainly, yes.", "Sure, yes", "Of course", "Absolutely, it is."],
         ["Absolutely not", "Absolutely no", "Definitely maybe", "Not absolutely", "Definitely a dog"]),
        ("no", ["Absolutely not.", "Definitely not.", "Of course not.", "Not at all",
          "There is no dog in the image.", "It is not.",
                "\u6ca1\u6709", "\u4e0d\u662f\u7684"],
         ["There is no image", "There is no answer provided", "There is no way to tell", "There is no lack of dogs",
          "Not sure"]),
    ],
)  # fmt: skip
def test_words_behind_yes_and_no(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "match_yesno", gold, right, wrong)


NUMBERS = ("12", "15", "18", "20")
LENGTHS = ("3 cm", "4 cm", "5 cm", "6 cm")
CHANGES = ("increases", "decreases", "stays the same", "none of the above")
ORGANELLES = ("mitochondria", "chloroplast", "nucleus", "ribosome")


@pytest.mark.parametrize(
    ("gold", "options", "right", "wrong"),
    [
        # A calculation that ends in another option's number, and one that only begins with it.
        ("B", NUMBERS, ["B. 20 - 5 = 15", "B. You get 15", "B. It is divisible by 3 and 5", "B. Half of 30",
          "B. 3 more than 12",
                        "B. 18 is too large and 12 is too small.", "B. It is less than 18",
          "B. The result is 15, not 20"],
         ["B. 5 x 4 = 20", "B. 10 + 8 = 18", "B. n = 18", "B. This makes 18", "B. You get 12",
          "B. which leads to 18", "B. over 18",
          "B. for a total of 20", "B. Hence 18", "B. works out at 18", "B. 15 + 3 = 18", "B. eighteen",
          "B. More than 18"]),
        ("C", LENGTHS, ["C. AB = 5 cm", "C. x = 5"], ["C. AB = 4 cm", "C. Hence x = 6", "C. 5 m"]),
        ("A", ORGANELLES, ["A. It is not the nucleus"], ["A. The organelle is called the nucleus", "A. chloroplasts"]),
        # Brackets change nothing.
        ("B", CITIES, ["B (correct)", "B (Rome)", "B. Rome (not Paris)", "B (because of the Colosseum)"],
         ["B (wrong)", "**B** (incorrect)", "B (not correct)", "B (no)", "B (ruled out)", "B (maybe)", "B (unsure)",
          "B (I doubt it)",
          "B. Rome (wrong)", "B) Rome (maybe)", "B (not Rome)", "B [wrong]"]),
        # A denial of the option's own text denies the label.
        ("B", CITIES, ["B. It is not Paris but Rome", "B. There is no doubt this is Rome", "B. Nothing but Rome",
                       "B. Since the tower is not visible in Oslo, it must be Rome",
          "B. The Colosseum, which is not in Berlin, is in Rome"],
         ["B. It is not Rome", "B. This cannot be Rome", "B. The picture was not taken in Rome",
          "B. Anywhere but Rome", "B. Rome? No.",
          "B. I do not think it is Rome", "B. It was never taken in Rome", "B. Rome it is not"]),
        ("A", ("Yes", "No"), ["A. It is"], ["A. It is not", "A. Actually, it is not"]),
        ("A", ("True", "False"), ["A. The statement is true"], ["A. The statement is not true"]),
        ("B", CHANGES, ["B. It will not increase", "The pressure decreases", "B. It is not increasing but decreases"],
         ["B. It does not decrease", "B. It neither increases nor decreases", "B. none of the above",
          "It hardly decreases"]),
        # All, none and only.
        ("A", ("A and B", "B only", "A only", "none"), ["A. A and B"], ["A. A only", "A. B only"]),
        ("C", ("dog", "cat", "dog and cat", "neither"), ["C. Both"], ["C. Only a dog is visible", "C. Neither"]),
        ("B", CITIES, ["B. All other options are wrong"], ["B. None of the above", "B. Neither", "B. All of these",
          "B. Both"]),
        ("D", ("Oslo", "Rome", "Paris", "None of the above"), ["None of them", "None", "D. None of these"],
         ["D. All of the above", "All", "None of them but Rome"]),
        ("D", ANIMALS, ["All of them"], ["None", "D. Neither", "All but the cat"]),
        # A label and a refusal; an option may say so itself.
        ("B", CITIES, ["B. You can see the Colosseum"],
         ["B. Sorry, I cannot see the image", "B. No image provided", "B. The image is not visible", "B. No idea",
          "B. Hard to say",
          "B. There is no way to know", "B. It could be anything", "B, provided it is Italy"]),
        ("D", FATE, ["D. There is no way to know",
          "It cannot be determined from the image."], ["D. It can be determined"]),
        # A rejecting word declares nothing.
        ("B", CITIES, ["The best option is B", "All the other options are wrong, so B."],
         ["The worst option is B", "The option to exclude is B", "The answer to avoid is B", "The option I reject is B",
          "The answer, perhaps, is B", "All options are wrong, so B", "The other options are right, so B"]),
        # More ways of naming one option.
        ("B", CITIES, ["The correct letter is B.",
          "Option B is the correct answer because the Colosseum is in Rome.", "That's B",
                       "Of the four, only B fits.", "It has to be B", "B for sure",
          "A (wrong), B (right), C (wrong), D (wrong)",
                       "The city shown is Rome, which is option B.", "The photo was taken in Rome.",
          "B\u9009\u9879\u6b63\u786e",
                       "B\u6b63\u786e", "Option B is the one with the arches"],
         ["A (right), B (right)", "B is right of the car", "That's not B", "The photo was not taken in Rome",
          "B\u4e0d\u6b63\u786e",
          "The photo was taken near Rome", "The photo might be taken in Rome", "The photo was taken in Rome or Oslo"]),
        ("B", NUMBERS, ["20 - 5 = 15", "So, n=15", "There are fifteen dogs in the image.", "15 (5 x 3)"],
         ["20 = 15", "There are no 15 dogs", "There are 15 missing", "15 (20)", "There might be 15"]),
    ],
)  # fmt: skip
def test_words_behind_a_label(
    rewards: MixedReward, gold: str, options: tuple[str, ...], right: list[str], wrong: list[str]
) -> None:
    check(rewards, "match_mcq", gold, right, wrong, options)


def test_a_sentence_about_what_a_sign_should_say_quotes_none(rewards: MixedReward) -> None:
    wrong = [
        "The sign should say stop",
        "The sign must say stop",
        "The sign would say stop",
        "The sign used to say stop",
    ]
    check(rewards, "match_text", "stop", ["The sign says stop"], wrong)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("15^\\circ\\text{C}", ["15\u00b0C", "15 \u00b0C", "15\u2103", "15 degrees Celsius", "15", "15^{\\circ}C"],
         ["15\u00b0F", "15 kg"]),
        ("15^{\\circ}C", ["15^\\circ\\text{C}", "15"], ["16"]),
        ("3", ["3 triangles"], ["3 halves", "3 fifths", "3 quarters", "3 tens", "3 crore", "3 eighths",
            "3 twentieths"]),
        ("5", ["5 roots", "5 squares"],
         ["5 squared", "5 cubed", "5 factorial", "5 doubled", "5 thirds", "5 pairs", "5 tripled", "5 plus", "5 lakh",
          "5 modulo", "5 hundredths", "5 half"]),
        ("5", ["5 people"], ["5 wrong", "5 incorrect", "5 false", "5 maybe", "5 perhaps", "5 untrue"]),
        ("3/2", ["3 halves"], []), ("9", ["3 squared"], []), ("120", ["5 factorial"], []), ("0.5", ["5 tenths"], []),
        ("5", ["Therefore, x = 5", "Thus, x = 5", "so, x=5.", "We get x = 5"], ["Therefore, x = 6"]),
        ("y=-\\frac{1}{2}x+3", ["y=-1/2x+3", "y = -1/2 x + 3", "y=-x/2+3"], ["y=1/2x+3"]),
        ("\\frac{2}{3}x", ["2/3x", "2/3 x"], ["3/2x"]),
        ("0.\\overline{3}", ["0.333...", "0.3333\u2026", "1/3"], ["0.333333", "0.3"]), ("1/6", ["0.1666..."], []),
        ("3+4i", ["3+4*i", "3 + 4 i", "3 + 4\\cdot i"], ["3-4i"]), ("3 \u03a9", ["3\\,\\Omega", "3 ohms"], ["3 V"]),
        ("9.8 m/s^2", ["9.8 meters per second squared"], ["9.8 meters per second"]),
        ("12:30", ["12:30 PM", "12:30 p.m."], ["0.4", "12:31"]), ("12:30 PM", ["12:30"], ["12:30 AM"]),
        ("12:00", ["12:00"], ["37:00", "5:0"]), ("2:3", ["10:15", "4:6"], ["12:30", "0:0"]),
        ("30${}^\\circ $", ["30", "30\u00b0"], ["31"]), ("$$105^{ \\circ }$$", ["105"], ["106"]),
        ("${{8}^{\\circ }}$", ["8"], ["9"]), ("$$108\\mathrm \\pi$$", ["108\\pi", "108pi"], ["108"]),
        ("$$\\left ( 3,7\\right ) $$", ["(3,7)", "(3, 7)"], ["(7,3)", "37"]),
        ("$$ \\left ( \\dfrac{9}{4} , \\dfrac{9}{4} \\right ) $$", ["(9/4,9/4)", "(2.25, 2.25)"], ["9/4"]),
        ("-5", ["minus 5", "negative 5"], ["5"]),
        ("36 cm\u00b2", ["36 cm2"], ["36 cm3"]), ("20 \\mu\\mathrm{m}", ["20 \u03bcm"], ["20 mm"]),
    ],
)  # fmt: skip
def test_formulas(rewards: MixedReward, gold: str, right: list[str], wrong: list[str]) -> None:
    check(rewards, "math", gold, right, wrong)


def test_boxes_and_points(rewards: MixedReward) -> None:
    denied = [
        "not {0}",
        "It is not at {0}",
        "I doubt it is {0}",
        "{0} is wrong",
        "{0}? No.",
        "maybe {0}",
        "{0}. Ignore that.",
    ]
    check(
        rewards, "iou", BOX,
        ["10, 10, 50, 50", "(10, 10) to (50, 50)", "top-left (10, 10), bottom-right (50, 50)",
         "x1=10, y1=10, x2=50, y2=50", "(10,10) and (50,50)", "[10,10,50,50], not [100,100,200,200]"],
        [text.format(BOX) for text in denied],
    )  # fmt: skip
    check(
        rewards, "iou", "[]",
        ["No objects detected.", "There are no dogs", "No dogs are visible in the image", "none"],
        ["no idea", "No image provided", "no lack of dogs", "no answer"],
    )  # fmt: skip
    check(
        rewards, "pointing", BOX,
        ["\uff0830, 30\uff09", "{'x': 30, 'y': 30}", '<point x="30" y="30">dog</point>', "x=30, y=30",
            "X: 30, Y: 30"],
        [text.format("(30, 30)") for text in denied],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "gold", "right", "wrong"),
    [
        ("match_text", "stop",
         ["The word on the sign is STOP.", "They say stop", "The signs read stop", "The sign says 'stop'"],
         ["The sign fails to say stop", "refuses to say stop", "The sign was supposed to say stop",
          "The sign does everything but say stop", "It wrongly says stop", "The sign seldom says stop",
          "The opposite is stop", "The sign is not stop", "No sign is stop", "The word stop is wrong",
          "The wrong word is stop", "It almost says stop"]),
        ("match_text", "10:10", ["The time is 10:10."], ["The time is not 10:10.", "The time was 10:11"]),
        ("chart", "Brazil", ["The country with the highest value is Brazil.", "It is Brazil"],
         ["The country with the highest value is not Brazil.", "The opposite of it is Brazil"]),
        ("chart", '["Brazil", "India"]', ["Both Brazil and India", "The countries are Brazil and India."], ["Brazil"]),
        ("ocr", "STOP", ['The text in the image is "STOP".', "Text: STOP", "The text reads STOP"], ["No sign is seen"]),
        ("ocr", "SALE 50% OFF", ['The text on the sign is "SALE 50% OFF".'], ["The text: unreadable"]),
        ("ocr", "\u4f60\u597d", ["\u56fe\u4e2d\u7684\u6587\u5b57\u662f\u201c\u4f60\u597d\u201d"], ["\u4e0d\u662f"]),
    ],
)  # fmt: skip
def test_what_a_sentence_says_that_something_says_or_is(
    rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str]
) -> None:
    check(rewards, task, gold, right, wrong)


def test_words_around_boxes_and_points_that_deny_them_and_other_ways_to_write_them(rewards: MixedReward) -> None:
    check(
        rewards, "iou", BOX,
        ["<bbox>10 10 50 50</bbox>", "\u301010, 10, 50, 50\u3011", '{"x": 10, "y": 10, "width": 40, "height": 40}',
         "There is no cat, but the dog is at [10, 10, 50, 50]", "No problem! The box is [10,10,50,50]",
         "The dog (not the cat): [10, 10, 50, 50]"],
        ["anything but [10,10,50,50]", "other than [10,10,50,50]", "excluding [10,10,50,50]", "wrong: [10,10,50,50]",
         "There is no dog in [10,10,50,50]", "[10,10,50,50] is empty", "[10,10,50,50] contains no dog",
         "outside of [10,10,50,50]", '{"x": 10, "y": 10, "width": 50, "height": "a"}'],
    )  # fmt: skip
    check(
        rewards, "iou", "[[10, 10, 50, 50], [100, 100, 200, 200]]", ["10,10,50,50\n100,100,200,200"],
        ["10,10,50,50\nand nothing else"],
    )  # fmt: skip
    check(
        rewards, "iou", "[]",
        ["The object is not present in the image.", "Not found", "\u6ca1\u6709", "The red dog cannot be found"],
        ["The object is present in the image", "in the image", "found", "visible"],
    )  # fmt: skip
    check(
        rewards, "pointing", BOX, ["<point>30 30</point>", "[30 30]", "\u301030, 30\u3011"],
        ["no dog at (30,30)", "except (30,30)", "Avoid (30, 30)", "wrong: (30,30)"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "gold"),
    [
        ("math", "\\vec{a}+\\vec{b}"), ("math", "\\overline{AB}"), ("math", "0.\\overline{3}"), ("math",
            "\\binom{5}{2}"),
        ("math", "\\mathbb{R}"), ("math", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"), ("math", "y=-\\frac{1}{2}x+3"),
        ("math", "30${}^\\circ $"), ("math", "$$105^{ \\circ }$$"), ("math", "${{8}^{\\circ }}$"),
        ("math", "15^\\circ\\text{C}"), ("ocr", "E=mc^{2}"), ("ocr", "\\int_{0}^{1}"), ("chart", "CO_{2}"),
        ("chart", "\\leq 5"), ("iou", "[0, 0, 1, 1]"),
    ],
)  # fmt: skip
def test_a_reference_that_can_be_earned_is_not_refused(task: str, gold: str) -> None:
    with ReferenceProof(RewardConfig()) as proof:
        request = RewardRequest(task=task, question="", response="", answer=gold, image_sizes=((400, 300),))
        assert proof.fault(request) is None


def test_a_box_in_parts_of_the_image_is_no_reference_in_pixels(rewards: MixedReward) -> None:
    assert values(rewards, "iou", "[0.1, 0.1, 0.5, 0.5]", ["[0.1, 0.1, 0.5, 0.5]"]) == {"[0.1, 0.1, 0.5, 0.5]": None}


@pytest.mark.parametrize(
    ("task", "gold", "right", "wrong"),
    [
        # A unit is compared with its power, and two words may be one unit.
        ("math", "36 m^2", ["36 m²", "36 square meters", "36平方米", "360000 cm^2", "36"],
         ["36 m", "36米", "36 m³", "36 cubic meters", "36立方米", "36 meters"]),
        ("math", "8 cm", ["80 mm", "8厘米", "8 centimeters"], ["800 cm²", "8 cm^3", "8 square centimeters", "8 s"]),
        ("math", "5 s", ["5 seconds", "5000 ms"], ["5 s^{-1}", "5 s^2"]),
        ("math", "50 kilowatt hours", ["50 kWh", "50 kilowatt-hours", "0.05 MWh",
                                               "50000 Wh"], ["50 hours", "50 kilowatts"]),
        ("math", "8 light years", ["8 light years"], ["8 years"]),
        ("math", "5 miles", ["5 miles", "5 mi"], ["5 nautical miles", "5 square miles"]),
        ("math", "12", ["12 possible outcomes", "12 apples", "12本书", "12岁"], ["12个以上", "12倍"]),
        ("math", "51°19'", ["51°19'", r"51^{\circ}19^{\prime}"], ["70", "19°51'", "51+19", "51°"]),
        ("math", "115°30'", ["115.5°", "115.5"], ["145°", "115.3°"]),
        ("math", "5", ["x=5"], ["|x|=5"]),
        ("chart", "36 m²", ["36 m2", "36 square metres", "36平方米"], ["36 m", "36 meters", "36 m³"]),
        ("chart", "5 GW", ["5 GW", "5000 MW", "5"], ["5 MW", "5 kW", "5 GWh"]),
        ("chart", "300 ppm", ["300 ppm", "300ppm"], ["300 ppb"]),
        ("chart", "$45", ["45美元", "45 dollars"], ["45人民币", "45元"]),
        ("chart", "45%", ["45%", "45"], ["45 permille"]),
        # What stands right behind a number is a unit or a thing, not another number and no bound, in any script.
        ("chart", "45", ["45%左右", "45万", "45千米", "45km2", "45people", "45名学生", "45 per 1,000", "45 美元"],
         ["45或54", "45到54", "45or54", "45to54", "45以上", "45 以下", "45倍", "45升至60", "45减5", "45или54",
          "log10 of 45", "45 short of target", "45-odd", "45 and change", "45 gross", "45 per 2"]),
        ("counting", "4", ["4个苹果", "4 只狗", "4人", "图中有4辆汽车"],
         ["4个以上", "4或5", "4or5", "4千", "4双", "4打", "4分之1", "4个半", "4成", "4 in each row", "4 on each side",
          "4 each side", "4 couples", "4 visible, possibly more"]),
    ],
)  # fmt: skip
def test_units_and_what_follows_a_number(
    rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str]
) -> None:
    check(rewards, task, gold, right, wrong)


@pytest.mark.parametrize(
    ("task", "gold", "right", "wrong"),
    [
        # Markdown and colours around any part of a formula.
        ("math", "5", ["**Answer:** 5", "**Final Answer**: 5", "Area: **5**", "x = **5**", "**5** cm", "### Answer\n5",
                       r"\boxed 5", r"\underline{5}", r"\textcolor{red}{5}", r"{\bf 5}", "<b>5</b>", "5 ✓"],
         ["**5** or **6**", "5**2", "2**3+4**5", "5 ✗", "**Answer:** 6"]),
        # Chinese sentences and numerals.
        ("math", "12", ["答\uff1a12", "解\uff1ax=12", "面积为12", "面积是12平方厘米", "一共12个", "十二", "十二个",
                        "所以x=12"],
         ["面积不是12", "至少12种", "十二或十三", "一二"]),
        ("chart", "45", ["约45", "数值为45", "总共45", "2016年的数量是45", "2016年\uff1a45", "四十五", "百分之四十五",
                          "百分之45"],
         ["可能是45", "至少有45", "最多为45", "一半是45", "四五", "第四十五", "如果是45", "四十五以上",
          "从30增长到45", "另有45"]),
        ("chart", "3万", ["三万", "30000"], ["四万", "五"]),
        ("counting", "4", ["图中共有四个人", "四只狗", "- 4 dogs"], ["四五只", "有四只狗和三只猫", "没有", "-4"]),
        # Fractions and numbers in words.
        ("chart", "0.75", ["three quarters", "three-fourths"], ["third quarter", "quarter", "a third"]),
        ("chart", "0.5 million", ["half a million"], ["a quarter of a million"]),
        ("chart", "0", ["none", "nil"], ["no idea"]),
        ("math", "1/2", ["half", "one half"], ["one third"]),
        ("math", "2.5", ["two and a half", "2 and 1/2"], ["half", "two or a half"]),
        ("math", "-2/3", ["minus two thirds"], ["two thirds"]),
        ("math", r"9\pi", ["nine pi", "9 times pi"], ["nine", "not nine pi"]),
        ("math", r"\frac{\pi}{6}", ["1/6 pi", "pi over 6"], ["6 over pi"]),
        ("math", "2-√3", ["2 minus √3"], ["2 plus √3"]),
        # The year that is asked for, beside the number of that year.
        ("chart", "2016", ["FY2016", "2016 (20 deals)", "It peaked in 2016 at 45.",
                            "The highest was in 2016 with 20 deals."],
         ["In 2015, with 2016 deals", "not in 2016", "2016 or 2017"]),
    ],
)  # fmt: skip
def test_markdown_chinese_and_numbers_in_words(
    rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str]
) -> None:
    check(rewards, task, gold, right, wrong)


@pytest.mark.parametrize(
    ("task", "gold", "right", "wrong"),
    [
        # Words that describe what is pointed at do not point away from it.
        ("iou", BOX, [f"The dog without a collar is at {BOX}.", f"The man not wearing a hat: {BOX}",
                      f"dog with no tail {BOX}",
                      f"The car that is not red is at {BOX}", f"The object is not occluded: {BOX}",
                      f"the person outside the car {BOX}"],
         [f"The dog is not at {BOX}", f"There is no dog at {BOX}", f"There is nothing at {BOX}",
          f"outside the box {BOX}",
          f"The dog is not sitting at {BOX}", f"everything without the {BOX}"]),
        # More ways to write boxes and points.
        ("iou", BOX, ["x=10, y=10, w=40, h=40", '{"x_min": 10, "y_min": 10, "width": 40, "height": 40}',
                      '{"topLeft": [10, 10], "bottomRight": [50, 50]}', '{"bbox_2d": "[10, 10, 50, 50]"}',
                      '{"top_left": {"x": 10, "y": 10}, "bottom_right": {"x": 50, "y": 50}}', "dog: 10, 10, 50, 50",
                      "x1, y1, x2, y2 = 10, 10, 50, 50", "- x1: 10\n- y1: 10\n- x2: 50\n- y2: 50"],
         ['{"bbox_2d": "banana"}', "x=10, y=10, w=0, h=40", "dog: 10, 10, 50"]),
        ("iou", "[]", ["The object does not exist in the image.", "图中没有狗", "未检测到", r"\boxed{[]}"],
         ["The dog does not bark", "无法确定"]),
        ("pointing", BOX, ['[{"point_2d": ["30", "30"]}]', "(30px, 30px)", "<coordinate>30, 30</coordinate>",
                           "click(point='<point>30 30</point>')", "The dog without a collar: (30, 30)"],
         ['[{"point_2d": ["30", "dog"]}]', "avoid (30, 30)"]),
        ("chart", "16 square kilometers", ["16", "16 km²", "16 sq km"], ["16 km", "16 square miles"]),
        # Intervals, sets and infinity in other words.
        ("math", "[0,2)", ["x∈[0,2)", r"2 > x \ge 0", r"\{x : 0 \le x < 2\}", "x>=0 and x<2", r"0 \leq x \lt 2"],
         ["2 > x > 0", "x>0 and x<2", "x>=0 or x<2", r"2 \ge x"]),
        ("math", r"(-1,1) \cup (2,\infty)", ["-1 < x < 1 or x > 2", "(-1,1) U (2,∞)"],
         ["-1 < x < 1 and x > 2", "-1 < x < 1"]),
        ("math", r"(-\infty,3]", [r"3 \ge x"], [r"3 \le x", "3 > x"]),
        ("math", r"\{1,2\}", ["x = 1 or 2", "x_1 = 1, x_2 = 2"], ["1 or 2", "x = 1", "x_1 = 2, x_2 = 3"]),
        ("math", r"\emptyset", ["∅", r"\varnothing", "no solution", "the empty set"], ["0", "no idea"]),
        ("math", r"\mathbb{R}", ["all real numbers", r"\mathbb R"], ["all numbers", "R"]),
        ("math", r"-\infty", ["negative infinity", "负无穷"], ["infinity", "positive infinity"]),
        # Other spellings, reasons behind a value.
        ("math", r"30^{\circ}", ["30º", "30˚", r"30{}^\circ"], ["300"]),
        ("math", "12 cm", ["12-cm", "12 cms", "12 (cm)"], ["12-x", "12-m", "12 (a)"]),
        ("math", "5", ["We get 5", "It equals 5.", "5 (by Pythagoras)", r"\therefore x=5"],
         ["5 (or 6)", "5, because not 6", "5 (from 6)", "We get 6"]),
        ("math", r"2400\pi", ["2,400π"], ["2,4π"]),
        ("math", r"\sqrt[3]{2}", ["³√2", r"\root 3 \of 2"], ["3√2", "√2"]),
        ("math", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", [r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"],
         [r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"]),
    ],
)  # fmt: skip
def test_boxes_points_intervals_and_spellings(
    rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str]
) -> None:
    check(rewards, task, gold, right, wrong)


@pytest.mark.parametrize(
    ("task", "gold", "right", "wrong"),
    [
        ("chart", "20", ["Between 2014 and 2016, the number increased by 20.", "The 5th bar shows 20.",
                         "2016 had 20 deals",
                         "Looking at the chart, the 2016 bar reaches 20.", "Adding 12 and 8 gives 20.",
                         "There were 20 deals in 2016 (15 in 2015).", "20% of adults aged 65+ use it.",
                         "50 - 30 = 20, so the answer is 20."],
         ["50 - 30 = 25, so the answer is 20.", "The answer is 30, so the answer is 20",
          "Adding 12 and 8 gives 20 or 21",
          "It is between 2014 and 2016, or 20", "the 2016 bar or 20", "There were 15 deals in 2016 (20 in 2015)."]),
        ("counting", "4", ["Among the 6 balls, 4 are red.", "There are 4 dogs in the image and 0 cats."],
         ["Among the 4 balls, 3 are red.", "4 dogs and 2 cats"]),
        ("ocr", "STOP", ['The image contains the text "STOP".', 'The word "STOP" is written on the sign.',
                         'The sign says "STOP" in white letters.'], []),
    ],
)  # fmt: skip
def test_sentences_with_another_number_or_a_quotation(
    rewards: MixedReward, task: str, gold: str, right: list[str], wrong: list[str]
) -> None:
    check(rewards, task, gold, right, wrong)


@pytest.mark.parametrize(
    "answer",
    ['The word "STOP" is not written on the sign', 'The sign should say "STOP"', 'No sign says "STOP" in white.',
     'The word "STOP" is on the sign and "GO"'],
)  # fmt: skip
def test_a_sentence_that_denies_or_adds_to_a_quotation_does_not_give_it(rewards: MixedReward, answer: str) -> None:
    reward = values(rewards, "ocr", "STOP", [answer])[answer]
    assert reward is not None
    assert reward < 0.5
