"""The kind of a reference, by its form and the words of its question."""

import pytest

from orchestration.data.sources.answers import chart_type, short_task


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("In which year was the share the highest?", "2015", "year"),
        ("When did the population peak?", "2015", "year"),
        ("What year has the lowest value?", "1799", "number"),
        ("What is the value in the year 2010?", "2015", "number"),
        ("How many people died in that year?", "1918", "number"),
        ("In 2010, what is the total?", "1950", "number"),
        ("What is the average over the years?", "1950", "number"),
        ("What is the share?", "45.5%", "number"),
        ("What is the revenue?", "$1.2 million", "number"),
        ("What is the revenue?", "-3", "number"),
        ("Which age group?", "18-29", "text"),
        ("Which colour?", "dark blue", "text"),
        ("Which two?", "[India, Brazil]", "list"),
        ("Which?", "", "text"),
        ("Which?", "9" * 300, "text"),
    ],
)
def test_the_kind_of_a_chart_answer_is_found(question: str, answer: str, kind: str) -> None:
    assert chart_type(question, answer) == kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (" Yes", ("match_yesno", "")),
        ("0", ("chart", "number")),
        ("no dogs", ("match_text", "")),
        ("", ("match_text", "")),
    ],
)
def test_a_short_answer_goes_to_the_reward_that_reads_it(answer: str, kind: tuple[str, str]) -> None:
    assert short_task(answer) == kind
