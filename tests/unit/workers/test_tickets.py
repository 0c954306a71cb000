"""One group's way over the two borders: text and frames to the reward, tokens and rewards to the learner."""

from dataclasses import replace

import numpy as np
import pytest

from orchestration.workers.tickets import summarise, to_reward_requests, to_scored_group
from rewards.core.base import Reason, RewardResult
from rewards.core.config import RewardConfig
from rewards.core.parts import PartConfig, Route
from rollout.records import Generation, ImageBytes, RolloutGroup, Sample, Turn

SAMPLE = Sample(
    sample_id="s1",
    source="demo/box",
    task="iou",
    question="Where is the red circle?",
    answer="[0, 0, 28, 28]",
    images=(ImageBytes(data=b"png", width=200, height=100),),
)


def generation(*tokens: int, version: tuple[int, int] = (3, 4), finish: str = "stop") -> Generation:
    return Generation(
        token_ids=tokens,
        logprobs=[-0.5] * len(tokens),
        finish_reason=finish,  # type: ignore[arg-type]
        weight_version_start=version[0],
        weight_version_end=version[1],
    )


GROUP = RolloutGroup(
    group_id="0-9",
    sample=SAMPLE,
    prompt_token_ids=[1, 2, 3],
    generations=(generation(5, 6), generation(7, 8, 9, version=(2, 4), finish="length")),
    image_input_sizes=((196, 112),),
    seconds=0.5,
)
GOOD = RewardResult(
    reward=0.9, task_reward=1.0, format_reward=0.0, breakdown={"grounding": 1.0}, parsed_answer="x", reason=Reason.OK
)
FAILED = RewardResult(
    reward=None, task_reward=None, format_reward=1.0, breakdown={}, parsed_answer=None,
    reason=Reason.GRADER_FAILED, failure="crashed",
)  # fmt: skip


def test_requests_carry_the_frame_in_which_the_model_saw_the_image() -> None:
    first, second = to_reward_requests(GROUP, ["a", "b"], coord_mode="pixel_resized")
    assert (first.image_sizes, first.image_input_sizes) == (((200, 100),), ((196, 112),))
    assert (first.coord_mode, first.answer, first.response) == ("pixel_resized", "[0, 0, 28, 28]", "a")
    assert (first.truncated, second.truncated) == (False, True)


def test_requests_carry_metadata_and_the_images_where_they_are_asked_for() -> None:
    group = replace(GROUP, sample=replace(SAMPLE, metadata={"page": "7"}))
    plain, seeing = (
        to_reward_requests(group, ["a", "b"], coord_mode="pixel", with_images=asked)[1] for asked in (False, True)
    )
    assert (plain.metadata, plain.images) == ({"page": "7"}, ())
    assert seeing.images == (b"png",)


def test_requests_carry_earlier_turns_and_say_where_images_stand() -> None:
    turns = (Turn(role="user", text="\ufffcWho?"), Turn(role="assistant", text="He."))
    group = replace(GROUP, sample=replace(SAMPLE, question="Is \ufffc he?", history=turns))
    found = to_reward_requests(group, ["a", "b"], coord_mode="pixel")[1]
    assert (found.question, found.history) == ("Is <image> he?", (("user", "<image>Who?"), ("assistant", "He.")))


PARTS = {"grounding": 0.75, "counting": PartConfig(weight=0.25, above={"grounding": 0.5}), "length": -0.5}
SUMMED = RewardResult(
    reward=0.5, task_reward=0.4, format_reward=1.0,
    breakdown={"format": 1.0, "grounding": 0.5, "counting": 1.0, "length": 0.25}, parsed_answer="x", reason=Reason.OK,
)  # fmt: skip


