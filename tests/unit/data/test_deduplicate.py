"""Deduplication: every rule by hand-made rows, and agreement with a comparison of every row with every other."""

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.data import deduplicate, row_index
from orchestration.data.deduplicate import decide as decide_rows
from orchestration.data.deduplicate import distinct_ids
from orchestration.data.row_index import RowIndex
from orchestration.data.sources.rows import Candidate
from orchestration.settings.recipe import DeduplicateConfig
from tests.unit.data.duplicate_rows import Picture, Verdict, brute_force, row

CAT = Picture("cat", bits=1 << 200)
DOG = Picture("dog", bits=(1 << 64) - 1)


def decide(
    rows: Sequence[Candidate], scratch: Path, settings: DeduplicateConfig | None = None, added: list[int] | None = None
) -> dict[int, Verdict]:
    with RowIndex(scratch / "deduplicate") as index:
        for order in added or range(len(rows)):
            index.add(rows[order], order)
        found = decide_rows(index, settings or DeduplicateConfig())
        return {order: (reason.value, detail.split()[-1]) for order, reason, detail in found}


def named(rows: Sequence[Candidate]) -> list[Candidate]:
    return [replace(r, source_id=f"n{i}") for i, r in enumerate(rows)]


def test_the_later_of_two_equal_rows_goes_whatever_the_case_of_question_and_answer(tmp_path):
    rows = named([row("Which  animal?", "Cat", CAT), row("which animal?", "cat", CAT)])
    assert decide(rows, tmp_path) == {1: ("duplicate", "n0")}


def test_the_detail_names_source_and_id_of_the_row_that_stays(tmp_path):
    rows = named([row("Which animal?", "cat", CAT), row("Which animal?", "cat", CAT)])
    with RowIndex(tmp_path / "d") as index:
        for order, each in enumerate(rows):
            index.add(each, order)
        [(order, reason, detail)] = decide_rows(index, DeduplicateConfig())
    assert (order, reason.value, detail) == (1, "duplicate", "same images and question as train n0")


def test_rows_of_one_question_with_several_answers_all_go_and_name_another_answer(tmp_path):
    rows = named([row("Which?", a, CAT) for a in ("cat", "cat", "dog")])
    conflict = "conflicting_answers"
    assert decide(rows, tmp_path) == {0: (conflict, "n2"), 1: (conflict, "n2"), 2: (conflict, "n0")}


def test_another_description_of_an_image_is_a_duplicate_and_no_conflict(tmp_path):
    rows = named([row("Describe.", a, CAT, task="open") for a in ("a cat", "a grey cat")])
    assert decide(rows, tmp_path) == {1: ("duplicate", "n0")}


def test_one_question_with_other_options_is_another_row(tmp_path):
    settings = DeduplicateConfig(perceptual=False)
    rows = named(
        [row("Which?", "A", CAT, task="match_mcq", options=o) for o in (("cat", "dog"), ("cat", "cow"), ("cat", "dog"))]
    )
    assert decide(rows, tmp_path, settings) == {2: ("duplicate", "n0")}


def test_one_question_after_other_turns_is_another_row(tmp_path):
    long = "how many of the bars that are red are taller than the blue one"
    told = [{}, {"history": ("Who?", "He.")}, {"history": ("Who?", "She.")}, {"system": "Be kind."}]
    rows = named(
        [
            *(row("And why?", "1", CAT, **before) for before in told),
            *(row("?", "1", CAT, **before) for before in told),
            *(row(long, "1", role="guard" if place == 1 else "train", **before) for place, before in enumerate(told)),
            row("and why", "1", CAT, history=("who?", "he.")),
            row("and why", "2", CAT, history=("Who?", "She.")),
            row(long + " now", "1", history=("Who?", "He.")),
        ]
    )
    assert decide(rows, tmp_path) == {
        12: ("duplicate", "n1"),
        2: ("conflicting_answers", "n13"),
        13: ("conflicting_answers", "n2"),
        14: ("leaked_question", "n9"),
    }


def test_options_in_another_order_are_compared_by_the_text_that_the_letter_means(tmp_path):
    same = [
        row("Which?", "A", CAT, task="match_mcq", options=("cat", "dog")),
        row("Which?", "B", CAT, task="match_mcq", options=("dog", "cat")),
    ]
    other = [same[0], row("Which?", "A", CAT, task="match_mcq", options=("dog", "cat"))]
    assert decide(named(same), tmp_path) == {1: ("duplicate", "n0")}
    assert {reason for reason, _ in decide(named(other), tmp_path).values()} == {"conflicting_answers"}


