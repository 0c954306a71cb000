"""Records at the rollout's border: checked, frozen, and able to travel."""

import pickle

import numpy as np
import pytest

from rollout.errors import RolloutError
from rollout.records import Generation, ImageBytes, RolloutGroup, Sample, SamplingSpec

SAMPLE = Sample(
    sample_id="a", source="unit", task="iou", question="where?", answer="[1, 2, 3, 4]",
    images=(ImageBytes(data=b"x", width=8, height=6),),
)  # fmt: skip
GENERATION = Generation(
    token_ids=[5, 2], logprobs=[-0.1, -0.2], finish_reason="stop", weight_version_start=1, weight_version_end=2
)
GROUP = RolloutGroup(
    group_id="0-1", sample=SAMPLE, prompt_token_ids=[9, 8, 7], generations=(GENERATION,), image_input_sizes=((8, 6),)
)


def test_group_travels_through_pickle() -> None:
    copy = pickle.loads(pickle.dumps(GROUP))
    assert copy.sample == SAMPLE
    np.testing.assert_array_equal(copy.generations[0].logprobs, GENERATION.logprobs)


def test_arrays_are_read_only_and_typed() -> None:
    assert GENERATION.token_ids.dtype == np.int32
    assert GENERATION.logprobs.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        GENERATION.token_ids[0] = 1


def test_caller_keeps_a_writable_array_of_its_own() -> None:
    ids = np.array([1, 2], dtype=np.int32)
    generation = Generation(
        token_ids=ids, logprobs=[0.0, 0.0], finish_reason="stop", weight_version_start=0, weight_version_end=0
    )
    ids[0] = 7
    assert generation.token_ids[0] == 1


def test_lengths_must_agree() -> None:
    with pytest.raises(RolloutError, match="one length"):
        Generation(token_ids=[1], logprobs=[], finish_reason="stop", weight_version_start=0, weight_version_end=0)
    with pytest.raises(RolloutError, match="1 images and 0 input sizes"):
        RolloutGroup(group_id="g", sample=SAMPLE, prompt_token_ids=[1], generations=(GENERATION,))
    with pytest.raises(RolloutError, match="no generation"):
        RolloutGroup(group_id="g", sample=SAMPLE, prompt_token_ids=[1], generations=(), image_input_sizes=((8, 6),))


def test_zero_temperature_is_greedy() -> None:
    assert SamplingSpec(group_size=1, temperature=0.0, max_completion_tokens=4).greedy
