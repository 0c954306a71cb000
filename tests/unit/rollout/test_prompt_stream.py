"""The order in which a run meets its prompts: plain, mixed, and along a curriculum that is known beforehand."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.config import CurriculumConfig, StreamConfig
from rollout.errors import RolloutError
from rollout.mixture import apportion
from tests.unit.rollout.prompt_tables import MemoryTable, met, stream_of

THREE_TASKS = {("chart", "c", "easy"): 30, ("chart", "c", "hard"): 10, ("iou", "g", "easy"): 7, ("open", "o", ""): 23}
TASK_WEIGHTS = {"chart": 5.0, "iou": 3.0, "open": 2.0}
BY_TASK = StreamConfig(mixture_by="task", weights=TASK_WEIGHTS)


def easy_to_hard(num_steps: int = 10) -> StreamConfig:
    return StreamConfig(
        curriculum=CurriculumConfig(
            kind="static",
            start={"easy": 3, "hard": 1, "unmeasured": 0},
            end={"easy": 0, "hard": 1, "unmeasured": 1},
            num_steps=num_steps,
        )
    )


def test_plain_order_is_numpys_permutation_of_every_epoch() -> None:
    stream = stream_of(MemoryTable({("chart", "c", ""): 20}), seed=11)
    expected = [(e, str(row)) for e in range(3) for row in np.random.default_rng([11, e]).permutation(20)]
    assert met(stream, range(60)) == expected


def test_order_is_a_function_of_seed_and_position_alone() -> None:
    table = MemoryTable(THREE_TASKS)
    for config in (StreamConfig(), BY_TASK, easy_to_hard()):
        straight = met(stream_of(table, config=config), range(400))
        positions = list(range(400))
        random.Random(5).shuffle(positions)
        jumping = stream_of(table, config=config)
        assert {p: (d.epoch, d.sample.sample_id) for p in positions if (d := jumping.draw(p))} == dict(
            enumerate(straight)
        )
        assert met(stream_of(table, config=config), range(392, 400)) == straight[392:]
        assert met(stream_of(table, config=config, seed=4), range(400)) != straight


def test_weights_give_their_share_of_every_stretch_of_steps() -> None:
    stream = stream_of(MemoryTable(THREE_TASKS), config=BY_TASK, groups_per_step=7)
    seen: Counter[str] = Counter()
    for step in range(300):
        seen.update(stream.draw(p).sample.task for p in range(7 * step, 7 * step + 7))
        for task, weight in TASK_WEIGHTS.items():
            assert abs(seen[task] - 7 * (step + 1) * weight / 10) < 1.0


def test_weight_zero_leaves_a_source_out_and_one_row_may_carry_a_mixture() -> None:
    table = MemoryTable({("chart", "a", ""): 5, ("chart", "b", ""): 1, ("chart", "c", ""): 4})
    config = StreamConfig(mixture_by="source", weights={"a": 0, "b": 1, "c": 1})
    seen = Counter(stream_of(table, config=config).draw(p).sample.source for p in range(80))
    assert seen == {"b": 40, "c": 40}


def test_only_the_chosen_tasks_are_met_and_each_of_their_rows_once_an_epoch() -> None:
    table = MemoryTable(THREE_TASKS)
    stream = stream_of(table, config=StreamConfig(tasks=("iou", "open", "math")))
    draws = [stream.draw(p) for p in range(60)]
    wanted = sorted(str(i) for i, row in enumerate(table.rows) if row[0] in ("iou", "open"))
    assert sorted(d.sample.sample_id for d in draws if d.epoch == 0) == wanted
    assert sorted(d.sample.sample_id for d in draws if d.epoch == 1) == wanted


def test_the_chosen_tasks_keep_their_shares_and_strata_of_the_others_may_stay_in_a_curriculum() -> None:
    table = MemoryTable(THREE_TASKS)
    shares = {"easy": 1.0, "hard": 1.0, "unmeasured": 1.0}
    config = StreamConfig(
        mixture_by="task",
        weights={"chart": 2, "iou": 1, "open": 1},
        tasks=("chart", "open"),
        curriculum=CurriculumConfig(kind="static", start=shares, end=shares),
    )
    stream = stream_of(table, config=config)
    assert Counter(stream.draw(p).sample.task for p in range(72)) == {"chart": 48, "open": 24}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (StreamConfig(tasks=("match_mcq",)), "of which the dataset has no row; it has chart, iou, open"),
        (
            StreamConfig(tasks=("iou",), mixture_by="task", weights={"chart": 1, "iou": 0, "open": 0}),
            "no share to any of data.stream.tasks",
        ),
    ],
)
def test_tasks_that_leave_no_row_are_refused(config: StreamConfig, words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        stream_of(MemoryTable(THREE_TASKS), config=config)


def test_every_row_of_a_bucket_is_met_once_before_any_is_met_again_and_no_epoch_repeats_for_a_row() -> None:
    table = MemoryTable(THREE_TASKS)
    stream = stream_of(table, config=BY_TASK)
    draws = [stream.draw(p) for p in range(800)]
    for task, size in (("chart", 40), ("iou", 7), ("open", 23)):
        of_task = [d for d in draws if d.sample.task == task]
        by_epoch = [sorted(d.sample.sample_id for d in of_task if d.epoch == e) for e in range(len(of_task) // size)]
        whole = sorted(str(i) for i, row in enumerate(table.rows) if row[0] == task)
        assert len(by_epoch) > 5
        assert all(epoch == whole for epoch in by_epoch)
    assert len({(d.epoch, d.sample.sample_id) for d in draws}) == len(draws)


def test_buckets_of_one_size_have_orders_of_their_own() -> None:
    table = MemoryTable({("chart", "c", ""): 30, ("iou", "g", ""): 30})
    stream = stream_of(table, config=StreamConfig(mixture_by="task", weights={"chart": 1, "iou": 1}))
    samples = [stream.draw(p).sample for p in range(60)]
    # Kinds are interleaved: rows 2k and 2k + 1 are the k-th of their buckets.
    orders = [[int(s.sample_id) // 2 for s in samples if s.task == task] for task in ("chart", "iou")]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(30))
    assert orders[0] != orders[1]


def test_buckets_lie_in_a_shuffled_order_within_a_step() -> None:
    stream = stream_of(MemoryTable(THREE_TASKS), config=BY_TASK, groups_per_step=10)
    orders = {tuple(stream.draw(p).sample.task for p in range(10 * s, 10 * s + 10)) for s in range(20)}
    assert len(orders) > 15


def test_static_curriculum_moves_from_start_to_end_in_a_straight_line() -> None:
    stream = stream_of(MemoryTable(THREE_TASKS), config=easy_to_hard(num_steps=4), groups_per_step=80)
    counts = [Counter(stream.draw(p).sample.stratum for p in range(80 * s, 80 * s + 80)) for s in (0, 1, 2, 4, 9)]
    # Shares of (easy, hard, unmeasured): (.75, .25, 0) at 0, (.375, .375, .25) half way, (0, .5, .5) from step 4 on.
    assert [(c["easy"], c["hard"], c[""]) for c in counts] == [
        (60, 20, 0),
        (45, 25, 10),
        (30, 30, 20),
        (0, 40, 40),
        (0, 40, 40),
    ]


def test_a_curriculum_divides_each_task_within_its_own_weight() -> None:
    table = MemoryTable({("chart", "c", "easy"): 9, ("chart", "c", "hard"): 9, ("iou", "g", "hard"): 9})
    config = StreamConfig(
        mixture_by="task",
        weights={"chart": 0.5, "iou": 0.5},
        curriculum=CurriculumConfig(kind="static", start={"easy": 3, "hard": 1}, end={"easy": 3, "hard": 1}),
    )
    stream = stream_of(table, config=config)
    seen = Counter((d.sample.task, d.sample.stratum) for p in range(80) if (d := stream.draw(p)))
    assert seen == {("chart", "easy"): 30, ("chart", "hard"): 10, ("iou", "hard"): 40}


def test_a_position_far_away_needs_no_neighbours() -> None:
    table = MemoryTable(THREE_TASKS)
    stream = stream_of(table, config=BY_TASK)
    far = 8 * 5000 + 3
    assert met(stream, range(far, far + 1)) == met(stream_of(table, config=BY_TASK), range(far, far + 1))
    assert stream.draw(far).epoch > 100


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"chart": 1, "ious": 1, "open": 1}, "names ious; did you mean iou"),
        ({"chart": 1, "iou": 1}, "leaves out open"),
        ({"chart": 0, "iou": 0, "open": 0}, "no positive share"),
    ],
)
def test_weights_that_do_not_fit_the_dataset_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        stream_of(MemoryTable(THREE_TASKS), config=StreamConfig(mixture_by="task", weights=weights))


def test_weights_need_to_say_what_they_weigh() -> None:
    with pytest.raises(RolloutError, match="mixture_by=task or source"):
        StreamConfig(weights={"chart": 1})


def test_a_static_mix_that_starves_a_task_is_refused() -> None:
    table = MemoryTable({("chart", "c", "easy"): 3, ("iou", "g", "hard"): 3})
    curriculum = CurriculumConfig(kind="static", start={"easy": 1, "hard": 0}, end={"easy": 1, "hard": 1})
    config = StreamConfig(mixture_by="task", weights={"chart": 1, "iou": 1}, curriculum=curriculum)
    with pytest.raises(RolloutError, match=r"curriculum.start takes none of iou \| hard"):
        stream_of(table, config=config)
    incomplete = CurriculumConfig(kind="static", start={"easy": 1}, end={"easy": 1})
    with pytest.raises(RolloutError, match="leaves out hard"):
        stream_of(table, config=StreamConfig(curriculum=incomplete))


def test_other_streams_have_no_state_and_refuse_one() -> None:
    stream = stream_of(MemoryTable(THREE_TASKS), config=BY_TASK)
    stream.observe(5, [(0, 2.0)])
    assert stream.state_dict(9) == {}
    stream.load_state_dict({})
    with pytest.raises(RolloutError, match="does not fit this run"):
        stream.load_state_dict({"made_for": {"seed": 3}})


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    total=st.integers(1, 9),
)
def test_with_shares_that_stand_still_no_bucket_is_ever_one_prompt_off(weights: list[int], total: int) -> None:
    wish = total * np.array(weights) / sum(weights)
    carry = np.zeros(len(weights))
    for _ in range(200):
        counts = apportion(carry + wish, wish, total)
        carry = carry + wish - counts
        assert counts.sum() == total
        assert counts.min() >= 0
        assert np.abs(carry).max() < 1.0 + 1e-9


def test_with_shares_that_move_in_a_straight_line_no_bucket_is_one_prompt_off() -> None:
    random_shares = np.random.default_rng(0)
    for num_steps in (2, 50, 300):
        start, end = random_shares.dirichlet(np.full(12, 0.3), size=2)
        carry = np.zeros(12)
        for step in range(400):
            done = min(step / num_steps, 1.0)
            wish = 7 * ((1.0 - done) * start + done * end)
            carry += wish - apportion(carry + wish, wish, 7)
            assert np.abs(carry).max() < 1.0 + 1e-9


def test_the_soonest_due_bucket_gets_the_spare_prompt() -> None:
    # 0.5 of 0.5 is due in one step, 0.6 of 0.1 only in four.
    credit, wish = np.array([0.5, 0.6, 1.9]), np.array([0.5, 0.1, 2.4])
    assert apportion(credit, wish, 3).tolist() == [1, 0, 2]


def test_more_whole_credits_than_prompts_let_the_smallest_debt_wait() -> None:
    credit, wish = np.array([-0.7, -0.7, 2.1, 1.3]), np.array([0.1, 0.1, 1.3, 0.5])
    assert apportion(credit, wish, 2).tolist() == [0, 0, 1, 1]