def test_the_learner_gets_each_part_with_its_weight_where_it_normalises_them() -> None:
    route = RewardConfig(routes={"iou": PARTS}).route("iou")  # type: ignore[dict-item]
    scored = to_scored_group(GROUP, [SUMMED, FAILED], keep_parts_of=route)
    names, weights = zip(*scored.parts, strict=True)
    assert names == ("format", "grounding", "counting", "length")
    assert weights == pytest.approx((0.1, 0.9 * 0.75, 0.9 * 0.25, -0.9 * 0.5))
    # The gate of counting is closed: 0.5 is not above 0.5.
    assert [sequence.parts for sequence in scored.sequences] == [(1.0, 0.5, 0.0, 0.25), ()]
    assert to_scored_group(GROUP, [SUMMED, FAILED]).parts == ()


def test_a_summary_keeps_each_part_of_a_sum() -> None:
    summary = summarise(GROUP, [SUMMED, FAILED], function="g", score_s=0.1, parts=["grounding", "counting"])
    assert summary.parts == (("grounding", (0.5,)), ("counting", (1.0,)))


@pytest.mark.parametrize(
    ("first", "second", "format_weight", "by_total", "by_parts"),
    [
        # (format, grounding, counting); in the first case 0.75 * 0.25 + 0.25 * 1 = 0.75 * 0.5 + 0.25 * 0.25, while
        # the advantages of grounding are (-1, 1), of counting (1, -1), and their sum 0.9 * (0.75 - 0.25) * (-1, 1).
        ((1.0, 0.25, 1.0), (1.0, 0.5, 0.25), 0.1, False, True),
        ((1.0, 1.0, 0.0), (1.0, 1.0, 0.0), 0.1, False, False),
        ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0), 0.1, True, True),
        ((1.0, 0.5, 0.5), (0.0, 0.5, 0.5), 0.0, False, False),
    ],
    ids=["equal totals of unlike parts", "equal parts", "unlike totals", "a part without weight"],
)
def test_a_group_has_signal_where_what_becomes_an_advantage_differs(
    first: tuple[float, ...], second: tuple[float, ...], format_weight: float, by_total: bool, by_parts: bool
) -> None:
    rewards = RewardConfig(routes={"iou": {"grounding": 0.75, "counting": 0.25}})
    route = replace(rewards.route("iou"), format_weight=format_weight)
    results = [
        SUMMED._replace(
            reward=format_weight * form + 0.9 * (0.75 * grounding + 0.25 * counting),
            breakdown={"format": form, "grounding": grounding, "counting": counting},
        )
        for form, grounding, counting in (first, second)
    ]

    def has_signal(route: Route | None) -> bool:
        return summarise(GROUP, results, function="g", score_s=0.1, normalises_parts_of=route).has_signal(1e-6)

    assert (has_signal(None), has_signal(route)) == (by_total, by_parts)
    assert not summarise(GROUP, [FAILED] * 2, function="g", score_s=0.1, normalises_parts_of=route).has_signal(1e-6)


def test_every_completion_needs_its_text_and_its_result() -> None:
    with pytest.raises(ValueError, match="zip"):
        to_reward_requests(GROUP, ["a"], coord_mode="pixel")
    with pytest.raises(ValueError, match="zip"):
        to_scored_group(GROUP, [GOOD])


def test_failed_grader_masks_its_completion_instead_of_scoring_zero() -> None:
    scored = to_scored_group(GROUP, [GOOD, FAILED])
    assert [s.masked for s in scored.sequences] == [False, True]
    assert [s.reward for s in scored.sequences] == [0.9, 0.0]
    assert [s.truncated for s in scored.sequences] == [False, True]
    np.testing.assert_array_equal(scored.sequences[1].completion_token_ids, [7, 8, 9])
    assert (scored.group_id, scored.task, scored.images) == ("0-9", "iou", (b"png",))


def test_summary_counts_what_the_driver_logs() -> None:
    summary = summarise(GROUP, [GOOD, FAILED], function="grounding", score_s=0.1, texts=["a", "b"])
    assert (summary.rewards, summary.failures, summary.num_truncated) == ((0.9,), ("crashed",), 1)
    assert (summary.num_prompt_tokens, summary.num_completion_tokens, summary.weight_version) == (3, 5, 2)
    assert summary.reasons == ("ok", "grader_failed")
