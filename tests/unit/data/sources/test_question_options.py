"""Options that questions list in their own text, and letters that are no options."""

import pytest

from orchestration.data.sources.question_options import options_asked, options_in


@pytest.mark.parametrize(
    ("question", "rest", "options"),
    [
        ("Angle CED is ()\nChoices:\nA:40°\nB:60°\nC:120°\nD:140°", "Angle CED is ()", "40°|60°|120°|140°"),
        ("Which? (A) cat (B) dog", "Which?", "cat|dog"),
        ("Which? Choices: (A) cat (B) dog", "Which?", "cat|dog"),
        ("Which?\nOptions:\nA) 7\nB) 8", "Which?", "7|8"),
        ("Which animal? A. cat B. dog C. cow D. pig", "Which animal?", "cat|dog|cow|pig"),
        ("Which? A. cat, B. dog, C. cow", "Which?", "cat|dog|cow"),
        ("Which?\nA. cat\nB. dog\nAnswer with the letter.", "Which?\nAnswer with the letter.", "cat|dog"),
        ("Which? A. cat B. dog C. cow. Answer by letter.", "Which?\nAnswer by letter.", "cat|dog|cow."),
        ("Which?\nA. cat\nB. dog\n\nThink first.", "Which?\nThink first.", "cat|dog"),
        ("How many?\nA. 1  B. 2\nC. 3  D. 4", "How many?", "1|2|3|4"),
        ("\u5219\u2220A\u4e3a( )A.40°B.60°C.70°D.80°", "\u5219\u2220A\u4e3a( )", "40°|60°|70°|80°"),
        ("Find x.\n**A.** 3\n**B.** 4", "Find x.", "3|4"),
        ("Find x.\n- A. 3\n- B. 4\n", "Find x.", "3|4"),
        ("Find x.\nA.$\\frac{1}{2}$\nB.$2$", "Find x.", "$\\frac{1}{2}$|$2$"),
        ("Which?\nOptions:\n(a) x\n(b) y", "Which?", "x|y"),
        ("Which?\nA. of two\nlines\nB. dog", "Which?", "of two lines|dog"),
        ("Options: A) 1 B) 2\nWhich is larger?", "Which is larger?", "1|2"),
        ("Hint: the letter, A, B, C or D.\nWhat is x?\nChoices:\n(A) 3\n(B) 4", None, "3|4"),
        ("Which is right?\nA. It is.\nB. It is not. Really.", "Which is right?", "It is.|It is not. Really."),
    ],
)
def test_lists_are_read_and_taken_out(question: str, rest: str | None, options: str) -> None:
    found = options_in(question)
    assert found is not None
    assert found[1] == tuple(options.split("|"))
    assert rest is None or found[0] == rest


@pytest.mark.parametrize(
    "question",
    [
        "A. Smith and B. Jones wrote it. Who is older?",
        "Did A. Smith or B. Jones write it?",
        "Who wrote it? A. Smith or B. Jones",
        "In the paper: A. Smith said X. B. Jones said Y. Who is right?",
        "In triangle ABC, point A: (1,2), B: (3,4), find AB.",
        "Coordinates:\nA: (1,2)\nB: (3,4)\nWhat is AB?",
        "Coordinates:\nA: (1,2)\nB: (3,4)\nFind AB.",
        "The vertices are A(1, 2), B(3, 4) and C(5, 6). Find the area.",
        "Two figures. (A) shows a cat. (B) shows a dog. Which is larger?",
        "Is it (A) a cat or (B) a dog?",
        "Given (A) 3x3 and (B) 2x2: rank?",
        "Answer (a) the area (b) the perimeter",
        "Points A, B, C lie on a line. A. B. C.",
        "How many?\nA. 1  C. 3\nB. 2  D. 4",
        "Which?\nA. cat\nB. dog\nD. pig",
        "Which?\nA. cat",
        "vitamins? A. vitamin B. B. vitamin C",
        "Who got a U.S.A. visa? A.B. Cook or B.A. Cook",
        "A. cat\nB. dog",
        "",
    ],
)
def test_letters_that_label_no_options_are_left_alone(question: str) -> None:
    assert options_in(question) is None


@pytest.mark.parametrize(
    ("answer", "is_asked"),
    [("A", True), ("(b)", True), ("B. dog", True), ("Dog", True), ("C", False), ("cow", False), ("", False)],
)
def test_a_list_counts_where_the_answer_is_one_of_it(answer: str, is_asked: bool) -> None:
    assert (options_asked("Which? (A) cat (B) dog", answer) is not None) == is_asked


def test_a_long_text_of_labels_takes_little_time() -> None:
    assert options_in("A. B. " * 4_000) is None
    assert options_in("(A) " * 8_000 + "?") is None
