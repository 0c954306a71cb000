"""Options with labels of their own in their texts, and lists as other tools print them."""

import pytest

from orchestration.data.sources.option_lists import python_list, read_options, written_list


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["1. cat", "2. dog", "3. cow"], {"1": "A", "3": "C", "2. dog": "2. dog"}),
        (["0) cat", "1) dog"], {"0": "A", "1": "B"}),
        (["(1) cat", None, "(2) dog"], {"2": "B"}),
        (["B. dog", "A. cat"], {"A": "B", "B": "A", "A. cat": "B"}),
        (["A. cat", None, "C. cow"], {"A": "A", "C": "B"}),
        (["C) cow", "A) cat", "B) dog"], {"A": "B", "C": "A", "(b)": "C"}),
    ],
)
def test_labels_in_the_texts_of_options_name_them(options: list[str | None], named: dict[str, str]) -> None:
    read = read_options(options, "options")
    assert {answer: read.named(answer, by="label") for answer in named} == named


def test_letters_out_of_order_are_taken_off_and_others_stay() -> None:
    assert read_options(["B. dog", "A. cat"], "options").texts == ("dog", "cat")
    assert read_options(["A. cat", "", "C. cow"], "options").texts == ("cat", "cow")
    assert read_options(["1. cat", "2. dog"], "options").texts == ("1. cat", "2. dog")


@pytest.mark.parametrize(
    "options",
    [
        ["B.C.", "A.D."],  # no label: nothing stands between
        ["1.5", "2.5"],
        ["1: 2", "2: 1"],
        ["2. cat", "3. dog"],
        ["1. cat", "3. dog"],
        ["B. dog", "cat"],
        ["A. cat", "A. dog"],
        ["X. Smith", "Y. Jones"],
        ["A. cat", "B. dog"],  # in order: stage normalise takes them off
    ],
)
def test_what_is_no_label_stays(options: list[str]) -> None:
    read = read_options(options, "options")
    assert (read.texts, dict(read.labels)) == (tuple(options), {})


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['cat' 'dog' 'cow']", ["cat", "dog", "cow"]),
        ("['cat'\n 'dog' \"dog's\"]", ["cat", "dog", "dog's"]),
        ("['it is \\'a\\' b' 'c']", ["it is 'a' b", "c"]),
        ("['say \"a\" \"b\"', 'c']", ['say "a" "b"', "c"]),
        ("[['a' 'b'] ['c']]", None),
        ("['a' 'b", None),
    ],
)
def test_a_list_as_numpy_prints_it(text: str, items: list[str] | None) -> None:
    assert written_list(text) == items


def test_texts_beside_each_other_are_not_one_option() -> None:
    assert python_list("['cat' 'dog']", "options") == ("cat", "dog")
    assert read_options("['cat' 'dog']", "options").texts == ("cat", "dog")