def test_the_order_of_images_belongs_to_the_row(tmp_path):
    rows = named([row("Which is left?", "cat", CAT, DOG), row("Which is left?", "dog", DOG, CAT)])
    assert decide(rows, tmp_path) == {}


@pytest.mark.parametrize(("distance", "gone"), [(10, {1: ("near_duplicate", "n0")}), (11, {})])
def test_hashes_count_as_near_up_to_the_set_distance(tmp_path, distance, gone):
    rows = named([row("How many?", "3", Picture("a")), row("How many?", "3", Picture("b", bits=(1 << distance) - 1))])
    assert decide(rows, tmp_path) == gone


@pytest.mark.parametrize(("grey", "gone"), [(124, {1: ("near_duplicate", "n0")}), (125, {})])
def test_equal_hashes_with_thumbnails_too_far_apart_are_different_images(tmp_path, grey, gone):
    rows = named([row("How many?", "3", Picture("a")), row("How many?", "3", Picture("b", grey=grey))])
    assert decide(rows, tmp_path) == gone


@pytest.mark.parametrize(("spot", "gone"), [(24, {1: ("near_duplicate", "n0")}), (25, {})])
@pytest.mark.parametrize("first", [0, 1])
def test_thumbnails_that_differ_in_one_place_alone_are_different(tmp_path, spot, gone, first):
    pictures = [Picture("a"), Picture("b", spot=spot)]
    rows = named([row("How many?", "3", pictures[i]) for i in (0, 1)])
    assert decide(rows, tmp_path, added=[first, 1 - first]) == gone


def test_the_earliest_of_many_near_rows_is_named(tmp_path):
    draw = random.Random(5)
    around = [sum(1 << bit for bit in draw.sample(range(256), 10)) for _ in range(30)]
    rows = named([row("How?", "3", Picture(str(i), bits)) for i, bits in enumerate([*around, 0])])
    assert decide(rows, tmp_path) == {30: ("near_duplicate", "n0")}


@pytest.mark.parametrize(("question", "gone"), [("a b c d", {1: ("near_duplicate", "n0")}), ("a b c d f", {})])
def test_questions_count_as_near_from_the_set_similarity(tmp_path, question, gone):
    rows = named([row("a b c d e", "3", CAT), row(question, "3", CAT)])
    assert decide(rows, tmp_path) == gone


@pytest.mark.parametrize("other", [{"answer": "4"}, {"task": "chart"}])
def test_near_rows_with_another_answer_or_task_stay(tmp_path, other):
    first = row("How many?", "3", Picture("a"))
    assert decide(named([first, replace(row("How many?", "3", Picture("b")), **other)]), tmp_path) == {}


def test_chains_of_near_rows_are_not_resolved(tmp_path):
    rows = named([row("How?", "3", Picture(str(i), bits=(1 << (8 * i)) - 1)) for i in range(4)])
    near = "near_duplicate"
    assert decide(rows, tmp_path) == {1: (near, "n0"), 2: (near, "n1"), 3: (near, "n2")}


def test_near_duplicates_are_left_alone_without_perceptual(tmp_path):
    rows = named([row("How?", "3", Picture("a")), row("How?", "3", Picture("b"))])
    assert decide(rows, tmp_path, DeduplicateConfig(perceptual=False)) == {}


def test_every_image_of_a_near_row_is_compared(tmp_path):
    far = Picture("far", bits=(1 << 40) - 1)
    rows = named([row("How?", "3", Picture("a"), CAT), row("How?", "3", Picture("b"), far)])
    assert decide(rows, tmp_path) == {}


@pytest.mark.parametrize("role", ["held_out", "guard"])
@pytest.mark.parametrize(
    "leak", [Picture("cat", bits=7 << 100), Picture("x", bits=1 << 9, image_id="coco/9"), Picture("y", bits=3 << 200)]
)
def test_train_rows_with_an_image_of_an_evaluation_set_go_whatever_they_ask(tmp_path, role, leak):
    theirs = Picture("cat", bits=1 << 200, image_id="coco/9")
    rows = named([row("Which animal?", "cat", DOG, leak), row("What is this?", "a pet", theirs, role=role)])
    far = Picture("far", bits=((1 << 30) - 1) << 190)
    assert decide(rows, tmp_path) == {0: ("leaked_image", "n1")}
    assert decide(named([row("Which animal?", "cat", far), rows[1]]), tmp_path) == {}


