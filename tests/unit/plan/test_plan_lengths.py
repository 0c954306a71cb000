import random

import pytest

from orchestration.plan.lengths import Histogram, expected_lengths
from tests.unit.plan.runs import gpu_settings


@pytest.mark.parametrize("seed", range(5))
def test_a_histogram_counts_what_a_loop_counts(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.randrange(1, 10 ** rng.randrange(1, 5)) for _ in range(rng.randrange(1, 400))]

    histogram = Histogram.of(values)

    pairs = zip(histogram.edges, histogram.edges[1:], strict=False)
    assert list(histogram.counts) == [sum(low <= value < high for value in values) for low, high in pairs]
    assert sum(histogram.counts) == len(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.most == max(values)
    for share, value in ((0.5, histogram.middle), (0.99, histogram.high)):
        assert sum(v <= value for v in values) >= share * len(values)
        assert sum(v < value for v in values) < share * len(values)


def test_rows_without_pictures_have_a_histogram_too() -> None:
    histogram = Histogram.of([0, 0, 0])

    assert (histogram.counts, histogram.most) == ((3,), 0)


def test_lengths_are_assumed_where_nobody_measured_any() -> None:
    lengths = expected_lengths(gpu_settings(), None, None)

    assert (lengths.prompt, lengths.image, lengths.prompt_most) == (1024.0, 768.0, 8192 - 2048)
    assert (lengths.completion, lengths.completion_most) == (512.0, 2048)
    assert not lengths.are_measured


def test_assumed_prompts_leave_room_for_a_completion() -> None:
    lengths = expected_lengths(
        gpu_settings("rollout.engine.max_model_len=1000", "rollout.sampling.max_completion_tokens=900"), None, None
    )

    assert (lengths.prompt, lengths.image, lengths.prompt_most) == (100.0, 100.0, 100)


def test_measured_prompts_count_as_they_are() -> None:
    lengths = expected_lengths(gpu_settings(), Histogram.of([300, 500]), Histogram.of([256, 256]))

    assert (lengths.prompt, lengths.image, lengths.prompt_most, lengths.are_measured) == (400.0, 256.0, 500, True)
