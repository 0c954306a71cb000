"""An evaluation's folder: files are read back equal, broken ones are refused, a stopped evaluation goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.evaluate.command import check_any_scored
from orchestration.evaluate.store import (
    PARTIAL,
    Manifest,
    PartialAnswers,
    check_comparable,
    read_evaluation,
    write_evaluation,
    write_json,
)
from orchestration.settings.errors import DataError
from tests.unit.evaluate.builders import sample

ROWS = [sample("a"), sample("b", 0.5, question="line\u2028break \ud800")]
MANIFEST = Manifest(model="base", data="bench", data_digest="5f3c" * 16, num_rows=2, sampling={"temperature": 1.0})


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "step-5", MANIFEST, ROWS)

    assert read_evaluation(tmp_path / "step-5") == (MANIFEST, ROWS)
    assert sorted(path.name for path in (tmp_path / "step-5").iterdir()) == ["evaluation.json", "predictions.jsonl"]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_evaluation(tmp_path / name, MANIFEST, ROWS)

    files = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_a_wrong_number_of_rows_is_refused_and_leaves_no_manifest(tmp_path: Path) -> None:
    write_evaluation(tmp_path, MANIFEST, ROWS)

    with pytest.raises(DataError, match="1 rows were written, the manifest says 2"):
        write_evaluation(tmp_path, MANIFEST, ROWS[:1])
    with pytest.raises(DataError, match="is not a complete evaluation"):
        read_evaluation(tmp_path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    write_evaluation(tmp_path, MANIFEST, ROWS)
    path = tmp_path / "predictions.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")

    with pytest.raises(DataError, match="holds 1 rows, its manifest says 2"):
        read_evaluation(tmp_path)


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    write_evaluation(tmp_path, MANIFEST, ROWS)
    path = tmp_path / "predictions.jsonl"
    path.write_text(path.read_text().splitlines()[0] + '\n{"sample_id": 1}\n')

    with pytest.raises(DataError, match=r"predictions.jsonl:2: EvaluatedSample lacks"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("values", [{"schema": "mixed-r1.evaluation.v0"}, [], {}])
def test_another_schema_is_refused(tmp_path: Path, values: object) -> None:
    write_evaluation(tmp_path, MANIFEST, ROWS)
    (tmp_path / "evaluation.json").write_text(json.dumps(values))

    with pytest.raises(DataError, match=r"this version reads 'mixed-r1.evaluation.v1'"):
        read_evaluation(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation.json cannot be read"):
        read_evaluation(tmp_path / "nothing")


def test_evaluations_of_other_data_are_not_compared() -> None:
    other = Manifest(model="base", data="bench-2", data_digest="77aa" * 16, num_rows=9)

    check_comparable(MANIFEST, MANIFEST)
    with pytest.raises(DataError, match=r"on bench \(digest 5f3c.*\), after on bench-2 \(digest 77aa"):
        check_comparable(MANIFEST, other)


def test_a_summary_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "summary.json", {"value": float("nan")})


def test_answers_of_a_stopped_evaluation_are_taken_up(tmp_path: Path) -> None:
    with PartialAnswers(tmp_path, "key") as answers:
        answers.add(sample("a"))
        answers.add(sample("b"))
    with (tmp_path / PARTIAL).open("a") as file:
        file.write('{"sample_id": "c", "sou')  # a kill in the middle of a line

    with PartialAnswers(tmp_path, "key") as answers:
        assert list(answers.found) == ["a", "b"]
        answers.add(sample("c"))
    with PartialAnswers(tmp_path, "key") as answers:
        assert list(answers.found) == ["a", "b", "c"]
        answers.remove()
    assert list(tmp_path.iterdir()) == []


def test_answers_to_other_questions_are_not_taken_up_and_not_lost(tmp_path: Path) -> None:
    with PartialAnswers(tmp_path, "key") as answers:
        answers.add(sample("a"))
    kept = (tmp_path / PARTIAL).read_text()
    with PartialAnswers(tmp_path, "another") as answers:
        assert answers.found == {}
    assert (tmp_path / f"{PARTIAL}.key").read_text() == kept


def test_taking_answers_up_changes_no_byte_of_them(tmp_path: Path) -> None:
    with PartialAnswers(tmp_path, "key") as answers:
        for name in "abc":
            answers.add(sample(name))
    written = (tmp_path / PARTIAL).read_bytes()
    for cut in (len(written), len(written) - 1, len(written) - 9):
        (tmp_path / PARTIAL).write_bytes(written[:cut])
        inode = (tmp_path / PARTIAL).stat().st_ino
        with PartialAnswers(tmp_path, "key") as answers:
            assert len(answers.found) == (3 if cut >= len(written) - 1 else 2)
        assert (tmp_path / PARTIAL).stat().st_ino == inode
        assert (tmp_path / PARTIAL).read_bytes().startswith(written[:cut])


def test_an_evaluation_of_failures_alone_is_refused_and_asked_again(tmp_path: Path) -> None:
    failed = [replace(sample(name), failure="prompt of 900 tokens") for name in "ab"]
    with PartialAnswers(tmp_path, "key") as answers:
        for row in failed:
            answers.add(row)
        with pytest.raises(DataError, match="none of 2 rows could be scored; 2 of them: prompt of 900 tokens"):
            check_any_scored(failed, answers)
    with PartialAnswers(tmp_path, "key") as answers:
        assert answers.found == {}
        check_any_scored([failed[0], sample("c")], answers)
