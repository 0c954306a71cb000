"""An image that several rows have: stored once, decoded once, and judged for each row; records as JSON."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data import validate
from orchestration.data.chunks import Chunk, ChunkWriter, ImageReader
from orchestration.data.images import check_image
from orchestration.data.sources.rows import (
    RawBox,
    RawImage,
    RawRow,
    candidate_from_json,
    candidate_to_json,
    raw_to_json,
)
from orchestration.data.stages import run_chunk
from orchestration.settings.recipe import LimitsConfig
from rollout.records import Difficulty
from tests.unit.data.pictures import encoded, picture
from tests.unit.data.rows import IMAGE, MCQ, candidate

DIFFICULTY = Difficulty(
    num_completions=4, mean=0.5, std=0.5, min=0.0, max=1.0, pass_rate=0.5, format_rate=1.0, agreement=0.5
)


def write_chunk(store: Path, rows: list[tuple[RawRow, bytes]]) -> Chunk:
    writer = ChunkWriter(store / "read" / "k")
    for row, data in rows:
        place = writer.add_image(data)
        row = dataclasses.replace(row, images=(RawImage(data=data),))
        writer.add({"source": "own", "role": "train", "license": "", "row": raw_to_json(row, [place])})
    return writer.finish({"source": "own", "role": "train"})


def test_an_image_of_several_rows_is_stored_once(tmp_path: Path) -> None:
    writer = ChunkWriter(tmp_path / "read" / "k")
    assert [writer.add_image(data) for data in (b"one", b"two", b"one", b"three", b"two")] == [0, 1, 0, 2, 1]
    assert writer.num_image_bytes == len(b"onetwothree")
    writer.finish({})
    reader = ImageReader(tmp_path)
    assert [reader.read("read/k", place) for place in range(3)] == [b"one", b"two", b"three"]
    with pytest.raises(IndexError):
        reader.read("read/k", 3)


def test_an_image_is_decoded_once_for_all_its_rows_and_once_more_for_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[bytes, bool]] = []

    def counted(data: bytes, limits: LimitsConfig, *, has_boxes: bool) -> Any:
        checked.append((data, has_boxes))
        return check_image(data, limits, has_boxes=has_boxes)

    monkeypatch.setattr(validate, "check_image", counted)
    one, two, bad = encoded(picture()), encoded(picture(), "JPEG"), b"no picture"
    boxes = dataclasses.replace(MCQ, boxes=(RawBox(values=(1.0, 2.0, 30.0, 40.0)),))
    rows = [(MCQ, one), (MCQ, two), (boxes, one), (MCQ, bad), (MCQ, one), (MCQ, two), (MCQ, bad)]
    write_chunk(tmp_path, rows)
    stage = validate.validate_stage(LimitsConfig(), tmp_path)
    result = run_chunk(stage, tmp_path, tmp_path / "read" / "k")

    assert (result.num_rows, result.num_rejected) == (5, 2)
    assert [entry for entry in checked if entry[0] != bad] == [(one, False), (two, False), (one, True)]
    images = [row["images"][0] for row in result.rows()]
    assert [image["index"] for image in images] == [0, 1, 0, 0, 1]
    assert images[0] == images[3]
    assert images[0]["sha256"] != images[1]["sha256"]


def test_a_changed_image_of_several_rows_is_stored_once(tmp_path: Path) -> None:
    printed = encoded(picture().convert("CMYK"), "JPEG")
    write_chunk(tmp_path, [(MCQ, printed), (MCQ, printed)])
    stage = validate.validate_stage(LimitsConfig(cmyk="convert"), tmp_path)
    result = run_chunk(stage, tmp_path, tmp_path / "read" / "k")
    images = [row["images"][0] for row in result.rows()]
    assert [(image["chunk"], image["index"]) for image in images] == [(result.address, 0)] * 2
    with pytest.raises(IndexError):
        ImageReader(tmp_path).read(result.address, 1)


@pytest.mark.parametrize("difficulty", [None, DIFFICULTY])
def test_a_candidate_is_written_with_all_its_fields_and_read_back(difficulty: Difficulty | None) -> None:
    row = dataclasses.replace(
        candidate(MCQ, metadata={"topic": "pets"}), images=(IMAGE, IMAGE), difficulty=difficulty, prompt_tokens=3
    )
    values = candidate_to_json(row)
    assert json.dumps(values) == json.dumps(dataclasses.asdict(row))
    assert candidate_from_json(json.loads(json.dumps(values))) == row


def test_a_raw_row_is_written_with_all_its_fields_but_the_bytes() -> None:
    row = dataclasses.replace(
        MCQ, images=(RawImage(data=b"x", image_id="coco/9"),), boxes=(RawBox(values=(1.0, 2.0, 3.0, 4.0), label="a"),)
    )
    wanted = {**dataclasses.asdict(row), "images": [{"index": 7, "image_id": "coco/9"}]}
    assert json.dumps(raw_to_json(row, [7])) == json.dumps(wanted)
