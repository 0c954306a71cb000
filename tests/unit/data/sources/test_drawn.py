"""Drawn rows: fixed by their options, apart by split, with the references that the generator knows."""

from pathlib import Path

import pytest

from orchestration.settings.errors import ConfigError
from tests.unit.data.sources.reading import good, read


def test_rows_are_fixed_by_the_seed_and_splits_share_no_picture() -> None:
    first = good(read("drawn", Path(), num_rows=60, seed=3))
    assert good(read("drawn", Path(), num_rows=60, seed=3)) == first
    assert good(read("drawn", Path(), num_rows=60, seed=4)) != first
    held_out = good(read("drawn", Path(), split="held_out", num_rows=60, seed=3))
    assert not {row.images[0].data for row in first} & {row.images[0].data for row in held_out}
    assert {row.task for row in first} == {"match_yesno", "match_mcq", "chart", "iou", "open"}


def test_boxes_are_boxes_and_options_are_answered_by_their_text() -> None:
    rows = good(read("drawn", Path(), num_rows=60, seed=3))
    boxes = [row for row in rows if row.task == "iou"]
    assert all(row.answer == "" and row.boxes is not None and len(row.boxes) == 1 for row in boxes)
    assert all(row.answer in row.options and row.answer_type == "text" for row in rows if row.task == "match_mcq")
    assert all(row.metadata["sample_id"] == row.source_id for row in rows)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="split is 'test'; drawn sources have train and held_out"):
        read("drawn", Path(), split="test", num_rows=1)
