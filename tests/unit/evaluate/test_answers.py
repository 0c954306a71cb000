"""A row survives its line of JSON exactly, whatever the model wrote; passes are counted without bias."""

import pickle
from dataclasses import replace
from itertools import combinations
from math import comb

import pytest

from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample, is_passed, pass_at_k
from tests.unit.evaluate.builders import completion, sample

HOSTILE = 'line\nbreak \u2028 \u0085 "quote" \\ <script> \ud800 \x00 \U0001f600'
FULL = sample(
    "s1",
    source_id="7",
    options=("a", HOSTILE),
    answer_type="number",
    history=(("user", HOSTILE), ("assistant", "He.")),
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


def test_a_line_names_neither_parts_nor_counts_where_there_are_none() -> None:
    assert '"parts"' not in FULL.to_json()
    assert '"counts"' not in FULL.to_json()
    whole = replace(FULL, greedy=completion(parts={"chart": 1.0}), counts={"judge/wise/num_requests": 2.0})
    assert EvaluatedSample.from_json(whole.to_json()) == whole


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


def test_a_function_of_ones_own_passes_with_the_full_reward_and_a_sum_never() -> None:
    assert [is_passed(completion(value), "mine") for value in (1.0 - 1e-12, 0.9)] == [True, False]
    assert is_passed(completion(1.0), "chart+mine") is None


def test_completions_without_a_reward_are_not_graded() -> None:
    assert FULL.graded() == (FULL.sampled[1],)
    assert replace(FULL, sampled=()).graded() == ()


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 2), (10, 3, 5), (8, 0, 1), (8, 8, 8), (200, 7, 100), (5, 4, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, c: int, k: int) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_pass_at_k_agrees_with_counting_every_subset() -> None:
    passed = [True, False, False, True, False]
    subsets = list(combinations(passed, 2))  # 10 pairs, 3 of them without a pass

    assert pass_at_k(5, 2, 2) == pytest.approx(sum(map(any, subsets)) / len(subsets)) == pytest.approx(0.7)


def test_pass_at_one_is_the_mean() -> None:
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0)])
def test_pass_at_k_refuses_what_has_no_meaning(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(n, c, k)
