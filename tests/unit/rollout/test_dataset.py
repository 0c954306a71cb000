"""Parquet in and out."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.dataset import SampleTable, write_samples
from rollout.errors import RolloutError
from rollout.records import ImageBytes, Sample


def make_samples(count: int) -> list[Sample]:
    return [
        Sample(
            sample_id=f"s{i}",
            source="unit",
            task="chart" if i % 2 else "match_mcq",
            question=f"question {i} é",
            answer=str(i),
            images=(ImageBytes(data=bytes([i % 256, 1]), width=3, height=4),) * (i % 3),
            options=("a", "b") if i % 2 == 0 else (),
        )
        for i in range(count)
    ]


@pytest.fixture
def table(tmp_path: Path) -> SampleTable:
    write_samples(tmp_path / "s.parquet", make_samples(150))
    return SampleTable(tmp_path / "s.parquet")


def test_samples_survive_the_disk(table: SampleTable) -> None:
    assert [table[i] for i in range(len(table))] == make_samples(150)
    assert table[149] == make_samples(150)[149]
    assert [task for task, _ in table.tasks_and_sources()[:2]] == ["match_mcq", "chart"]


def test_equal_samples_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_samples(tmp_path / name, make_samples(70))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unusable_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="no dataset at"):
        SampleTable(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(RolloutError, match="not a readable Parquet"):
        SampleTable(tmp_path / "text.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(RolloutError, match=r"schema 'none.*build"):
        SampleTable(tmp_path / "other.parquet")
    write_samples(tmp_path / "empty.parquet", [])
    with pytest.raises(RolloutError, match="no rows"):
        SampleTable(tmp_path / "empty.parquet")
