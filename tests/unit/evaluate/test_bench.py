"""Which rows an evaluation asks, and what it remembers when it is stopped."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.evaluate.command import check_any_scored
from orchestration.evaluate.partial import PARTIAL, PartialAnswers
from orchestration.evaluate.presets.base import apply_preset
from orchestration.evaluate.presets.registry import preset_of
from orchestration.evaluate.publish import check_preset_scored
from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.question_set import open_bench
from rollout.dataset import write_samples
from rollout.records import ImageBytes, Sample


def sample(name: str, answer: str = "4") -> Sample:
    return Sample(sample_id=name, source="unit", task="chart", question=f"How tall is {name}?", answer=answer)


def answered(name: str) -> EvaluatedSample:
    return EvaluatedSample(
        sample_id=name, source="unit", task="chart", function="chart", question="?", answer="4", greedy=None
    )


def write(path: Path, *samples: Sample) -> Path:
    write_samples(path, samples)
    return path


def test_all_rows_are_asked_in_order_and_those_that_are_answered_not_again(tmp_path: Path) -> None:
    bench = open_bench(write(tmp_path / "b.parquet", *map(sample, "abc")), seed=0, max_samples=None)
    assert [row.sample_id for row in bench.samples({})] == ["a", "b", "c"]
    assert [row.sample_id for row in bench.samples({"b": answered("b")})] == ["a", "c"]


def test_fewer_rows_are_drawn_by_the_seed_and_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "b.parquet", *map(sample, "abcdefgh"))
    drawn = {seed: list(open_bench(path, seed=seed, max_samples=3).ids) for seed in range(6)}
    assert all(names == sorted(names) and len(names) == 3 for names in drawn.values())
    assert drawn[0] == list(open_bench(path, seed=0, max_samples=3).ids)
    assert len({tuple(names) for names in drawn.values()}) > 1


def test_the_digest_follows_questions_references_and_images(tmp_path: Path) -> None:
    seen = replace(sample("a"), images=(ImageBytes(data=b"one", width=3, height=4),))
    other = replace(sample("a"), images=(ImageBytes(data=b"two", width=3, height=4),))
    sets = ([sample("a")], [sample("a", "5")], [sample("b")], [sample("a"), sample("b")], [seen], [other])
    digests = {
        open_bench(write(tmp_path / f"{i}.parquet", *rows), seed=0, max_samples=None).digest
        for i, rows in enumerate(sets)
    }
    assert len(digests) == 6
    again = open_bench(write(tmp_path / "again.parquet", sample("a")), seed=0, max_samples=None)
    assert again.digest in digests


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a sample_id twice"):
        open_bench(write(tmp_path / "b.parquet", sample("a"), sample("a", "5")), seed=0, max_samples=None)


def test_answers_of_a_stopped_evaluation_are_taken_up(tmp_path: Path) -> None:
    with PartialAnswers(tmp_path, "key") as answers:
        answers.add(answered("a"))
        answers.add(answered("b"))
    with (tmp_path / PARTIAL).open("a") as file:
        file.write('{"sample_id": "c", "sou')  # a kill in the middle of a line

    with PartialAnswers(tmp_path, "key") as answers:
        assert list(answers.found) == ["a", "b"]
        answers.add(answered("c"))
    with PartialAnswers(tmp_path, "key") as answers:
        assert list(answers.found) == ["a", "b", "c"]
        answers.remove()
    assert list(tmp_path.iterdir()) == []


def test_answers_to_other_questions_are_not_taken_up_and_not_lost(tmp_path: Path) -> None:
    with PartialAnswers(tmp_path, "key") as answers:
        answers.add(answered("a"))
    kept = (tmp_path / PARTIAL).read_text()
    with PartialAnswers(tmp_path, "another") as answers:
        assert answers.found == {}
    assert (tmp_path / f"{PARTIAL}.key").read_text() == kept


def test_taking_answers_up_changes_no_byte_of_them(tmp_path: Path) -> None:
    with PartialAnswers(tmp_path, "key") as answers:
        for name in "abc":
            answers.add(answered(name))
    written = (tmp_path / PARTIAL).read_bytes()
    for cut in (len(written), len(written) - 1, len(written) - 9):
        (tmp_path / PARTIAL).write_bytes(written[:cut])
        inode = (tmp_path / PARTIAL).stat().st_ino
        with PartialAnswers(tmp_path, "key") as answers:
            assert len(answers.found) == (3 if cut >= len(written) - 1 else 2)
        assert (tmp_path / PARTIAL).stat().st_ino == inode
        assert (tmp_path / PARTIAL).read_bytes().startswith(written[:cut])


def test_a_preset_that_scores_no_row_is_refused() -> None:
    found = apply_preset(preset_of("refcoco"), [answered("a")])
    with pytest.raises(DataError, match="preset=refcoco scored no row: 1 are of other tasks and 0 failed"):
        check_preset_scored(found)


def test_an_evaluation_of_failures_alone_is_refused_and_asked_again(tmp_path: Path) -> None:
    failed = [replace(answered(name), failure="prompt of 900 tokens") for name in "ab"]
    with PartialAnswers(tmp_path, "key") as answers:
        for row in failed:
            answers.add(row)
        with pytest.raises(DataError, match="not one of 2 rows could be scored; 2 of them: prompt of 900 tokens"):
            check_any_scored(failed, answers)
    with PartialAnswers(tmp_path, "key") as answers:
        assert answers.found == {}
        check_any_scored([failed[0], answered("c")], answers)
