"""Chunks: whole or not there, found by key, images read one by one."""

import json
from pathlib import Path

from orchestration.data.chunks import Chunk, ChunkWriter, ImageReader, digest_of
from orchestration.data.sources.rows import Rejected, RejectReason

GONE = Rejected(
    stage="read",
    source="s",
    source_id="2",
    role="train",
    reason=RejectReason.IMAGE_MISSING,
    detail="a.png",
    question="?",
)


def write(folder: Path, rows: list[dict[str, object]], images: list[bytes] | None = None) -> Chunk:
    writer = ChunkWriter(folder)
    for data in images or []:
        writer.add_image(data)
    for row in rows:
        writer.add(row)
    writer.reject(GONE)
    return writer.finish({"role": "train"})


def test_a_finished_chunk_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = write(tmp_path / "read" / "k", [{"a": 1}, {"a": "ü"}])
    found = Chunk.open(tmp_path / "read" / "k")

    assert found == written
    assert (found.num_rows, found.num_rejected, found.facts, found.address) == (2, 1, {"role": "train"}, "read/k")
    assert list(found.rows()) == [{"a": 1}, {"a": "ü"}]
    assert [row["reason"] for row in found.rejected()] == ["image_missing"]


def test_an_unfinished_chunk_is_not_there(tmp_path: Path) -> None:
    writer = ChunkWriter(tmp_path / "read" / "k")
    writer.add({"a": 1})
    assert Chunk.open(tmp_path / "read" / "k") is None


def test_the_digest_follows_rows_and_images_and_nothing_else(tmp_path: Path) -> None:
    same = write(tmp_path / "x" / "1", [{"a": 1}], [b"p"]).digest
    assert write(tmp_path / "y" / "2", [{"a": 1}], [b"p"]).digest == same
    assert write(tmp_path / "x" / "3", [{"a": 2}], [b"p"]).digest != same
    assert write(tmp_path / "x" / "4", [{"a": 1}], [b"q"]).digest != same


def test_images_of_many_chunks_are_read_by_address(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / "read" / str(number), [], [f"{number}-{i}".encode() for i in range(3)])
    reader = ImageReader(tmp_path, max_open=2)
    for number in (0, 4, 2, 0, 3):
        assert reader.read(f"read/{number}", 1) == f"{number}-1".encode()


def test_a_chunk_that_is_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "read" / "k", [{"a": 1}])
    write(tmp_path / "read" / "k", [{"a": 2}])
    found = Chunk.open(tmp_path / "read" / "k")
    assert found is not None
    assert list(found.rows()) == [{"a": 2}]
    assert [path.name for path in (tmp_path / "read").iterdir()] == ["k"]


def test_keys_do_not_depend_on_the_order_of_settings() -> None:
    first, second = {"a": 1, "b": [1, 2]}, json.loads('{"b": [1, 2], "a": 1}')
    assert digest_of("s", first) == digest_of("s", second)
    assert digest_of("s", first) != digest_of("t", first)
