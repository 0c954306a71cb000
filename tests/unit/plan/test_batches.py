import random

import pytest

from orchestration.plan.batches import Histogram, Lengths, expected_lengths, plan_batches, rank_share
from tests.unit.plan.runs import gpu_settings

LENGTHS = Lengths(
    prompt=1000.0, image=800.0, prompt_most=6000, completion=500.0, completion_most=2000, are_measured=True
)


def test_a_step_of_128_groups_on_four_ranks() -> None:
    batches = plan_batches(gpu_settings("training.num_steps=90"), LENGTHS, num_rows=5760)

    assert (batches.completions, batches.updates, batches.groups_per_update) == (1024, 1, 128)
    assert batches.groups_per_rank == 32
    # A group feeds its prompt once and all but the last token of each completion.
    assert batches.expected.num_tokens == 32 * (1000 + 8 * 499)
    # 6 groups of 4,992 tokens fit into 32,768, so 32 groups take 6 micro-batches.
    assert (batches.expected.num_micro_batches, batches.expected.largest_micro_batch) == (6, 6 * 4992)
    # 6,000 + 8 * 1,999 = 21,992 tokens: one group a micro-batch.
    assert (batches.at_most.num_micro_batches, batches.at_most.largest_micro_batch) == (32, 21992)
    assert batches.completion_tokens == 128 * 8 * 500
    assert batches.epochs == 90 * 128 / 5760


def test_a_run_one_step_ahead_has_two_steps_on_their_way() -> None:
    ahead = plan_batches(gpu_settings("training.max_staleness=1"), LENGTHS, None)
    in_turns = plan_batches(gpu_settings("training.max_staleness=0"), LENGTHS, None)
    carried = plan_batches(gpu_settings("training.max_staleness=4", "training.run_ahead=1"), LENGTHS, None)

    assert (in_turns.groups_in_flight, ahead.groups_in_flight, carried.groups_in_flight) == (128, 256, 5 * 128)
    assert (in_turns.completions_per_engine, ahead.completions_per_engine) == (256, 512)
    assert ahead.engine_capacity == 4 * 256
    assert ahead.epochs is None


def test_minibatches_cut_a_step_and_epochs_repeat_it() -> None:
    batches = plan_batches(gpu_settings("algorithm.num_minibatches=4", "algorithm.num_epochs=2"), LENGTHS, None)

    assert (batches.updates, batches.groups_per_update) == (8, 32)
    assert batches.expected.num_tokens == 8 * (1000 + 8 * 499)


@pytest.mark.parametrize(
    ("prefix_sharing", "tokens"), [("auto", 100 + 4 * 9), ("always", 100 + 4 * 9), ("never", 4 * (100 + 9))]
)
def test_prompts_stand_as_often_as_the_learner_puts_them(prefix_sharing: str, tokens: int) -> None:
    learner = gpu_settings(f"learner.prefix_sharing={prefix_sharing}").learner

    assert rank_share(learner, 1, 4, prompt=100, completion=10).num_tokens == tokens


def test_a_group_longer_than_the_budget_is_cut_and_repeats_its_prompt() -> None:
    learner = gpu_settings("learner.micro_batch_tokens=150").learner

    share = rank_share(learner, 1, 4, prompt=100, completion=21)

    assert (share.num_micro_batches, share.num_tokens, share.largest_micro_batch) == (2, 2 * (100 + 2 * 20), 140)


def test_one_completion_over_the_budget_stands_alone() -> None:
    learner = gpu_settings("learner.micro_batch_tokens=50").learner

    share = rank_share(learner, 1, 2, prompt=100, completion=21)

    assert (share.num_micro_batches, share.largest_micro_batch) == (2, 120)


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


def test_padded_rows_share_no_prompt_and_padding_counts() -> None:
    learner = gpu_settings("learner.micro_batch_tokens=300").learner

    share = rank_share(learner, 1, 4, prompt=100, completion=11, is_padded=True)

    assert (share.num_tokens, share.num_micro_batches, share.largest_micro_batch) == (4 * 110, 2, 220)
