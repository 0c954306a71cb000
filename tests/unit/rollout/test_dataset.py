"""Parquet in and out."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.dataset import ROW_GROUP_BYTES, SCHEMA_VERSION, SampleTable, describe, to_row, write_rows, write_samples
from rollout.errors import RolloutError
from rollout.records import Difficulty, ImageBytes, Sample, Turn


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


def test_a_folder_of_shards_reads_as_one_table(tmp_path: Path) -> None:
    samples = make_samples(150)
    for number, start in enumerate((0, 40, 139)):
        end = (40, 139, 150)[number]
        write_samples(tmp_path / f"train-{number}.parquet", samples[start:end])
    table = SampleTable(tmp_path)
    assert [table[i] for i in (0, 39, 40, 138, 139, 149)] == [samples[i] for i in (0, 39, 40, 138, 139, 149)]
    assert table.columns("sample_id") == [(sample.sample_id,) for sample in samples]
    with pytest.raises(IndexError):
        table[150]


def test_row_groups_stay_small_in_rows_and_in_bytes(tmp_path: Path) -> None:
    write_samples(tmp_path / "few.parquet", make_samples(150))
    photo = ImageBytes(data=bytes(ROW_GROUP_BYTES // 2), width=3, height=4)
    large = [replace(sample, images=(photo,)) for sample in make_samples(5)]
    write_samples(tmp_path / "large.parquet", large)

    def rows(name: str) -> list[int]:
        metadata = pq.ParquetFile(tmp_path / name).metadata
        return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    assert rows("few.parquet") == [64, 64, 22]
    assert rows("large.parquet") == [2, 2, 1]


def test_every_column_says_what_it_holds(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.parquet", make_samples(1))
    schema = pq.read_schema(tmp_path / "s.parquet")
    assert schema.metadata[b"schema"] == SCHEMA_VERSION.encode()
    assert all(len(field.metadata[b"doc"]) > 10 for field in schema)
    for name in (*schema.names, "sha256", "size_bytes"):
        assert name in describe()


def test_everything_that_the_data_engine_knows_survives_the_disk(tmp_path: Path) -> None:
    difficulty = Difficulty(
        num_completions=4, mean=0.5, std=0.25, min=0.0, max=1.0, pass_rate=0.5, format_rate=1.0, agreement=0.75
    )
    sample = replace(
        make_samples(1)[0],
        source_id="17",
        license="CC BY 4.0",
        stratum="hard",
        prompt_tokens=40,
        image_tokens=16,
        difficulty=difficulty,
        metadata={"template": "3", "ä": "ö"},
        system="Be kind.",
        history=(Turn(role="user", text="Who?"), Turn(role="assistant", text="Two.")),
    )
    write_samples(tmp_path / "s.parquet", [sample])
    assert SampleTable(tmp_path / "s.parquet")[0] == sample


def write_v2(path: Path) -> list[Sample]:
    """Write a file as version 2 did, without system and history."""
    image = pa.struct(
        [
            pa.field("bytes", pa.binary()),
            pa.field("path", pa.string()),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
        ]
    )
    difficulty = pa.struct([pa.field("num_completions", pa.int32(), nullable=False), pa.field("mean", pa.float32())])
    schema = pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("sample_id", "source", "source_id", "license")),
            *(pa.field(name, pa.string(), nullable=False) for name in ("task", "question")),
            pa.field("images", pa.list_(image), nullable=False),
            pa.field("options", pa.list_(pa.string()), nullable=False),
            *(pa.field(name, pa.string(), nullable=False) for name in ("answer", "answer_type", "stratum")),
            pa.field("prompt_tokens", pa.int32()),
            pa.field("image_tokens", pa.int32()),
            pa.field("difficulty", difficulty),
            pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
        ],
        metadata={"schema": "mixed-r1.samples.v2"},
    )
    samples = make_samples(70)
    rows = [to_row(sample) for sample in samples]
    rows = [{name: row[name] for name in schema.names} for row in rows]
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows[:64], schema=schema))
        writer.write_table(pa.Table.from_pylist(rows[64:], schema=schema))
    return samples


def test_files_of_version_2_are_read_everywhere(tmp_path: Path) -> None:
    samples = write_v2(tmp_path / "train-0.parquet")
    table = SampleTable(tmp_path / "train-0.parquet")
    assert [table[i] for i in range(len(table))] == samples
    assert table.columns("history", "question", "system")[1] == ([], "question 1 é", "")
    found = table.arrow("system", "images.list.element.width", "history")
    assert found.column_names == ["system", "images", "history"]
    assert found.to_pylist()[4] == {"system": "", "images": [{"width": 3}], "history": []}

    turns = (Turn(role="user", text="Who?"), Turn(role="assistant", text="Two."))
    later = [replace(sample, sample_id=f"new-{i}", history=turns) for i, sample in enumerate(make_samples(3))]
    write_samples(tmp_path / "train-1.parquet", later)
    mixed = SampleTable(tmp_path)
    assert [mixed[i] for i in (69, 70, 72)] == [samples[69], later[0], later[2]]
    assert mixed.arrow("history", "sample_id").column("history").to_pylist()[69:71] == [
        [],
        [{"role": "user", "text": "Who?"}, {"role": "assistant", "text": "Two."}],
    ]
    assert len(mixed.image_digests()) == 73


def test_a_version_2_file_has_the_digest_of_its_rows_and_other_turns_another(tmp_path: Path) -> None:
    samples = write_v2(tmp_path / "v2.parquet")
    write_samples(tmp_path / "v3.parquet", samples)
    turn = Turn(role="user", text="Who?")
    write_samples(tmp_path / "turn.parquet", [replace(samples[0], history=(turn,)), *samples[1:]])
    write_samples(tmp_path / "system.parquet", [replace(samples[0], system="Be kind."), *samples[1:]])
    digests = [SampleTable(tmp_path / f"{name}.parquet").digest() for name in ("v2", "v3", "turn", "system")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def write_with_path(folder: Path, path: str, data: bytes) -> SampleTable:
    image = ImageBytes(data=data, width=3, height=4)
    row = to_row(replace(make_samples(1)[0], images=(image,)))
    row["images"][0] |= {"bytes": None, "path": path}
    folder.mkdir(exist_ok=True)
    write_rows(folder / "s.parquet", [row])
    return SampleTable(folder)


def test_images_in_files_are_read_from_under_the_dataset(tmp_path: Path) -> None:
    table = write_with_path(tmp_path / "set", "images/a.png", b"pixels")
    with pytest.raises(RolloutError, match=r"images/a.png cannot be read \(No such file"):
        table[0]
    (tmp_path / "set" / "images").mkdir()
    (tmp_path / "set" / "images" / "a.png").write_bytes(b"pixels")
    assert table[0].images[0].data == b"pixels"
    for changed in (b"pixelz", b"more pixels"):
        (tmp_path / "set" / "images" / "a.png").write_bytes(changed)
        with pytest.raises(RolloutError, match="is not the image that the dataset was built with"):
            write_with_path(tmp_path / "set", "images/a.png", b"pixels")[0]


@pytest.mark.parametrize("path", ["../secret.png", "images/../../secret.png", "link.png"])
def test_an_image_path_that_leaves_the_dataset_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(RolloutError, match="paths stay under the dataset"):
        write_with_path(tmp_path / "set", path, b"secret")[0]


def test_an_absolute_image_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    with pytest.raises(RolloutError, match="paths stay under the dataset"):
        write_with_path(tmp_path / "set", str(tmp_path / "secret.png"), b"secret")[0]


def picture_rows(count: int = 100) -> list[Sample]:
    random = np.random.default_rng(0)
    return [
        replace(sample, images=(ImageBytes(data=random.bytes(50_000), width=9, height=9),))
        for sample in make_samples(count)
    ]


def readable_rows(table: SampleTable) -> tuple[int, list[str]]:
    """How many rows can be read, and what the others say."""
    reasons = []
    for index in range(len(table)):
        try:
            table[index]
        except RolloutError as error:
            reasons.append(str(error))
    return len(table) - len(reasons), reasons


@pytest.mark.parametrize("with_bytes", [b"\0" * 2000, b"\x80" * 300_000], ids=["a page", "whole row groups"])
def test_rows_whose_bytes_changed_on_disk_are_refused_and_the_others_are_read(
    tmp_path: Path, with_bytes: bytes
) -> None:
    path = tmp_path / "s.parquet"
    write_samples(path, picture_rows())
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + len(with_bytes)] = with_bytes
    path.write_bytes(data)
    num_readable, reasons = readable_rows(SampleTable(path))
    assert num_readable > 0
    assert reasons
    assert all("is not the image that the dataset was built with" in r or str(path) in r for r in reasons)


def test_one_changed_image_inside_of_a_row_is_refused_for_this_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    samples = picture_rows(8)
    rows = [to_row(sample) for sample in samples]
    rows[3]["images"][0]["bytes"] = samples[4].images[0].data
    write_rows(path, rows)
    num_readable, (reason,) = readable_rows(SampleTable(path))
    assert num_readable == 7
    assert reason.startswith("sample s3: an image inside its row")


def test_a_file_that_is_cut_short_while_it_is_open_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_samples(path, picture_rows())
    table = SampleTable(path)
    os.truncate(path, 1000)
    with pytest.raises(RolloutError, match=r"s.parquet is not a readable Parquet file .*restore it"):
        table[90]
    with pytest.raises(RolloutError, match=r"s\.parquet is not a readable Parquet file"):
        table.columns("task")


def test_the_digest_is_of_the_rows_wherever_they_lie(tmp_path: Path) -> None:
    samples = picture_rows()
    write_samples(tmp_path / "whole.parquet", samples)
    (tmp_path / "shards").mkdir()
    for name, part in {"a": samples[:30], "b": samples[30:]}.items():
        write_samples(tmp_path / "shards" / f"{name}.parquet", part)
    digest = SampleTable(tmp_path / "whole.parquet").digest()
    assert SampleTable(tmp_path / "shards").digest() == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "another"},
        {"question": "another?"},
        {"images": (ImageBytes(data=bytes([0, 1]), width=3, height=4),) * 2},
        {"images": (ImageBytes(data=bytes([50, 1]), width=4, height=3),) * 2},
        {"images": ()},
        {"prompt_tokens": 7},
        {"metadata": {"split": "test"}},
        {"stratum": "hard"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_digest_tells_a_changed_row(tmp_path: Path, changes: dict[str, Any]) -> None:
    samples = make_samples(100)
    write_samples(tmp_path / "s.parquet", samples)
    samples[50] = replace(samples[50], **changes)
    write_samples(tmp_path / "other.parquet", samples)
    assert SampleTable(tmp_path / "s.parquet").digest() != SampleTable(tmp_path / "other.parquet").digest()


def test_the_digest_tells_rows_in_another_order(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.parquet", make_samples(9))
    write_samples(tmp_path / "turned.parquet", reversed(make_samples(9)))
    assert SampleTable(tmp_path / "s.parquet").digest() != SampleTable(tmp_path / "turned.parquet").digest()