def test_images_without_a_name_do_not_leak_by_it(tmp_path):
    rows = named([row("Which?", "a", CAT), row("Which?", "b", DOG, role="guard")])
    assert decide(rows, tmp_path) == {}


def test_nearly_equal_evaluation_images_do_not_count_without_perceptual(tmp_path):
    rows = named([row("Which?", "a", Picture("a")), row("Which?", "b", Picture("b"), role="guard")])
    assert decide(rows, tmp_path, DeduplicateConfig(perceptual=False)) == {}


def test_questions_without_images_leak_when_equal_or_nearly_equal_and_long_enough(tmp_path):
    long = "a train leaves at noon with ten people on board"
    rows = named(
        [
            row("What is 2?", "2", role="guard"),
            row(long + " today", "3", role="guard"),
            row("what  is 2?", "4"),
            row(long, "5"),
            row("2 is what", "6"),
            row(long, "5", CAT),
        ]
    )
    assert decide(rows, tmp_path) == {2: ("leaked_question", "n0"), 3: ("leaked_question", "n1")}


def test_a_question_of_an_evaluation_row_with_an_image_does_not_leak(tmp_path):
    rows = named([row("How many are there?", "2", CAT, role="guard"), row("How many are there?", "3")])
    assert decide(rows, tmp_path) == {}


def test_held_out_rows_go_only_as_equal_to_each_other(tmp_path):
    near = Picture("near", bits=3 << 200)
    rows = named(
        [
            row("Which?", "cat", CAT, role="guard"),
            row("Which?", "cat", CAT, role="guard"),
            row("Which?", "cat", CAT, role="held_out"),
            row("Which?", "cat", near, role="held_out"),
            row("Which?", "cat", CAT, role="held_out"),
        ]
    )
    assert decide(rows, tmp_path, DeduplicateConfig(max_rows_per_image=1)) == {4: ("duplicate", "n2")}


def test_rows_beyond_the_allowed_number_for_an_image_go_first_come_first_kept(tmp_path):
    rows = named([row(f"question {i}?", str(i), CAT, DOG) for i in range(4)] + [row("question?", "z", DOG)])
    settings = DeduplicateConfig(max_rows_per_image=2)
    assert decide(rows, tmp_path, settings) == dict.fromkeys((2, 3), ("too_many_of_image", "n0"))


def test_a_row_that_another_rule_took_does_not_count_for_its_image(tmp_path):
    rows = named([row("a?", "1", CAT), row("a?", "1", CAT), row("b?", "2", CAT), row("c?", "3", CAT)])
    settings = DeduplicateConfig(max_rows_per_image=2)
    assert decide(rows, tmp_path, settings) == {1: ("duplicate", "n0"), 3: ("too_many_of_image", "n0")}


def test_no_rows_give_no_verdicts(tmp_path):
    assert decide([], tmp_path) == {}


