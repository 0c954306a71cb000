"""Declarations: what an answer says last, and the sentences that look like one and are none."""

import pytest

from rewards.text.declaration import declared, quoted
from rewards.text.plain_text import clean


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Paris lies on the Seine. The answer is C.", "C"),
        ("It is no mammal, so the correct option is (B) newt.", "(B) newt"),
        ("Red is tallest, therefore my choice would be: **D**", "**D**"),
        ("Red lies north, and the best answer to this question is A", "A"),
        ("The bar reaches the line, so I choose B.", "B"),
        ("The scale starts at 5.\nAnswer: 20", "20"),
        ("The answer is B. So the final answer is B.", "B"),
        ("The number of visitors in May 2016 was 1,200.", "1,200"),
        ("The country that sold the most is Brazil.", "Brazil"),
        ("5 + 15 = 20", "20"),
        ("It has four sides, so D.", "D"),
        ("The light is red. Hence, stop", "stop"),
        ("I would say D", "D"),
        ("It is red, so, the answer is D", "D"),
        ("It is so because it is red. The answer is D", "D"),
        ("In the provided chart the answer is D", "D"),
        ("The angle is opposite to AB, the answer is D", "D"),
        ("2 and 3 are odd, so 4 is the right answer", "4"),
        ("\u56fe\u4e2d\u662f\u72d7\uff0c\u7b54\u6848\u662f D\u3002", "D"),
        ("\u7531\u56fe\u53ef\u77e5\uff0c\u6545\u9009C\u3002", "C"),
    ],
)
def test_the_last_declaration_is_read(text: str, value: str) -> None:
    declaration = declared(clean(text))
    assert declaration is not None
    assert declaration.value.strip("*") == value.strip("*")


@pytest.mark.parametrize(
    "text",
    [
        "It shows a dog. The answer is A. The answer is B.",
        "I do not think that the answer is B",
        "I don't believe the answer is B",
        "Nobody knows whether the answer is B",
        "If it rains, the answer is B",
        "It is wrong to say that the answer is B",
        "Look at the axis: the wrong answer is B",
        "The least likely option is B",
        "Perhaps the answer is B",
        "It may be that the answer is B",
        "Either way, could it be that the answer is B?",
        "The answer is A or C. The answer is A",
        "Suppose it moves, the answer is B",
        "Assuming it moves, the answer is B",
        "Imagine it moves, the answer is B",
        "Provided it moves, the answer is B",
        "Provided that it moves, the answer is B",
        "Had it moved, the answer is B",
        "Were it red, the answer is B",
        "In case it moves, the answer is B",
        "If so, the answer is B",
        "If so the answer is B",
        "Should that be so, the answer is B",
        "Nobody says the answer is B",
        "Few would say the answer is B",
        "The opposite of the answer is B",
        "The reverse of the correct answer is B",
        "\u6240\u4ee5\u4e0d\u9009C",
        "A dog runs over the lawn",
        "The answer is",
        "",
    ],
)
def test_doubt_denial_and_rival_declarations_declare_nothing(text: str) -> None:
    assert declared(" ".join(text.split())) is None


def test_a_declaration_tells_what_stood_before_and_how_it_was_made() -> None:
    explicit, implicit = declared("In 2016 it rose, so the answer is 20"), declared("The total in 2016 is 20")
    assert explicit is not None
    assert implicit is not None
    assert (explicit.before, explicit.is_explicit) == ("In 2016 it rose, so the ", True)
    assert (implicit.before, implicit.is_explicit) == ("The total in 2016 ", False)


def test_what_something_says_is_quoted_from_the_start_of_a_text_alone() -> None:
    assert (quoted("The red sign says: go on"), quoted("it reads 7"), quoted("These letters spell Rome")) == (
        "go on",
        "7",
        "Rome",
    )
    assert (quoted("On the sign it says stop"), quoted("The dog's collar reads Rex")) == ("stop", "Rex")
    texts = (
        "The sign never says stop",
        "The sign hardly says stop",
        "The sign doesn't say stop",
        "Whether it says stop is unclear",
        "stop",
        "it says",
        "",
    )
    assert [quoted(text) for text in texts] == [None] * 7
