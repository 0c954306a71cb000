import hashlib

import pytest

from orchestration.data.rows import RejectReason
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import NormaliseConfig
from tests.unit.data.rows import IMAGE, MCQ, SHUFFLED, candidate, refusal


def test_a_candidate_carries_what_the_row_and_its_source_say() -> None:
    made = candidate(MCQ, metadata={"template": "t1"}, answer_type="letter")
    assert (made.source, made.source_id, made.role, made.license) == ("src/part", "7", "train", "CC0")
    assert (made.task, made.question, made.answer, made.options) == ("match_mcq", "Which?", "B", MCQ.options)
    assert made.images == (IMAGE,)
    assert made.metadata == {"template": "t1"}
    assert made.answer_type == ""


def test_the_sample_id_is_a_digest_of_source_id_and_question() -> None:
    expected = hashlib.blake2b(b"src/part|7|Which?", digest_size=20).hexdigest()
    assert candidate(MCQ).sample_id == expected
    assert len(expected) == 40
    assert candidate(MCQ, SHUFFLED, seed=9, answer="A").sample_id == expected
    assert candidate(MCQ, source_id="8").sample_id != expected


def test_drawn_rows_keep_the_id_that_they_have() -> None:
    made = candidate(MCQ, metadata={"sample_id": "abc", "k": "v"})
    assert made.sample_id == "abc"
    assert made.metadata == {"k": "v"}


def test_a_task_without_a_template_keeps_its_question() -> None:
    assert candidate(MCQ, question="  Which\r\none? \n").question == "Which\none?"


def test_a_template_places_question_and_options() -> None:
    config = NormaliseConfig(prompts={"match_mcq": "Look. {question}\n{options}\nGive the letter."})
    expected = "Look. Which?\nA. cat\nB. dog\nC. cow\nD. rat\nGive the letter."
    assert candidate(MCQ, config).question == expected
    assert candidate(MCQ, config).stem == "Which?"
    assert candidate(MCQ, config, task="match_text").question == "Which?"


def test_braces_in_a_question_or_an_option_are_text() -> None:
    config = NormaliseConfig(prompts={"match_mcq": "{question}|{options}|{other}"})
    made = candidate(MCQ, config, question="{options} {0} {question.x} %s", options=("{question}", "{"), answer="A")
    assert made.question == "{options} {0} {question.x} %s|A. {question}\nB. {|{other}"


def test_a_template_that_drops_the_question_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prompts\.chart .* must hold \{question\}"):
        NormaliseConfig(prompts={"chart": "How much?"})


@pytest.mark.parametrize("answer", ["yes", "Yes.", " TRUE ", "1", "1.", "1.0", "y", "Yes, it is"])
def test_many_words_are_yes(answer: str) -> None:
    assert candidate(MCQ, task="match_yesno", options=(), answer=answer).answer == "yes"


@pytest.mark.parametrize("answer", ["no", "No.", "False", "0", "0.0", "N", "No, it is not"])
def test_many_words_are_no(answer: str) -> None:
    assert candidate(MCQ, task="match_yesno", options=(), answer=answer).answer == "no"


@pytest.mark.parametrize("answer", ["maybe", "2", "yes and no", "10"])
def test_what_is_neither_yes_nor_no_is_refused(answer: str) -> None:
    error = refusal(MCQ, task="match_yesno", options=(), answer=answer)
    assert error.reason is RejectReason.REFERENCE_UNUSABLE


def test_numbers_and_texts_are_trimmed_and_kept() -> None:
    made = candidate(MCQ, task="chart", options=(), answer=" 1,200.50 \n", answer_type="number")
    assert (made.answer, made.answer_type) == ("1,200.50", "number")


@pytest.mark.parametrize("answer_type", ["float", "Number", "letter"])
def test_an_unknown_answer_type_of_a_chart_is_refused(answer_type: str) -> None:
    error = refusal(MCQ, task="chart", options=(), answer_type=answer_type)
    assert error.reason is RejectReason.REFERENCE_UNUSABLE
    assert answer_type in error.detail
