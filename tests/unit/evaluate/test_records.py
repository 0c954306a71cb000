"""A row survives its line of JSON exactly, whatever the model wrote."""

import pickle
from dataclasses import replace

import pytest

from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample, is_passed
from tests.unit.evaluate.builders import completion, sample

HOSTILE = 'line\nbreak \u2028 \u0085 "quote" \\ <script> \ud800 \x00 \U0001f600'
FULL = sample(
    "s1",
    source_id="7",
    options=("a", HOSTILE),
    answer_type="number",
    metadata={"category": HOSTILE},
    image_sizes=((400, 300), (1, 1)),
    image_input_sizes=((28, 28), (28, 28)),
    coord_mode="norm1000",
    greedy=completion(0.1 + 0.2, text=HOSTILE),
    sampled=(completion(None, reason="grader_failed", parsed_answer=None), completion(1 / 3, truncated=True)),
)


@pytest.mark.parametrize("row", [FULL, sample("s2", greedy=None, failure="prompt too long")])
def test_a_row_survives_json_and_pickle_exactly(row: EvaluatedSample) -> None:
    line = row.to_json()

    assert len(line.splitlines()) == 1
    assert EvaluatedSample.from_json(line) == row
    assert pickle.loads(pickle.dumps(row)) == row


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        FULL.to_json().replace('"question"', '"prompt"'),
        FULL.to_json().replace('"num_tokens"', '"length"'),
    ],
)
def test_a_line_that_is_no_row_is_refused(line: str) -> None:
    with pytest.raises(DataError):
        EvaluatedSample.from_json(line)


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(DataError, match="'because'; use one of ok"):
        completion(reason="because")


def test_one_reward_without_the_other_is_refused() -> None:
    with pytest.raises(DataError, match="give both"):
        completion(1.0, reward=None)


def test_a_box_passes_at_half_and_a_caption_never() -> None:
    half = completion(0.5 - 1e-12)

    assert is_passed(half, "grounding") is True
    assert is_passed(half, "chart") is False
    assert is_passed(half, "open_ended") is None
    assert is_passed(completion(None, reason="bad_gold"), "chart") is None


def test_completions_without_a_reward_are_not_graded() -> None:
    assert FULL.graded() == (FULL.sampled[1],)
    assert replace(FULL, sampled=()).graded() == ()
