"""Files for other toolkits: their columns, their spelling of answers, their frames of boxes."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.evaluate.predictions import prediction, write_lmms_eval, write_vlmevalkit
from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample
from tests.unit.evaluate.builders import completion, sample, tagged

HOSTILE = 'tab\tbreak\r\n"quote" \x00 \ud800'


def said(text: str, **changes: Any) -> EvaluatedSample:
    return sample("a", source_id="0", greedy=completion(text=text), **changes)


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_tsv_has_the_columns_that_vlmevalkit_reads(tmp_path: Path) -> None:
    row = sample(
        "a",
        task="match_mcq",
        source_id="17",
        question="Which?",
        options=("cat", "dog", "cow"),
        answer="B",
        metadata={"category": "animals", "split": "val", "other": "x"},
        greedy=completion(text=tagged("B. dog")),
    )

    path = write_vlmevalkit(tmp_path, [row], model="mixed-r1", dataset="MMBench_DEV_EN")

    assert path.name == "mixed-r1_MMBench_DEV_EN.tsv"
    assert read_tsv(path) == [
        {
            "index": "17",
            "question": "Which?",
            "A": "cat",
            "B": "dog",
            "C": "cow",
            "answer": "B",
            "category": "animals",
            "split": "val",
            "prediction": "B. dog",
        }
    ]


def test_hostile_cells_stay_in_their_cell(tmp_path: Path) -> None:
    rows = [said(tagged(HOSTILE), question=HOSTILE), sample("b", source_id="1", greedy=None, failure="died")]

    table = read_tsv(write_vlmevalkit(tmp_path, rows, model="m", dataset="d"))

    assert [row["index"] for row in table] == ["0", "1"]
    assert table[0]["prediction"] == 'tab\tbreak\r\n"quote"   ?'
    assert table[1]["prediction"] == "[unanswered]"


@pytest.mark.parametrize(("answer", "cell"), [("yes", "Yes"), ("no", "No"), ("Yes", "Yes"), ("false", "No")])
def test_yes_and_no_are_spelled_as_vlmevalkit_compares_them(tmp_path: Path, answer: str, cell: str) -> None:
    row = said(tagged("yes"), task="match_yesno", answer=answer)

    assert read_tsv(write_vlmevalkit(tmp_path, [row], model="m", dataset="POPE"))[0]["answer"] == cell


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ("as_given", "[250, 0, 500, 500]"),
        ("pixel", "[100.00, 0.00, 200.00, 150.00]"),  # 250 of 1000 over 400 pixels, 500 of 1000 over 300
        ("norm1", "[0.250000, 0.000000, 0.500000, 0.500000]"),
        ("norm1000", "[250.000, 0.000, 500.000, 500.000]"),
    ],
)
def test_boxes_are_written_in_the_frame_asked_for(frame: Any, text: str) -> None:
    row = said(
        tagged("[250, 0, 500, 500]"),
        task="iou",
        answer="[0, 0, 9, 9]",
        coord_mode="norm1000",
        image_sizes=((400, 300),),
        image_input_sizes=((200, 150),),
    )

    assert prediction(row, frame) == text


def test_an_answer_without_a_box_is_left_as_it_is() -> None:
    assert prediction(said(tagged("no idea"), task="iou", answer="[0, 0, 9, 9]"), "norm1") == "no idea"


def test_boxes_of_an_unknown_image_cannot_be_scaled() -> None:
    with pytest.raises(DataError, match="sample a has no image size"):
        prediction(said(tagged("[1, 2, 3, 4]"), task="iou", answer="[0, 0, 9, 9]"), "norm1")


def test_lmms_eval_finds_samples_by_place_and_its_log_model_their_text(tmp_path: Path) -> None:
    rows = [sample("b", source_id="1", answer="9", greedy=completion(text=tagged("9"))), said(tagged("4"))]

    samples, log = write_lmms_eval(tmp_path, rows, model="m", task="chartqa")

    assert [json.loads(line) for line in samples.read_text().splitlines()] == [
        {"doc_id": 0, "target": "4", "resps": [[tagged("4")]], "filtered_resps": ["4"]},
        {"doc_id": 1, "target": "9", "resps": [[tagged("9")]], "filtered_resps": ["9"]},
    ]
    assert json.loads(log.read_text()) == {
        "args": {"model": "m", "model_args": "", "limit": None},
        "model_configs": {"task": "chartqa"},
        "logs": [{"doc_id": 0, "resps": [["4"]]}, {"doc_id": 1, "resps": [["9"]]}],
    }


@pytest.mark.parametrize("source_id", ["x", "-1", "1.0", "\u0661"])
def test_lmms_eval_refuses_an_id_that_is_no_place(tmp_path: Path, source_id: str) -> None:
    with pytest.raises(DataError, match="place in the split"):
        write_lmms_eval(tmp_path, [sample("a", source_id=source_id)], model="m", task="t")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([sample("a")], "no source_id"),
        ([sample("a", source_id="1", greedy=None)], "no greedy completion"),
        ([sample("a", source_id="1"), sample("b", source_id="1")], "share a source_id"),
        ([sample("a", source_id="1", options=("x",) * 27)], "27 options"),
    ],
)
def test_rows_that_a_toolkit_could_not_place_are_refused(
    tmp_path: Path, rows: list[EvaluatedSample], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_vlmevalkit(tmp_path, rows, model="m", dataset="d")


@pytest.mark.parametrize("name", ["", "../m", "a/b", ".hidden"])
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="part of a file name"):
        write_vlmevalkit(tmp_path, [], model=name, dataset="d")
