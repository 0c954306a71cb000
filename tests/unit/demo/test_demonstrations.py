"""Demonstrations: the right ones earn the full reward, the faulty ones do not, and their share is as set."""

import random

import numpy as np
import pytest

from orchestration.demo.drawn.questions import END_OF_TURN, DemoSample, Solution, break_format, with_boxes_in
from rewards import MixedReward, RewardConfig, RewardRequest, RewardResult
from rewards.core.config import DEFAULT_FORMAT, FormatConfig

TEXT_ROWS = 256


@pytest.fixture(scope="module")
def rewards() -> MixedReward:
    table = np.random.default_rng(0).standard_normal((TEXT_ROWS, 32)).astype(np.float32)
    return MixedReward(RewardConfig(), encode=lambda text: [hash_word(word) for word in text.split()], embedding=table)


def hash_word(word: str) -> int:
    return sum(index * ord(letter) for index, letter in enumerate(word, start=1)) % TEXT_ROWS


def request(sample: DemoSample, response: str, coord_mode: str = "pixel_resized") -> RewardRequest:
    return RewardRequest(
        task=sample.task,
        question=sample.question,
        response=response,
        answer=sample.answer,
        options=sample.options,
        answer_type=sample.answer_type,
        image_sizes=(sample.image_size,),
        image_input_sizes=(sample.image_size,),
        coord_mode=coord_mode,
    )


def score(rewards: MixedReward, sample: DemoSample, response: str) -> RewardResult:
    return rewards.score([request(sample, response)])[0]


def test_the_right_demonstration_earns_the_full_reward(rewards: MixedReward, samples: list[DemoSample]) -> None:
    rng = random.Random(0)
    results = rewards.score([request(sample, sample.demonstration(rng)) for sample in samples])

    assert [result.reward for result in results] == [pytest.approx(1.0)] * len(samples)


def test_boxes_in_thousandths_are_right_and_wrong_as_those_in_pixels_are(
    rewards: MixedReward, samples: list[DemoSample]
) -> None:
    boxes = [sample for sample in samples if sample.task == "iou"]
    moved = [with_boxes_in("norm1000", sample) for sample in boxes]
    assert len(boxes) > 40
    for old, new in zip(boxes, moved, strict=True):
        assert new.answer == old.answer  # the reference of the dataset
        for before, after in zip((old.solution, *old.slips), (new.solution, *new.slips), strict=True):
            scores = rewards.score(
                [
                    request(old, before.written(DEFAULT_FORMAT)),
                    request(new, after.written(DEFAULT_FORMAT), coord_mode="norm1000"),
                ]
            )
            assert scores[0].reward == pytest.approx(scores[1].reward)
        assert rewards.score([request(new, new.solution.written(DEFAULT_FORMAT), coord_mode="norm1000")])[
            0
        ].reward == pytest.approx(1.0)


def test_only_boxes_change_with_the_frame(samples: list[DemoSample]) -> None:
    for sample in samples:
        assert with_boxes_in("pixel_resized", sample) is sample
        assert (with_boxes_in("norm1000", sample) == sample) == (sample.task != "iou")


def test_every_slip_keeps_the_format_and_loses_task_reward(rewards: MixedReward, samples: list[DemoSample]) -> None:
    for sample in samples[:150]:
        assert sample.slips
        for slip in sample.slips:
            result = score(rewards, sample, slip.written(DEFAULT_FORMAT))
            assert result.format_reward == 1.0
            assert result.task_reward is not None
            assert result.task_reward < 1.0, (sample.question, slip.written(DEFAULT_FORMAT))


def test_a_broken_envelope_always_loses_the_format_reward(rewards: MixedReward, samples: list[DemoSample]) -> None:
    rng = random.Random(1)
    for sample in samples[:100]:
        assert score(rewards, sample, break_format(sample.solution, rng, DEFAULT_FORMAT)).format_reward == 0.0


@pytest.mark.parametrize(
    "form",
    [FormatConfig(style="boxed"), FormatConfig(style="json"), FormatConfig(style="none"),
     FormatConfig(think_tag="reason", answer_tag="final"), FormatConfig(think_prefilled=True)],
    ids=["boxed", "json", "none", "own tags", "prefilled"],
)  # fmt: skip
def test_in_every_form_right_demonstrations_earn_all_and_faults_lose_some(
    form: FormatConfig, rewards: MixedReward, samples: list[DemoSample]
) -> None:
    table = np.random.default_rng(0).standard_normal((TEXT_ROWS, 32)).astype(np.float32)
    read = MixedReward(
        RewardConfig(format=form), encode=lambda text: [hash_word(word) for word in text.split()], embedding=table
    )
    rng, few = random.Random(4), samples[:120]
    right = [score(read, sample, sample.demonstration(rng, form=form)) for sample in few]
    assert [result.reward for result in right] == [pytest.approx(1.0)] * len(few)
    for sample in few:
        faulty = score(read, sample, sample.demonstration(rng, fault_frac=1.0, form=form))
        assert faulty.reward is not None
        assert faulty.reward < 1.0
        if form.style != "none":
            assert score(read, sample, break_format(sample.solution, rng, form)).format_reward == 0.0


def test_faults_come_at_the_rate_that_is_set(samples: list[DemoSample]) -> None:
    rng = random.Random(2)
    faulty = [
        sample.demonstration(rng, fault_frac=0.3) != sample.solution.written(DEFAULT_FORMAT) + END_OF_TURN
        for sample in samples
        for _ in range(5)
    ]

    assert sum(faulty) / len(faulty) == pytest.approx(0.3, abs=0.04)


def test_no_fault_is_made_unless_asked_for(samples: list[DemoSample]) -> None:
    rng = random.Random(3)

    assert all(sample.demonstration(rng) == sample.solution.written(DEFAULT_FORMAT) + END_OF_TURN for sample in samples)


def test_a_solution_is_written_with_all_four_tags() -> None:
    assert Solution(think="red 4", answer="4").written(DEFAULT_FORMAT) == "<think>red 4</think><answer>4</answer>"
