"""What is drawn and asked: the same for equal seeds, apart between splits, in the mixture that was asked for."""

import io
import itertools
from collections import Counter

import pytest
from PIL import Image

from orchestration.demo.drawn.tasks import TASK_WEIGHTS, generate_samples, split_of


def test_equal_seeds_draw_equal_samples() -> None:
    first, second = (list(generate_samples(seed=5, split="train", num_samples=60)) for _ in range(2))

    assert first == second


def test_another_seed_draws_other_samples() -> None:
    first, second = (
        {sample.sample_id for sample in generate_samples(seed=seed, split="train", num_samples=60)} for seed in (5, 6)
    )

    assert len(first & second) < 6


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    short, long = (list(generate_samples(seed=5, split="train", num_samples=num)) for num in (20, 40))

    assert long[:20] == short


def test_no_drawing_occurs_in_both_splits_whatever_the_seed() -> None:
    train, held_out = (
        [
            sample
            for seed in (0, 1)
            for sample in generate_samples(seed=seed, split=split, num_samples=500, questions_per_picture=2)
        ]
        for split in ("train", "held_out")
    )

    assert not {sample.scene_digest for sample in train} & {sample.scene_digest for sample in held_out}
    assert not {sample.image_png for sample in train} & {sample.image_png for sample in held_out}
    assert {split_of(sample.scene_digest) for sample in held_out} == {"held_out"}


def test_no_picture_is_asked_the_same_question_twice() -> None:
    drawn = list(generate_samples(seed=2, split="train", num_samples=600, questions_per_picture=4))

    assert len({(sample.image_png, sample.question) for sample in drawn}) == 600
    assert len({sample.sample_id for sample in drawn}) == 600


def test_tasks_come_in_the_share_of_their_weight() -> None:
    counts = Counter(sample.task for sample in generate_samples(seed=1, split="train", num_samples=2000))

    for task, weight in TASK_WEIGHTS.items():
        assert counts[task] / 2000 == pytest.approx(weight, abs=0.04)


def test_only_tasks_with_a_weight_are_drawn() -> None:
    drawn = generate_samples(seed=1, split="train", num_samples=50, weights={"iou": 1.0})

    assert {sample.task for sample in drawn} == {"iou"}


@pytest.mark.parametrize("weights", [{"video": 1.0}, {"iou": 0.0}, {"iou": -1.0, "open": 2.0}, {}])
def test_weights_that_cannot_be_drawn_from_name_the_tasks(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"chart, iou, match_mcq"):
        next(generate_samples(seed=0, split="train", num_samples=1, weights=weights))


def test_questions_about_one_picture_follow_one_another() -> None:
    drawn = generate_samples(seed=4, split="train", num_samples=200, questions_per_picture=3)

    runs = [digest for digest, _ in itertools.groupby(drawn, key=lambda sample: sample.scene_digest)]
    assert len(runs) == len(set(runs))
    assert len(runs) < 80


def test_pictures_are_of_the_size_that_the_row_names() -> None:
    for sample in generate_samples(seed=4, split="train", num_samples=40):
        picture = Image.open(io.BytesIO(sample.image_png))
        assert picture.size == sample.image_size == (112, 112)
        assert picture.mode == "RGB"


def test_both_answers_of_a_yes_no_question_are_about_as_common() -> None:
    weights = {"match_yesno": 1.0}
    counts = Counter(s.answer for s in generate_samples(seed=9, split="train", num_samples=800, weights=weights))

    assert 0.4 < counts["yes"] / 800 < 0.6


def test_in_words_a_question_begins_with_what_is_drawn_and_there_are_no_boxes() -> None:
    drawn, told = (
        list(generate_samples(seed=4, split="train", num_samples=60, in_words=in_words, weights=weights))
        for in_words, weights in ((False, {"chart": 1.0}), (True, {"chart": 1.0, "iou": 5.0}))
    )

    assert {sample.task for sample in told} == {"chart"}
    assert all(sample.image_png is None for sample in told)
    for seen, read in zip(drawn, told, strict=True):
        description = seen.solution.think.partition(";")[0]
        assert read.question == f"{description}. {seen.question}"
        assert (read.solution, read.slips, read.answer) == (seen.solution, seen.slips, seen.answer)