def test_the_scratch_folder_is_gone_afterwards(tmp_path):
    decide([row("a?", "1", CAT)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_rows_of_one_order_are_refused(tmp_path):
    with RowIndex(tmp_path / "d") as index:
        index.add(row("a?", "1"), 0)
        index.add(row("b?", "1"), 0)
        with pytest.raises(sqlite3.IntegrityError):
            list(decide_rows(index, DeduplicateConfig()))


def random_rows(seed: int) -> list[Candidate]:
    """Rows of few pictures and words, so that every rule strikes; hash distances are close to 10 on both sides."""
    draw = random.Random(seed)
    pool = [0, (1 << 80) - 1, draw.getrandbits(256)]
    pictures = []
    for name in range(10):
        bits = draw.choice(pool)
        for bit in draw.sample(range(256), draw.choice([0, 1, 5, 5, 6, 10, 11])):
            bits ^= 1 << bit
        image_id = draw.choice(["", "", "", "coco/1", "coco/2"])
        pictures.append(Picture(f"s{name}", bits, draw.choice([100, 110, 130]), image_id))
    words = ["how", "many", "bars", "are", "red", "tall", "there", "now", "left", "in", "all", "?"]
    questions = [" ".join(draw.sample(words, draw.choice([0, 1, 4, 5, 9, 10, 10, 11]))) for _ in range(5)]
    rows = []
    for _ in range(draw.choice([5, 30, 60])):
        task = draw.choice(["match_text", "match_text", "chart", "open", "match_mcq"])
        options = tuple(draw.sample(["x", "y", "z"], draw.choice([2, 3]))) if task == "match_mcq" else ()
        seen = draw.choices(pictures[draw.choice([0, 4]) :], k=draw.choice([0, 0, 1, 1, 1, 2]))
        role = draw.choices(["train", "held_out", "guard"], [20, 2, 1])[0]
        answer = draw.choice("AB") if options else draw.choice(["1", "1", "2"])
        told = {
            "system": draw.choice(["", "", "Be kind."]),
            "history": draw.choice([(), (), ("Who?", "He."), ("who?", "he.")]),
        }
        rows.append(row(draw.choice(questions), answer, *seen, role=role, task=task, options=options, **told))
    return named(rows)


@pytest.mark.parametrize(("block", "min_keyed"), [(row_index.BLOCK, 10**9), (3, 10**9), (row_index.BLOCK, 2)])
def test_the_verdicts_are_those_of_comparing_all_rows_in_whatever_order_they_are_added(
    tmp_path, monkeypatch, block, min_keyed
):
    monkeypatch.setattr(row_index, "BLOCK", block)
    monkeypatch.setattr(deduplicate, "MIN_KEYED", min_keyed)
    monkeypatch.setattr(deduplicate, "FEW", 0)  # by keys, whether it pays or not
    reasons: set[str] = set()
    for seed in range(120):
        rows = random_rows(seed)
        settings = DeduplicateConfig(
            max_rows_per_image=random.Random(seed).choice([None, 1, 2, 3]),
            max_hash_distance=random.Random(-seed).choice([10, 10, 0, 3, 256]),
            min_question_similarity=random.Random(seed + 1000).choice([0.8, 0.8, 0.8, 1.0, 0.3, 0.0]),
        )
        wanted = brute_force(rows, settings)
        shuffled = random.Random(seed).sample(range(len(rows)), len(rows))
        assert decide(rows, tmp_path, settings) == wanted, seed
        assert decide(rows, tmp_path, settings, added=shuffled) == wanted, seed
        reasons |= {reason for reason, _ in wanted.values()}
    assert len(reasons) == 6


def ids(rows: Sequence[Candidate], scratch: Path, added: Sequence[int]) -> dict[int, tuple[str, str]]:
    with RowIndex(scratch / "deduplicate") as index:
        for order in added:
            index.add(rows[order], order)
        list(decide_rows(index, DeduplicateConfig(perceptual=False)))
        return {place: (source_id, sample_id) for place, source_id, sample_id in distinct_ids(index)}


def test_rows_of_one_id_become_distinct_and_none_is_lost(tmp_path):
    def of(number: int, source_id: str, source: str = "own", role: str = "train") -> Candidate:
        picture = Picture(f"p{number}", bits=0)
        made = replace(row("How many?", str(number), picture), source=source, source_id=source_id, sample_id="s")
        return replace(made, role=role)

    rows = [
        of(0, "7"), of(1, "7"), of(2, "8"), of(3, "7#2"), of(4, "7"), of(5, "7", source="other"),
        of(6, "8", role="guard"), replace(of(0, "7"), answer="0"), of(9, "7"), of(10, "8", role="held_out"),
    ]  # fmt: skip
    found = ids(rows, tmp_path, range(len(rows)))
    assert {place: source_id for place, (source_id, _) in found.items()} == {
        1: "7#3", 4: "7#4", 8: "7#5", 10 - 1: "8#2",
    }  # fmt: skip
    assert len({sample_id for _, sample_id in found.values()} | {"s"}) == 5
    assert ids(rows, tmp_path, list(reversed(range(len(rows))))) == found


def test_rows_of_ids_of_their_own_keep_them(tmp_path):
    rows = named([row(f"Which {number}?", "cat", Picture(f"p{number}", bits=0)) for number in range(4)])
    assert ids(rows, tmp_path, range(4)) == {}
